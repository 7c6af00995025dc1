"""What the page asks of Python: plain data in, plain data out; no HTML, no HTTP.

`call(name, arguments)` is the whole door: JSON in, JSON out, and beside it a parcel of bytes where
a call says so. It never raises: whatever goes wrong is an answer, `{"error": {"message", "line",
"kind"}}`, in words that a reader can use. The kinds are `run` (the source is at fault, at that
line) and `user` (something asked for cannot be).

`python -m microgpt.bridge record FILE` runs the file and writes the recording that the page plays
before Python is there, and beside it the trained model, which the page goes on with, and the run at
its beginning, which the page's kernel trains before Python is there.
"""

from __future__ import annotations

import base64
import copy
import json
import math
import platform
import random
import sys
import time
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microgpt import __version__, checkpoint, data
from microgpt import source as file
from microgpt.errors import LeavesContract, MicrogptError
from microgpt.lessons import exercises, instruments
from microgpt.lessons.instruments import Models, principal_axes
from microgpt.run import Run, about
from microgpt.xray import finite, thin, xray

if TYPE_CHECKING:
    from microgpt.live import Packer

Plain = dict[str, Any]

MOST, SIBLINGS = 24, 8  # how much of each function call, and of calls in a row, the page shows
HELD_OUT = 50  # documents that the page measures a running model on
TRAINED = "trained.safetensors"  # beside the recording: the run that it shows
FIRST = "first.pack"  # beside it: the same run at its beginning, for the page's kernel
DIGITS = 6  # significant digits of every number that travels
LARGEST_RECORDED = 512  # cells of a matrix, other than a tensor, that the recording keeps


class Session:
    """One page's conversation: the run that it trains, and the sample that it is writing."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.sampling: Iterator[tuple[str, list[float]]] | None = None
        self.text = ""
        self.axes: list[list[float]] = []  # of the last picture of the embeddings
        self.adopted: bytes | None = None  # the checkpoint that came with the page
        self.parcel: bytes | None = None  # bytes that came with a question, or go with an answer
        self.packer: Packer | None = None  # lays runs out for the page's kernel
        self.models: Models | None = None  # what the walk's instruments look at

    # ---- The file and its x-ray ----

    def boot(self) -> Plain:
        """What the page needs to know before anything runs."""
        return {
            "python": platform.python_version(), "version": __version__, "source": file.ORIGINAL,
            "datasets": list(data.DATASETS.values()),
        } | _outline(file.ORIGINAL)  # fmt: skip

    def check(self, source: str) -> Plain:
        """What is wrong with a source, and how it differs from the original; nothing of it is
        run.
        """
        return {
            "problems": [vars(problem) for problem in file.problems(source)],
            "edits": file.edits(file.ORIGINAL, source),
            "diff": file.diff(file.ORIGINAL, source),
        } | _outline(source)

    def set_knob(self, source: str, name: str, value: float) -> Plain:
        """The source with one number of its signatures changed."""
        return {"source": file.set_knob(source, name, value)}

    def xray(
        self, source: str, doc: str, model: str = "fresh", seed: int = 42, data: str = "names"
    ) -> Plain:
        """One training step of a source on a document, recorded: with first weights, or the
        running model's.
        """
        if model == "run" and self.run is not None and self.run.source == source:
            run = self.run
            return thin(xray(
                source, doc, vocab=run.vocab, params=run.params, start=min(run.step, (run.steps or
                1) - 1), steps=run.steps, moments=run.moments, most=MOST, siblings=SIBLINGS,
            ), DIGITS)  # fmt: skip
        fresh = Run(source, _corpus(data), seed=seed)
        return thin(xray(
            source, doc, vocab=fresh.vocab, params=fresh.params, moments=fresh.moments, most=MOST,
            siblings=SIBLINGS
        ), DIGITS)  # fmt: skip

    # ---- Training ----

    def start(self, source: str, data: str = "names", seed: int = 42) -> Plain:
        """A new run of a source; the one before it is forgotten."""
        self.run, self.sampling, self.axes = None, None, []
        self.run = Run(source, _corpus(data), seed=seed)
        return about(self.run)

    def adopt(self, base64_text: str) -> Plain:
        """Go on with a run that was trained elsewhere: a checkpoint of the original file."""
        content = base64.b64decode(base64_text)
        self.run, self.sampling, self.axes = None, None, []
        self.run = checkpoint.loads(content, name="The model that came with the page")
        self.models, self.adopted = None, content
        return about(self.run)

    def pack(
        self,
        source: str,
        data: str = "names",
        seed: int = 42,
        seeds: list[int] | None = None,
        lanes: int = 1,
        most: int | None = None,
    ) -> Plain:
        """A run of a source for the page's kernel, which is this answer's parcel.

        Returns:
            `refused`: a sentence why the kernel cannot train it, else None; `large`: whether it was
            not tried because the model has more than `most` weights.
        """
        from microgpt.live import Packer  # when it is first asked for: Python starts sooner

        self.packer = self.packer or Packer()
        runs = [seed] if seeds is None else seeds
        try:
            self.parcel = self.packer.pack(source, _corpus(data), runs, lanes=lanes, most=most)
        except LeavesContract as why:
            what = "This program" if source == file.ORIGINAL else "This edit"
            sentence = f"{what} is trained by Python itself, which is slower: {why.message}."
            return {"refused": sentence, "large": False}
        return {"refused": None, "large": self.parcel is None}

    def take(self, source: str, data: str, seed: int, step: int, losses: list[float]) -> Plain:
        """Go on with a run that the page's kernel has trained: its weights and moments are this
        question's parcel, 4 bytes a number, each weight with its two moments.
        """
        run = Run(source, _corpus(data), seed=seed)
        found = _parts(self.parcel, [w.shape for w in run.named_weights().values()], 3)
        run.take(step, losses, [w for w, _, _ in found], [(m, v) for _, m, v in found])
        self.run, self.sampling = run, None
        return about(run)

    def paired(self, ours: list[float], theirs: list[float]) -> Plain:
        """Two programs compared over the same seeds: their means, and the difference's interval."""
        from statistics import fmean

        from microgpt.lab.statistics import interval

        found = interval([a - b for a, b in zip(ours, theirs, strict=True)])
        return {
            "ours": fmean(ours), "theirs": fmean(theirs), "difference": found.mean,
            "low": found.low, "high": found.high,
        }  # fmt: skip

    def documents(self, data: str = "names") -> Plain:
        """All documents of a corpus, so that the page can say of a sample that it is one."""
        return {"documents": list(_corpus(data).docs)}

    def advance(self, budget_ms: float = 30, max_steps: int = 1_000_000) -> Plain:
        """As many training steps as fit into a time, at least one; none when the run is
        finished.
        """
        run = self._run()
        losses: list[float] = []
        end = time.perf_counter() + budget_ms / 1000
        while (
            not run.done and len(losses) < max_steps and (not losses or time.perf_counter() < end)
        ):
            losses.append(run.advance())
        return {"step": run.step, "steps": run.steps, "losses": losses, "done": run.done}

    def measure(self, limit: int = HELD_OUT) -> Plain:
        """The loss on documents that training never sees."""
        run = self._run()
        return {"step": run.step, "held_out": run.held_out_loss(limit)}

    def samples(
        self, n: int = 6, temperature: float = 1.0, seed: int = 0, prefix: str = ""
    ) -> Plain:
        """A few new texts of the running model, and which of them are in its data."""
        run = self._run()
        texts = run.sample(n, temperature=temperature, seed=seed, prefix=prefix)
        return {"step": run.step, "texts": texts, "known": [run.knows(text) for text in texts]}

    def peek(self, doc: str, step: int | None = None) -> Plain:
        """The running model seen through one text: who attends to whom, and where the tokens
        lie. With a step it is seen as it was then: its weights are this question's parcel, 4 bytes
        a number.
        """
        run = self._run()
        params, moments = run.params, run.moments
        if step is not None:
            params, moments = copy.deepcopy(params), None
            shapes = [w.shape for w in run.named_weights().values()]
            for w, (rows,) in zip(run.namespace["leaves"](params), _parts(self.parcel, shapes, 1)):
                w.data = rows
        step = run.step if step is None else step
        record = xray(
            run.source, doc, vocab=run.vocab, params=params, start=min(step, (run.steps or 1) - 1),
            steps=run.steps, moments=moments, siblings=64,
        )  # fmt: skip
        return thin({"step": step, "tokens": record["tokens"]} | self._seen(record), DIGITS)

    def _seen(self, record: Plain) -> Plain:
        """Attention and embeddings of a recorded step, found by their names and shapes."""
        tensors, calls = record["tensors"], record["calls"]
        size = len(record["tokens"])
        layers: dict[Any, int] = {}
        heads: dict[Any, int] = {}
        attention = []
        for value in record["values"]:
            if (
                value["name"] == "weights"
                and value["tensor"] is not None
                and value["shape"] == [size, size]
            ):
                parent = calls[value["call"]]["parent"]
                head = heads[parent] = heads.get(parent, -1) + 1
                per_layer = _heads_per_layer(record)
                layers.setdefault(parent, 0)
                rows = tensors[value["tensor"]]["data"]
                attention.append(
                    {"layer": head // per_layer, "head": head % per_layer, "weights": rows}
                )
        names = {"wte": record["vocab"], "wpe": [str(i) for i in range(10_000)]}
        embeddings = [
            {"name": t["weight"], "labels": names[t["weight"]][: t["shape"][0]], "rows": t["data"]}
            for t in tensors if t["weight"] in names
        ]  # fmt: skip
        return {
            "attention": attention,
            "embeddings": embeddings,
            "projection": self._plane(embeddings),
        }

    def _plane(self, embeddings: list[Plain]) -> Plain | None:
        """The token embeddings in the plane in which they spread most."""
        table = next((e for e in embeddings if e["name"] == "wte"), None)
        found = table and principal_axes(table["rows"], self.axes)
        if not table or not found:
            return None
        self.axes = found.pop("axes")
        return {"name": "wte", "labels": table["labels"]} | found

    def checkpoint(self) -> Plain:
        """The running model as a safetensors file, in base64."""
        run = self._run()
        content = checkpoint.dumps(run)
        return {
            "base64": base64.b64encode(content).decode(),
            "name": f"{run.corpus.name}-{run.step}.safetensors",
        }

    # ---- Sampling ----

    def sample_start(self, prefix: str = "", temperature: float = 1.0, seed: int = 0) -> Plain:
        """Begin a text with the running model; a fresh one when there is none."""
        run = self._run()
        self.sampling = run.sample_steps(prefix, temperature, random.Random(seed))
        self.text = prefix
        return {"text": prefix, "char": None, "probs": None, "vocab": run.vocab, "done": False}

    def sample_next(self) -> Plain:
        """The next token of that text, with the probabilities that it was drawn from."""
        run = self._run()
        if self.sampling is None:
            raise MicrogptError("There is no text to go on with; start one first.")
        before = self.text
        self.text, probs = next(self.sampling, (before, []))
        ended = self.text == before or self.text.endswith("\n")
        full = run.context is not None and len(self.text) >= run.context
        char = self.text[len(before) :] or None
        return {
            "text": self.text,
            "char": char,
            "probs": probs or None,
            "vocab": run.vocab,
            "done": ended or full,
        }

    # ---- The walk ----

    def instrument(self, name: str, arguments: Plain) -> Plain:
        """What one of the walk's instruments answers about the file, before training or after."""
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise MicrogptError("An instrument is asked by its name, with arguments by theirs.")
        if self.models is None:  # runs of their own, so that the page may train on meanwhile
            kept = self.adopted and checkpoint.loads(self.adopted)
            self.models = Models(Run(), kept or None)
        answer = instruments.answer(self.models, name, arguments)
        return answer if name in instruments.EXACT else thin(answer, DIGITS)

    def exercise(self, id: str, source: str) -> Plain:
        """What the check of an exercise finds in a source, by running it."""
        return exercises.check(id, source)

    # ---- Links ----

    def link(self, state: Plain) -> Plain:
        """The part after `#` of an address that carries a state."""
        return {"text": file.encode_link(state)}

    def unlink(self, text: str) -> Plain:
        """The state that an address carries, checked; an edit in it is given, never run."""
        return {"state": file.decode_link(text)}

    def _run(self) -> Run:
        if self.run is None:
            raise MicrogptError("No training run has been started yet.")
        return self.run


CALLS = (
    "boot", "check", "set_knob", "xray", "start", "adopt", "pack", "take", "documents", "paired",
    "advance", "measure", "samples", "peek", "checkpoint", "sample_start", "sample_next",
    "instrument", "exercise", "link", "unlink",
)  # fmt: skip
_session = Session()


def call(name: str, arguments: str = "{}", parcel: bytes | None = None) -> str:
    """Answer one question of the page.

    Args:
        name: one of `CALLS`.
        arguments: a JSON object of that call's arguments.
        parcel: bytes that come with the question, where it says so.

    Returns:
        JSON: `{"ok": answer}` or `{"error": {"message", "line", "kind"}}`. Numbers that JSON cannot
        hold are the texts "nan", "inf" and "-inf".
    """
    _session.parcel = parcel
    try:
        if name not in CALLS:
            raise MicrogptError(f"The page asked for {name}, which this version does not know.")
        answer: Plain = {"ok": getattr(_session, name)(**json.loads(arguments))}
    except MicrogptError as error:
        answer = {
            "error": {
                "message": error.message,
                "line": error.line,
                "kind": "user" if error.line is None else "run",
            }
        }
    except Exception as error:  # the page gets words, whatever happened
        told = file.explain(error, file.ORIGINAL)
        answer = {"error": {"message": told.message, "line": told.line, "kind": "run"}}
    return json.dumps(finite(answer), allow_nan=False, separators=(",", ":"))


def parcel() -> bytes | None:
    """The bytes that come with the last answer, if there are any; they are given once."""
    content, _session.parcel = _session.parcel, None
    return content


def _parts(
    content: bytes | None, shapes: list[tuple[int, int]], parts: int
) -> list[list[list[list[float]]]]:
    """Matrices from a parcel, so many of each shape."""
    numbers = array("f", content or b"")
    if len(numbers) != parts * sum(rows * columns for rows, columns in shapes):
        raise MicrogptError("The trained weights that arrived are of another program.")
    found: list[list[list[list[float]]]] = []
    at = 0
    for rows, columns in shapes:
        found.append([])
        for _ in range(parts):
            flat = numbers[at : at + rows * columns].tolist()
            found[-1].append([flat[i : i + columns] for i in range(0, len(flat), columns)])
            at += rows * columns
    return found


def _outline(source: str) -> Plain:
    return {
        "sections": [vars(section) for section in file.sections(source)],
        "functions": [vars(function) for function in file.functions(source)],
        "knobs": [
            {"name": k.name, "function": k.function, "value": k.value, "line": k.line}
            for k in file.knobs(source)
        ],
    }


_corpora: dict[str, data.Corpus] = {}


def _corpus(name: str) -> data.Corpus:
    """A corpus by name or text; the last few are kept, because every edit asks for one again."""
    if name not in _corpora:
        if len(_corpora) > 4:
            _corpora.clear()
        _corpora[name] = data.load(name)
    return _corpora[name]


def _heads_per_layer(record: Plain) -> int:
    paths = [
        t["weight"]
        for t in record["tensors"]
        if t["weight"] and t["weight"].startswith("blocks.0.heads.")
    ]
    return max(1, len({path.split(".")[3] for path in paths}))


# ---- The recording ----


def record(doc: str = "anna", snapshots: int = 10, digits: int = 3) -> tuple[Plain, bytes]:
    """Train the file on the names as anyone would, and keep what the page shows of it.

    Returns:
        the recording as plain data, and a checkpoint of the run that it shows.

    Args:
        doc: the text that the x-ray looks at.
        snapshots: how many times during training samples, held-out loss and attention are taken.
        digits: significant digits of the numbers of matrices.
    """
    session = Session()
    info = session.start(file.ORIGINAL)
    run = session._run()
    steps = run.steps or 1
    moments = sorted({0, 1, *(round(steps * (i / (snapshots - 1)) ** 2) for i in range(snapshots))})
    held_out, samples, peeks = [], [], []
    for moment in moments:
        while run.step < moment:
            run.advance()
        held_out.append(session.measure())
        samples.append(session.samples(6, seed=moment))
        peek = session.peek(doc)
        peeks.append(peek | {"embeddings": []})
    losses = [{"step": step, "loss": loss} for step, loss in enumerate(run.losses, 1)]
    sampling = [session.sample_start("", 1.0, 7)]
    while not sampling[-1]["done"]:
        sampling.append(session.sample_next())
    seen = xray(
        file.ORIGINAL, doc, vocab=run.vocab, params=run.params, start=run.step - 1, steps=run.steps,
        moments=run.moments, most=16, siblings=4,
    )  # fmt: skip
    for value in seen[
        "values"
    ]:  # Adam's moments of the large weights would fill half the recording
        if value["kind"] == "matrix" and math.prod(value["shape"]) > LARGEST_RECORDED:
            value |= {
                "kind": "text",
                "data": "a matrix of {} by {}".format(*value["shape"]),
                "shape": None,
            }
    whole = {
        "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"),
        "boot": session.boot(),
        "check": session.check(file.ORIGINAL), "run": info, "losses": losses, "held_out": held_out,
        "samples": samples, "peeks": peeks, "sampling": sampling, "xray": seen,
    }  # fmt: skip
    recording: Plain = finite(thin(whole, digits))
    return recording, checkpoint.dumps(run)


def first() -> bytes:
    """The run of the file that the page trains before Python is there."""
    from microgpt.live import Packer

    packed = Packer().pack(file.ORIGINAL, _corpus("names"))
    assert packed is not None
    return packed


def main(arguments: list[str]) -> int:
    """`record FILE`: write the recording, as deflated JSON, and beside it the checkpoint and what
    the page's kernel begins with."""
    if len(arguments) != 2 or arguments[0] != "record":
        print("usage: python -m microgpt.bridge record FILE", file=sys.stderr)
        return 2
    recording, trained = record()
    text = json.dumps(recording, allow_nan=False, separators=(",", ":"))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(text.encode()) + packer.flush()
    path = Path(arguments[1])
    path.write_bytes(packed)
    path.with_name(TRAINED).write_bytes(trained)
    path.with_name(FIRST).write_bytes(first())
    print(f"{path.name}: {len(packed):,} bytes ({len(text):,} before packing)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
