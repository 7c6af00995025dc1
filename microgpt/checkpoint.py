"""Checkpoints: a run in a safetensors file, written whole or not at all, read without trusting it.

A safetensors file is eight bytes (the length of the header, little-endian), a header in JSON, and
numbers. Here the numbers are float64, so a run that is continued goes on bit for bit as if it had
never stopped. The tensors are the weights by path (`blocks.0.heads.1.wq`), Adam's two means (`m.`
and `v.` before the path) and `losses`; the header's `__metadata__`, which maps names to texts,
holds:

    format    "microgpt"
    version   "1"
    source    the text of the gpt.py that made the run
    vocab     JSON: the tokens in order
    sizes     JSON: the arguments of init, by name
    training  JSON: seed, step, steps, batch, lr
    data      JSON: name, title, separator, documents (how many), fingerprint

To read a checkpoint is to read numbers and text; to make a `Run` of it is to execute the source
inside. So a source that is not this package's own gpt.py is executed only when the caller says so.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from microgpt import data
from microgpt.errors import MicrogptError
from microgpt.files import part_of, place_on_disk, reason, write
from microgpt.run import MOST_WEIGHTS, Run, expected_weights
from microgpt.source import ORIGINAL, edits

VERSION = "1"
LONGEST_HEADER = 8_000_000  # bytes
MOST_BRACKETS = 300_000  # in a header: each opens a list or an object, which costs memory
MOST_NUMBERS = 4 * MOST_WEIGHTS  # weights, two moments, and losses

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says, as text and numbers; nothing of it has been executed."""

    source: str
    vocab: list[str]
    sizes: dict[str, float]
    seed: int
    step: int
    steps: int | None
    batch: int | None
    lr: float | None
    data: dict[str, Any]
    tensors: dict[str, tuple[Shape, array[float]]]

    @property
    def edited(self) -> tuple[int, int]:
        """How many lines its source adds to this package's gpt.py, and how many it takes away."""
        changes = edits(ORIGINAL, self.source)
        return sum(len(added) for _, _, added in changes), sum(removed for _, removed, _ in changes)


# ---- The format ----


def encode(tensors: dict[str, tuple[Shape, array[float]]], metadata: dict[str, str]) -> bytes:
    """A safetensors file of float64 tensors.

    Args:
        tensors: by name, a shape and that many numbers, row by row.
        metadata: texts by name.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for name, (shape, numbers) in tensors.items():
        end = begin + 8 * len(numbers)
        header[name] = {"dtype": "F64", "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join(
        [len(text).to_bytes(8, "little"), text, *_little(n for _, n in tensors.values())]
    )


def _little(arrays: Iterable[array[float]]) -> Iterator[bytes]:
    for numbers in arrays:
        if sys.byteorder == "big":
            numbers = array("d", numbers)
            numbers.byteswap()
        yield numbers.tobytes()


def decode(
    stream: BinaryIO, size: int, name: str = "This checkpoint"
) -> tuple[dict[str, tuple[Shape, array[float]]], dict[str, str]]:
    """Read a safetensors file of this package; the inverse of `encode`, for bytes that nobody
    vouches for.

    Args:
        stream: the file, at its beginning.
        size: its length in bytes.
        name: what a refusal calls it.

    Raises:
        MicrogptError: it is not a safetensors file, not one of this package, or damaged. Nothing is
            read before its size has been checked.
    """
    header, metadata, begun = _header(stream, size, name)
    places = sorted((_place(name, key, entry), key) for key, entry in header.items())
    end = 0
    for (begin, stop, _), _key in places:
        if begin != end:
            _damaged(name, "its tensors overlap or leave gaps")
        end = stop
    if end != size - begun:
        _damaged(name, f"it should hold {end:,} bytes of numbers and holds {size - begun:,}")
    if end > 8 * MOST_NUMBERS:
        _damaged(name, f"it holds {end // 8:,} numbers, more than any run here has")
    tensors = {}
    for (begin, stop, shape), key in places:
        numbers = array("d")
        numbers.frombytes(stream.read(stop - begin))
        if sys.byteorder == "big":
            numbers.byteswap()
        tensors[key] = (shape, numbers)
    return {key: tensors[key] for key in header}, metadata


def _header(stream: BinaryIO, size: int, name: str) -> tuple[dict[str, Any], dict[str, str], int]:
    """The entries of the tensors, the metadata, and where the numbers begin."""
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length < 2:
        raise MicrogptError(
            f"{name} is not a checkpoint: it is too short or does not begin like one."
        )
    if length > size - 8 or length > LONGEST_HEADER:
        raise MicrogptError(
            f"{name} is not a checkpoint, or is cut short: it is smaller than its first bytes say."
            if length > size - 8
            else f"{name} is not a checkpoint of microgpt: its header is too long."
        )
    raw = stream.read(length)
    if raw[:1] != b"{" or _oversized(raw):
        raise MicrogptError(f"{name} is not a checkpoint: its header is not one.")
    try:
        header = _json(raw.decode())
    except (ValueError, RecursionError):
        raise MicrogptError(
            f"{name} is not a checkpoint, or is damaged: its header cannot be read."
        ) from None
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != "microgpt":
        raise MicrogptError(
            f"{name} was not made by microgpt, so there is no program in it to run."
        )
    if metadata.get("version") != VERSION:
        raise MicrogptError(
            f"{name} was made by another version of microgpt; update microgpt to read it."
        )
    if not all(isinstance(text, str) for text in metadata.values()):
        _damaged(name, "its metadata are not texts")
    return header, metadata, 8 + length


def _place(name: str, key: str, entry: Any) -> tuple[int, int, Shape]:
    match entry:
        case {"dtype": "F64", "shape": list(shape), "data_offsets": [int(begin), int(stop)]}:
            pass
        case {"dtype": str(dtype), "shape": list(), "data_offsets": list()} if dtype != "F64":
            _damaged(name, f"its tensor {_short(key)} is of type {_short(dtype)}, not F64")
        case _:
            _damaged(name, f"its entry {_short(key)} does not describe a tensor")
    if len(shape) > 2 or not all(type(n) is int and n >= 0 for n in shape):
        _damaged(name, f"its tensor {_short(key)} has no shape of a matrix")
    if not (0 <= begin <= stop) or stop - begin != 8 * math.prod(shape):
        _damaged(name, f"its tensor {_short(key)} does not fill its place")
    return begin, stop, tuple(shape)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _damaged(name: str, why: str) -> NoReturn:
    raise MicrogptError(f"{name} is damaged: {why}.")


def _json(text: str) -> Any:
    """JSON without what hostile files use: a name given twice, NaN, Infinity."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name is given twice")
        return found

    def no_number(word: str) -> NoReturn:
        raise ValueError(f"{word} is not a number")

    return json.loads(text, object_pairs_hook=once, parse_constant=no_number)


# ---- Runs ----


def dumps(run: Run) -> bytes:
    """A run as the bytes of a checkpoint.

    Raises:
        MicrogptError: its numbers are no longer finite, or it was interrupted in the middle of a
        step.
    """
    if not run.whole:
        raise MicrogptError(
            "This run was interrupted in the middle of a step, so it cannot be saved."
        )
    tensors: dict[str, tuple[Shape, array[float]]] = {}
    weights = run.named_weights()
    for name, weight in weights.items():
        tensors[name] = _flat(weight.data)
    for name, (m, v) in zip(weights, run.moments or [], strict=run.moments is not None):
        tensors["m." + name], tensors["v." + name] = _flat(m), _flat(v)
    tensors["losses"] = ((len(run.losses),), array("d", run.losses))
    if len(tensors) != len(weights) + 2 * len(run.moments or []) + 1:
        raise MicrogptError(
            "Two tensors of this run would have one name in a checkpoint; rename a weight in init."
        )
    if not all(map(math.isfinite, (x for _, numbers in tensors.values() for x in numbers))):
        raise MicrogptError(
            f"The weights at step {run.step:,} are no longer finite numbers, so they are not saved."
        )
    training = {
        "seed": run.seed,
        "step": run.step,
        "steps": run.steps,
        "batch": run.batch,
        "lr": run.lr,
    }
    facts = run.origin or {
        "name": run.corpus.name,
        "title": run.corpus.title,
        "separator": run.corpus.separator,
        "documents": len(run.corpus.docs),
        "fingerprint": data.fingerprint(run.corpus.docs),
    }
    texts = {"vocab": run.vocab, "sizes": run.sizes, "training": training, "data": facts}
    written = {key: json.dumps(value, ensure_ascii=False) for key, value in texts.items()}
    metadata = {"format": "microgpt", "version": VERSION, "source": run.source, **written}
    try:
        contents = encode(tensors, metadata)
    except UnicodeEncodeError:
        raise MicrogptError(
            "The source or the vocabulary holds half of a character, so it cannot be saved."
        ) from None
    if _oversized(contents[8 : 8 + int.from_bytes(contents[:8], "little")]):
        raise MicrogptError("This run has too many weight matrices or tokens for a checkpoint.")
    return contents


def _oversized(header: bytes) -> bool:
    """Whether a header would cost more memory to read than that of any run."""
    brackets = header.count(b"{") + header.count(b"[")
    return len(header) > LONGEST_HEADER or brackets > MOST_BRACKETS


def _flat(rows: Any) -> tuple[Shape, array[float]]:
    return (len(rows), len(rows[0])), array("d", [x for row in rows for x in row])


def parse(
    contents: bytes | BinaryIO, name: str = "This checkpoint", *, size: int | None = None
) -> Checkpoint:
    """What a checkpoint says, checked piece by piece; nothing of it is executed.

    Raises:
        MicrogptError: it is foreign, cut short or damaged.
    """
    stream = io.BytesIO(contents) if isinstance(contents, bytes) else contents
    tensors, metadata = decode(
        stream, len(contents) if isinstance(contents, bytes) else size or 0, name
    )
    try:
        source = metadata["source"]
        vocab, sizes, training, facts = (
            _json(metadata[key]) for key in ("vocab", "sizes", "training", "data")
        )
    except (KeyError, ValueError, RecursionError):
        _damaged(name, "its metadata cannot be read")
    if not (isinstance(vocab, list) and vocab and all(isinstance(token, str) for token in vocab)):
        _damaged(name, "its vocabulary is not a list of tokens")
    if not (isinstance(sizes, dict) and all(type(n) in (int, float) for n in sizes.values())):
        _damaged(name, "its sizes are not numbers")
    if not (
        isinstance(facts, dict)
        and all(isinstance(facts.get(k), str) for k in ("name", "fingerprint"))
    ):
        _damaged(name, "it does not say which data it was trained on")
    if not isinstance(training, dict):
        _damaged(name, "it does not say how it was trained")
    numbers = {key: training.get(key) for key in ("seed", "step", "steps", "batch", "lr")}
    for key, value in numbers.items():
        kinds: tuple[type, ...] = (int, float) if key == "lr" else (int,)
        if type(value) not in kinds and (value is not None or key in ("seed", "step")):
            _damaged(name, f"its {key} is not a number")
    step, steps = int(training["step"]), numbers["steps"]
    _, losses = tensors.get("losses", ((0,), array("d")))
    if step != len(losses) or (steps is not None and not 0 <= step <= steps):
        _damaged(name, f"it says step {step:,} of {steps}, and holds {len(losses):,} losses")
    if not all(map(math.isfinite, (x for _, array_ in tensors.values() for x in array_))):
        _damaged(name, "some of its numbers are not finite")
    return Checkpoint(
        source=source,
        vocab=vocab,
        sizes=sizes,
        seed=training["seed"],
        step=step,
        steps=steps,
        batch=numbers["batch"],
        lr=numbers["lr"],
        data=facts,
        tensors=tensors,
    )


def loads(
    contents: bytes | Checkpoint,
    *,
    corpus: data.Corpus | None = None,
    trust: bool = False,
    name: str = "This checkpoint",
) -> Run:
    """The run in a checkpoint, ready to sample, and where its data are at hand, to go on training.

    Args:
        contents: the bytes of a checkpoint, or what `parse` made of them.
        corpus: the data it was trained on; when None, a bundled data set is found by its name, and
            without one the run can only sample.
        trust: whether to execute a source inside that is not this package's gpt.py.
        name: what a refusal calls it.

    Raises:
        MicrogptError: the checkpoint is foreign or damaged, its source differs and is not trusted,
            or the corpus is not the one it was trained on.
    """
    saved = parse(contents, name) if isinstance(contents, bytes) else contents
    if saved.source != ORIGINAL and not trust:
        added, removed = saved.edited
        raise MicrogptError(
            f"{name} carries a gpt.py of its own ({added} lines added, {removed} removed), and "
            "loading it would run that program; if you know where it comes from, say trust=True."
        )
    if saved.source == ORIGINAL:
        beside = ("m.", "v.", "losses")
        weights = sum(len(n) for key, (_, n) in saved.tensors.items() if not key.startswith(beside))
        whole = all(
            type(saved.sizes.get(k)) is int for k in ("n_layer", "n_head", "n_embd", "block_size")
        )
        if not whole or expected_weights(saved.sizes, len(saved.vocab)) != weights:
            _damaged(name, "its sizes are not those of its weights")
    corpus, problem = _corpus(saved, corpus, name)
    try:
        run = Run(
            saved.source,
            corpus,
            seed=saved.seed,
            steps=saved.steps,
            batch=saved.batch,
            lr=saved.lr,
            vocab=saved.vocab,
            engine="reference",
            **saved.sizes,
        )
        _fill(run, saved, name)
    except MicrogptError as error:
        if saved.source == ORIGINAL and not error.message.startswith(name):
            _damaged(name, error.message.rstrip("."))
        raise
    run.step = saved.step
    run.losses = saved.tensors["losses"][1].tolist() if "losses" in saved.tensors else []
    run.data_problem, run.origin = problem, saved.data
    return run


def _corpus(
    saved: Checkpoint, given: data.Corpus | None, name: str
) -> tuple[data.Corpus, str | None]:
    """The corpus of a checkpoint, and why it cannot be used to train, when it cannot."""
    called, wanted = saved.data["name"], saved.data["fingerprint"]
    found = given
    if found is None and called in data.DATASETS:
        found = data.load(called)
    if found is None:
        problem = (
            f"The data of this run ({called}) are not in the checkpoint; give them to go on "
            "training."
        )
    elif data.fingerprint(found.docs) == wanted:
        return found, None
    elif given is not None:
        raise MicrogptError(
            f"{name} was trained on other data than these: on {saved.data.get('documents')} "
            "documents of "
            f"{called}, fingerprint {wanted[:8]}, and these are {len(found.docs)} with "
            f"{data.fingerprint(found.docs)[:8]}."
        )
    else:
        problem = (
            f"The data set {called} is not the one that this run was trained on, so it cannot go "
            "on training."
        )
    return data.Corpus(called, str(saved.data.get("title", called)), (), None), problem


def _fill(run: Run, saved: Checkpoint, name: str) -> None:
    """Put the numbers of a checkpoint in the place of those that `init` made."""
    weights = run.named_weights()
    wanted = {key: w.shape for key, w in weights.items()}
    if run.moments is not None:
        wanted |= {mark + key: w.shape for key, w in weights.items() for mark in ("m.", "v.")}
    wanted["losses"] = (saved.step,)
    for key in {**wanted, **saved.tensors}:
        if key not in saved.tensors or key not in wanted:
            _damaged(name, f"it has {'no' if key in wanted else 'an unknown'} tensor {_short(key)}")
        if tuple(wanted[key]) != saved.tensors[key][0]:
            _damaged(
                name,
                f"its tensor {_short(key)} has the shape {saved.tensors[key][0]}, not "
                f"{tuple(wanted[key])}",
            )
    for key, weight in weights.items():
        weight.data = _rows(*saved.tensors[key])
    for key, moment in zip(weights, run.moments or [], strict=run.moments is not None):
        for mark, rows in zip(("m.", "v."), moment, strict=True):
            rows[:] = _rows(*saved.tensors[mark + key])


def _rows(shape: Shape, numbers: array[float]) -> list[list[float]]:
    width = shape[1]
    return [numbers[i * width : (i + 1) * width].tolist() for i in range(shape[0])]


# ---- Files ----


def save(run: Run, path: str | os.PathLike[str]) -> None:
    """Write a run to a file: all of it, or nothing, leaving what was there.

    Raises:
        MicrogptError: the run cannot be saved, the file is something else than a checkpoint, or
        the disk
            does not take it.
    """
    contents = dumps(run)
    place = Path(path)
    check_target(place)
    write(place, contents)


def load(
    path: str | os.PathLike[str], *, corpus: data.Corpus | None = None, trust: bool = False
) -> Run:
    """The run in a file; see `loads`.

    Raises:
        MicrogptError: the file cannot be read, or what `loads` raises.
    """
    return loads(read(path), corpus=corpus, trust=trust, name=Path(path).name)


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """What the checkpoint in a file says; nothing of it is executed.

    Raises:
        MicrogptError: the file cannot be read, or is foreign, cut short or damaged.
    """
    place = Path(path)
    try:
        if place.is_dir():
            raise MicrogptError(f"{place} is a folder, not a checkpoint.")
        if place.exists() and not place.is_file():
            raise MicrogptError(f"{place} is not a file.")
        with place.open("rb") as file:
            return parse(file, place.name, size=os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise MicrogptError(f"There is no file {place}.") from None
    except (OSError, ValueError) as error:
        raise MicrogptError(f"{place} cannot be read: {reason(error)}.") from error


def check_target(path: Path, contents: bytes | None = None) -> None:
    """Refuse a file that a checkpoint must not or cannot be written to.

    Args:
        path: the file to be.
        contents: what is written beside it and removed again, to know before hours of training
            whether there is permission and room; nothing when None.

    Raises:
        MicrogptError: its folder is missing or cannot be written to, or it is a file of another
        kind.
    """
    place = place_on_disk(path)
    try:
        if place.is_dir():
            raise MicrogptError(
                f"{path} is a folder; give the name of a file in it, such as "
                f"{path}/run.safetensors."
            )
        if not place.parent.is_dir():
            raise MicrogptError(
                f"There is no folder {place.parent} to write {place.name} in; make it first."
            )
        if place.exists():
            if not place.is_file():
                raise MicrogptError(f"{path} is not a file, so no checkpoint is written there.")
            if place.stat().st_size and not _ours(place):
                raise MicrogptError(
                    f"{path} exists and is no checkpoint of microgpt; it is left alone: give "
                    "another name."
                )
    except OSError as error:
        raise MicrogptError(f"{path} cannot be written: {reason(error)}.") from error
    if contents is not None:
        part = part_of(place)
        try:
            with part.open("xb") as file:
                file.write(contents)
        except OSError as error:
            raise MicrogptError(f"{path} cannot be written: {reason(error)}.") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink()


def _ours(place: Path) -> bool:
    """Whether the header of a file is that of a checkpoint of this package."""
    with place.open("rb") as file:
        try:
            _header(file, os.fstat(file.fileno()).st_size, place.name)
        except MicrogptError:
            return False
    return True
