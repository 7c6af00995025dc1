"""Checkpoints: the format against its own package, exact resumption, kills at any moment, bad
files."""

from __future__ import annotations

import io
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import pytest

import microgpt
from microgpt import checkpoint, data, files
from microgpt.errors import MicrogptError
from microgpt.run import Run
from microgpt.source import ORIGINAL

WORDS = "ab\nabc\nba\nbca\ncab\ncc\nacb\nbb\naca\nbac\ncba\nabca\nbcab\ncabc\naab\nbba\n"
CORPUS = data.load(WORDS)
SMALL: dict[str, Any] = {"n_embd": 4, "n_head": 2, "block_size": 6}
STEPS = 24

processes = pytest.mark.skipif(sys.platform == "emscripten", reason="a browser has no processes")


def begun(step: int = 5, **more: Any) -> Run:
    run = Run(**({"corpus": CORPUS, "steps": STEPS, "seed": 3} | SMALL | more))
    for _ in range(step):
        run.advance()
    return run


@pytest.fixture(scope="module")
def whole() -> list[float]:
    """The losses of a run that nothing interrupts."""
    return begun(STEPS).losses


@pytest.fixture(scope="module")
def packed() -> bytes:
    return checkpoint.dumps(begun())


def taken_apart(contents: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(contents[:8], "little")
    return json.loads(contents[8 : 8 + size]), contents[8 + size :]


def put_together(header: Any, numbers: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


# ---- Exactly the same ----


@pytest.mark.parametrize("step", [0, 1, 13, STEPS])
def test_a_run_goes_on_bit_for_bit(tmp_path: Path, whole: list[float], step: int) -> None:
    run = begun(step)
    file = tmp_path / "run.safetensors"
    checkpoint.save(run, file)
    again = checkpoint.load(file, corpus=CORPUS)
    assert (again.step, again.losses, again.seed) == (step, whole[:step], 3)
    assert (again.steps, again.batch, again.lr) == (STEPS, 1, 0.01)
    assert again.vocab == run.vocab
    assert checkpoint.dumps(again) == checkpoint.dumps(run)
    while not again.done:
        again.advance()
    assert again.losses == whole
    assert again.sample(5) == begun(STEPS).sample(5)


def test_arguments_that_were_given_are_kept(tmp_path: Path) -> None:
    given: dict[str, Any] = {"batch": 2, "lr": 0.03, "n_layer": 2, "std": 0.2, "seed": 2**70}
    run, file = begun(4, **given), tmp_path / "run.safetensors"
    checkpoint.save(run, file)
    again = checkpoint.load(file, corpus=CORPUS)
    assert again.sizes == run.sizes
    losses = [run.advance() for _ in range(6)]
    assert [again.advance() for _ in range(6)] == losses


def test_an_edited_source_goes_on_too(tmp_path: Path) -> None:
    source = ORIGINAL.replace("beta1=0.85", "beta1=0.5")
    run, file = begun(4, source=source), tmp_path / "run.safetensors"
    checkpoint.save(run, file)
    again = checkpoint.load(file, corpus=CORPUS, trust=True)
    assert again.source == source
    assert [again.advance() for _ in range(5)] == [run.advance() for _ in range(5)]


def test_the_bundled_data_are_found_by_name(tmp_path: Path) -> None:
    file = tmp_path / "names.safetensors"
    model = microgpt.train("sort", steps=2, **SMALL | {"block_size": 12})
    microgpt.save(model, file)
    again = microgpt.load(file)
    assert again.corpus == model.corpus
    assert again.data_problem is None
    again.use("fast")
    assert again.held_out_loss(5) == model.held_out_loss(5)


def test_own_data_are_asked_for_and_compared(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    microgpt.save(begun(), file)
    model = microgpt.load(file)
    assert model.sample(2) == begun().sample(2)  # sampling needs no data
    for needs_data in (model.advance, model.held_out_loss):
        with pytest.raises(MicrogptError, match=r"data of this run \(text\) are not in the check"):
            needs_data()
    assert checkpoint.dumps(model) == checkpoint.dumps(begun())  # saved again, it still knows them
    with pytest.raises(MicrogptError, match="trained on other data than these: on 16 documents"):
        microgpt.load(file, data=WORDS + "one more\n")
    shuffled = "\n".join(reversed(WORDS.split()))
    with pytest.raises(MicrogptError, match="trained on other data"):
        microgpt.load(file, data=shuffled)
    microgpt.load(file, data=WORDS).advance()


def test_a_data_set_that_has_changed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.safetensors"
    monkeypatch.setitem(data.DATASETS, "text", data.DATASETS["names"])
    monkeypatch.setattr(data, "load", lambda name: data.Corpus(name, "Text", ("a", "b")))
    checkpoint.save(begun(), file)
    model = checkpoint.load(file)
    with pytest.raises(MicrogptError, match="data set text is not the one that this run was tra"):
        model.advance()


def test_without_moments_weights_are_kept_and_the_end_is_told(tmp_path: Path) -> None:
    source = ORIGINAL.replace(", moments=None)", ")").replace("moments or ", "")
    file = tmp_path / "run.safetensors"
    run = begun(3, source=source)
    checkpoint.save(run, file)
    again = checkpoint.load(file, corpus=CORPUS, trust=True)
    assert again.sample(3) == run.sample(3)
    with pytest.raises(MicrogptError, match="cannot go on"):
        again.advance()


# ---- The format, with the safetensors package as oracle ----


def test_the_package_reads_what_we_write(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy", reason="the oracle needs numpy")
    oracle = pytest.importorskip("safetensors", reason="the oracle is not installed")
    run, file = begun(), tmp_path / "run.safetensors"
    checkpoint.save(run, file)
    weights = run.named_weights()
    with oracle.safe_open(file, "np") as opened:
        metadata = opened.metadata()
        expected = {"losses": run.losses}
        for (name, weight), (m, v) in zip(weights.items(), run.moments or [], strict=True):
            expected |= {name: weight.data, "m." + name: m, "v." + name: v}
        assert sorted(opened.keys()) == sorted(expected)
        for name, rows in expected.items():
            tensor = opened.get_tensor(name)
            assert tensor.dtype == numpy.float64
            assert tensor.tolist() == [list(r) if isinstance(r, list | tuple) else r for r in rows]
    assert metadata["source"] == ORIGINAL
    assert json.loads(metadata["vocab"]) == run.vocab
    assert json.loads(metadata["training"]) == {
        "seed": 3, "step": 5, "steps": STEPS, "batch": 1, "lr": 0.01,
    }  # fmt: skip
    assert json.loads(metadata["data"])["fingerprint"] == data.fingerprint(CORPUS.docs)


def test_we_read_what_the_package_writes(tmp_path: Path, whole: list[float]) -> None:
    numpy = pytest.importorskip("numpy", reason="the oracle needs numpy")
    oracle = pytest.importorskip("safetensors.numpy", reason="the oracle is not installed")
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    checkpoint.save(begun(), ours)
    tensors = oracle.load_file(ours)
    with pytest.importorskip("safetensors").safe_open(ours, "np") as opened:
        oracle.save_file(tensors, theirs, metadata=opened.metadata())
    assert theirs.read_bytes() != ours.read_bytes()  # another order, the same content
    again = checkpoint.load(theirs, corpus=CORPUS)
    while not again.done:
        again.advance()
    assert again.losses == whole
    assert all(tensor.dtype == numpy.float64 for tensor in tensors.values())


def test_a_foreign_file_is_told(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy", reason="the oracle needs numpy")
    oracle = pytest.importorskip("safetensors.numpy", reason="the oracle is not installed")
    for number, metadata in enumerate([None, {"format": "pt"}]):
        file = tmp_path / f"other{number}.safetensors"
        oracle.save_file({"wte": numpy.zeros((3, 4), "float32")}, file, metadata=metadata)
        with pytest.raises(MicrogptError, match="was not made by microgpt"):
            checkpoint.load(file, trust=True)
        with pytest.raises(MicrogptError, match="is no checkpoint of microgpt; it is left alone"):
            checkpoint.save(begun(0), file)


def test_round_trips() -> None:
    hypothesis = pytest.importorskip("hypothesis", reason="it draws the examples")
    some = hypothesis.strategies
    text = some.text(some.characters(codec="utf-8"), max_size=20)
    number = some.floats(allow_nan=False)
    shape = some.one_of(
        some.tuples(some.integers(0, 5)), some.tuples(some.integers(0, 4), some.integers(0, 4))
    )

    @hypothesis.given(
        some.dictionaries(text.filter(lambda t: t != "__metadata__"), shape, max_size=5),
        some.dictionaries(text.filter(lambda t: t not in ("format", "version")), text, max_size=4),
        some.data(),
    )
    def check(shapes: dict[str, tuple[int, ...]], texts: dict[str, str], draw: Any) -> None:
        tensors = {}
        for name, size in shapes.items():
            count = math.prod(size)
            values = draw.draw(some.lists(number, min_size=count, max_size=count))
            tensors[name] = (size, array("d", values))
        metadata = {"format": "microgpt", "version": "1", **texts}
        contents = checkpoint.encode(tensors, metadata)
        read, said = checkpoint.decode(io.BytesIO(contents), len(contents))
        assert said == metadata
        assert list(read) == list(tensors)
        for name, (size, values) in tensors.items():
            assert read[name][0] == size
            assert read[name][1].tobytes() == values.tobytes()  # -0.0 and 5e-324 too
        assert int.from_bytes(contents[:8], "little") % 8 == 0

    check()


# ---- Never lost ----

STAGES = ("open", "write", "flush", "fsync", "chmod", "replace", "folder")
CRASH = """
import os, signal, sys
from pathlib import Path
from microgpt import files

file, stage = Path(sys.argv[1]), sys.argv[2]
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

class Dies:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *error): self.file.close()
    def fileno(self): return self.file.fileno()
    def write(self, contents):
        if stage == "write":
            self.file.write(contents[: len(contents) // 2]); self.file.flush(); die()
        return self.file.write(contents)
    def flush(self):
        if stage == "flush": die()
        self.file.flush()

opened = Path.open
Path.open = lambda path, *a, **k: die() if stage == "open" and ".part" in path.name else (
    Dies(opened(path, *a, **k)) if ".part" in path.name else opened(path, *a, **k))
if stage == "fsync": os.fsync = die
if stage == "chmod": Path.chmod = die
if stage == "replace": os.replace = die
if stage == "folder": os.open = die
files.write(file, b"new" * 100_000)
"""


@processes
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_any_stage_of_writing_loses_nothing(tmp_path: Path, stage: str) -> None:
    file = tmp_path / "run.safetensors"
    file.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", CRASH, str(file), stage], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    expected = b"new" * 100_000 if stage == "folder" else b"old"
    assert file.read_bytes() == expected
    left = [path for path in tmp_path.iterdir() if path != file]
    assert len(left) == (0 if stage in ("open", "folder") else 1)
    for part in left:  # a later save sweeps away what the dead left, once it is old enough
        os.utime(part, (0, time.time() - 2 * files.STALE))
    files.write(file, b"newer")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == b"newer"


SAVES = """
import sys
from microgpt import checkpoint, data
from microgpt.run import Run
run = Run(corpus=data.load(sys.argv[2]), steps=24, seed=3, n_embd=4, n_head=2, block_size=6)
for _ in range(3):
    run.advance()
print("saving", flush=True)
while True:
    checkpoint.save(run, sys.argv[1])
"""


@processes
def test_killed_again_and_again_while_saving(tmp_path: Path, whole: list[float]) -> None:
    """SIGKILL at moments that nobody chose, in a loop that does nothing but save."""
    file = tmp_path / "run.safetensors"
    rng = random.Random(1)
    checkpoint.save(begun(), file)
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVES, str(file), WORDS], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"saving\n"
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.wait()
        process.stdout.close()
        run = checkpoint.load(file, corpus=CORPUS)
        assert run.losses == whole[: run.step]
        assert run.step in (3, 5)


class Full:
    """A file of a disk that takes ten bytes and then no more."""

    def __init__(self, file: Any, error: int) -> None:
        self.file, self.error = file, error

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, contents: bytes) -> None:
        self.file.write(contents[:10])
        raise OSError(self.error, os.strerror(self.error))


@pytest.mark.parametrize(
    ("error", "words"), [("ENOSPC", "the disk is full"), ("EDQUOT", "the disk quota is used up")]
)
def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, words: str
) -> None:
    import errno

    file = tmp_path / "run.safetensors"
    checkpoint.save(begun(2), file)
    before = file.read_bytes()
    opened = Path.open

    def full(path: Path, *arguments: Any, **options: Any) -> Any:
        real = opened(path, *arguments, **options)
        return Full(real, getattr(errno, error)) if path.name.endswith(".part") else real

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(MicrogptError, match=rf"not be written: {words}; what was there"):
        checkpoint.save(begun(), file)
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@processes
def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits are a thing of Unix")
    file = tmp_path / "run.safetensors"
    checkpoint.save(begun(), file)
    before = file.read_bytes()
    before_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "from microgpt import files; files.write(sys.argv[1], b'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True)
    assert "MicrogptError" in done.stderr
    assert "the file would be larger than is allowed here; what was there before is" in done.stderr
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before_limit


def test_what_is_replaced(tmp_path: Path) -> None:
    """A link stays a link, rights stay, an empty file may be filled, anything else is left
    alone."""
    file, link = tmp_path / "run.safetensors", tmp_path / "latest.safetensors"
    file.touch()
    file.chmod(0o640)
    link.symlink_to(file)
    checkpoint.save(begun(1), link)
    checkpoint.save(begun(2), link)
    assert link.is_symlink()
    assert checkpoint.load(file).step == 2
    assert file.stat().st_mode & 0o777 == 0o640
    other = tmp_path / "gpt.py"
    other.write_text("precious")
    with pytest.raises(MicrogptError, match="exists and is no checkpoint of microgpt; it is left"):
        checkpoint.save(begun(1), other)
    assert other.read_text() == "precious"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, words in [
        (tmp_path, "is a folder; give the name of a file in it"),
        (tmp_path / "missing" / "x", "There is no folder"),
        (tmp_path / "file" / "x", "no folder"),
        (tmp_path / ("x" * 300), "the name is too long"),
        (tmp_path / "a\0b", "is not a name that a file can have"),
    ]:
        with pytest.raises(MicrogptError, match=words):
            checkpoint.check_target(place, b"contents")
        with pytest.raises(MicrogptError, match=words):
            checkpoint.save(begun(0), place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    checkpoint.check_target(tmp_path / "new", b"contents")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MicrogptError, match="you have no permission to"):
        checkpoint.check_target(tmp_path / "x", b"")


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    run = begun()
    checkpoint.save(run, file)
    before = file.read_bytes()
    run.params["wte"].data[0][0] = math.inf
    with pytest.raises(MicrogptError, match="weights at step 5 are no longer finite numbers"):
        checkpoint.save(run, file)
    assert file.read_bytes() == before


def test_what_could_not_be_read_again_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun()
    for limit in ("LONGEST_HEADER", "MOST_BRACKETS"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, limit, 100)
            with pytest.raises(MicrogptError, match="too many weight matrices or tokens"):
                checkpoint.dumps(run)
    run.source += "\ud800"
    with pytest.raises(MicrogptError, match="half of a character"):
        checkpoint.dumps(run)


def test_a_run_torn_in_the_middle_of_a_step_is_not_saved() -> None:
    run = begun()
    run._whole = False
    with pytest.raises(MicrogptError, match="in the middle of a step"):
        checkpoint.dumps(run)


# ---- Bad files ----


def test_reading_executes_nothing_and_loading_asks(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    source = ORIGINAL + f"\nopen({str(mark)!r}, 'w').close()\n"
    header, numbers = taken_apart(checkpoint.dumps(begun()))
    header["__metadata__"]["source"] = source
    file = tmp_path / "run.safetensors"
    file.write_bytes(put_together(header, numbers))
    saved = checkpoint.read(file)
    assert saved.source == source
    assert saved.edited == (2, 0)
    for refused in (microgpt.load, checkpoint.load):
        with pytest.raises(MicrogptError, match=r"carries a gpt.py of its own .* say trust=True"):
            refused(file)
    assert not mark.exists()
    microgpt.load(file, trust=True)
    assert mark.exists()


def change(path: str, value: Any) -> Any:
    """What sets one entry of a header, or of the JSON inside its metadata."""

    def apply(header: dict[str, Any]) -> None:
        outer, _, inner = path.partition("/")
        if outer in ("training", "sizes", "data"):
            texts = header["__metadata__"]
            texts[outer] = json.dumps(json.loads(texts[outer]) | {inner: value})
        elif inner:
            header[outer][inner] = value
        else:
            header[outer] = value

    return apply


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (change("wte/dtype", "F32"), "'wte' is of type 'F32', not F64"),
        (change("wte/shape", [4, 4, 1]), "'wte' has no shape of a matrix"),
        (change("wte/shape", [-4, -4]), "'wte' has no shape of a matrix"),
        (change("wte/shape", [2, 8]), "'wte' has the shape (2, 8), not (4, 4)"),
        (change("wte/shape", [4, 5]), "'wte' does not fill its place"),
        (change("wte/shape", [10**30, 10**30]), "'wte' does not fill its place"),
        (change("wte/data_offsets", [0, 8 * 10**15]), "'wte' does not fill its place"),
        (change("wte/data_offsets", [128, 256]), "overlap or leave gaps"),
        (change("wte/data_offsets", [128, 0]), "'wte' does not fill its place"),
        (change("wte/data_offsets", [True, 128]), ""),
        (change("wte", 7), "'wte' does not describe a tensor"),
        (change("wte", {}), "'wte' does not describe a tensor"),
        (change("__metadata__", {}), "was not made by microgpt"),
        (change("__metadata__", []), "was not made by microgpt"),
        (change("__metadata__/version", "2"), "made by another version of microgpt"),
        (change("__metadata__/source", None), "its metadata are not texts"),
        (change("__metadata__/vocab", "{}"), "its vocabulary is not a list of tokens"),
        (change("__metadata__/vocab", "[1]"), "its vocabulary is not a list of tokens"),
        (change("__metadata__/vocab", "["), "its metadata cannot be read"),
        (change("__metadata__/vocab", "[" * 100_000), "its metadata cannot be read"),
        (change("__metadata__/vocab", '["a"]'), "its sizes are not those of its weights"),
        (change("__metadata__/sizes", "[]"), "its sizes are not numbers"),
        (change("__metadata__/training", "3"), "does not say how it was trained"),
        (change("__metadata__/data", "{}"), "does not say which data"),
        (change("sizes/n_embd", 10**9), "its sizes are not those of its weights"),
        (change("sizes/n_layer", 10**9), "its sizes are not those of its weights"),
        (change("sizes/n_layer", 1.0), "its sizes are not those of its weights"),
        (change("sizes/n_head", 3), "4 channels cannot be shared by 3 heads"),
        (change("sizes/n_head", 10**9), "cannot be shared"),
        (change("sizes/more", 1), "gpt.py has no more to set"),
        (change("training/step", 6), "it says step 6 of 24, and holds 5 losses"),
        (change("training/step", -1), "it says step -1"),
        (change("training/step", None), "its step is not a number"),
        (change("training/steps", 4), "it says step 5 of 4"),
        (change("training/steps", "9" * 9), "its steps is not a number"),
        (change("training/lr", "0.1"), "its lr is not a number"),
        (change("training/lr", -1), "lr must be a number above 0"),
        (change("training/batch", 0), "batch must be 1 or more"),
        (change("training/seed", 1.5), "its seed is not a number"),
    ],
)
def test_damaged_headers(packed: bytes, apply: Any, words: str) -> None:
    header, numbers = taken_apart(packed)
    apply(header)
    with pytest.raises(MicrogptError) as caught:
        checkpoint.loads(put_together(header, numbers))
    assert words in caught.value.message
    assert caught.value.message.startswith("This checkpoint ")
    assert caught.value.message.endswith(".")
    assert len(caught.value.message) < 300


def test_tensors_that_are_missing_or_too_many(packed: bytes) -> None:
    header, numbers = taken_apart(packed)
    for old, new, words in [
        ("m.wte", "m.other", "has no tensor 'm.wte'"),
        ("losses", "other", "it says step 5 of 24, and holds 0 losses"),
    ]:
        renamed = {new if key == old else key: entry for key, entry in header.items()}
        with pytest.raises(MicrogptError, match=words):
            checkpoint.loads(put_together(renamed, numbers))
    end = len(numbers)
    more = header | {"more": {"dtype": "F64", "shape": [0, 3], "data_offsets": [end, end]}}
    with pytest.raises(MicrogptError, match="has an unknown tensor 'more'"):
        checkpoint.loads(put_together(more, numbers))


def test_numbers_that_are_not_finite(packed: bytes) -> None:
    header, numbers = taken_apart(packed)
    bad = array("d", [math.nan]).tobytes() + numbers[8:]
    with pytest.raises(MicrogptError, match="some of its numbers are not finite"):
        checkpoint.loads(put_together(header, bad))


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "too short"),
        (b"\0" * 7, "too short"),
        (b"\0" * 8, "does not begin like one"),
        (b"\xff" * 8, "smaller than its first bytes say"),
        ((2**63).to_bytes(8, "little") + b"{}", "smaller than its first bytes say"),
        (put_together(b"{}", b""), "was not made by microgpt"),
        (put_together(b"[]", b""), "its header is not one"),
        (put_together(b"{\xff}", b""), "its header cannot be read"),
        (put_together(b'{"a":1,"a":2}', b""), "its header cannot be read"),
        (put_together(b'{"a":NaN}', b""), "its header cannot be read"),
        (put_together(b'{"a":' + b"9" * 5000 + b"}", b""), "its header cannot be read"),
        (put_together(b'{"a":' * 50_000, b""), "its header cannot be read"),
        (put_together(b'{"a":' + b"[" * 400_000, b""), "its header is not one"),
        (b"PK\3\4" + b"\0" * 200, "not"),
        (b"\x80\x04\x95" + b"cos\nsystem\n" * 9, "smaller than its first bytes say"),
    ],
)
def test_what_is_no_checkpoint(contents: bytes, words: str) -> None:
    with pytest.raises(MicrogptError) as caught:
        checkpoint.loads(contents, trust=True)
    assert words in caught.value.message


BOMBS = """
import resource
from microgpt import checkpoint
from microgpt.errors import MicrogptError

bombs = [
    b'{"a":[' + b"[]," * 2_600_000 + b"0]}",
    b'{"a":[' + b"0.5," * 1_900_000 + b"0]}",
    b'{"a":[' + b'"ab",' * 1_500_000 + b"0]}",
    b'{"a":"' + b"x" * 30_000_000 + b'"}',
]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for header in bombs:
    try:
        checkpoint.loads(len(header).to_bytes(8, "little") + header)
    except MicrogptError:
        print("refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@processes
@pytest.mark.skipif(sys.platform != "linux", reason="counts the most memory in kilobytes")
def test_a_bomb_costs_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", BOMBS], capture_output=True, text=True, check=True)
    *refused, kilobytes = done.stdout.split()
    assert refused == ["refused"] * 4
    assert int(kilobytes) < 200_000


def test_nothing_is_read_before_its_size_is_checked() -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            assert 0 <= size <= 8
            return (2**40).to_bytes(8, "little")[:size]

    with pytest.raises(MicrogptError, match="header is too long"):
        checkpoint.decode(Endless(), 2**50)  # type: ignore[arg-type]


def test_bytes_that_nobody_chose(packed: bytes) -> None:
    """Whatever is done to a checkpoint, it is read or refused, and no foreign program runs."""
    hypothesis = pytest.importorskip("hypothesis", reason="it draws the examples")
    some = hypothesis.strategies

    def attempt(contents: bytes) -> None:
        try:
            run = checkpoint.loads(contents, corpus=None)
        except MicrogptError:
            return
        else:
            assert run.source == ORIGINAL
            run.sample(1)

    @hypothesis.settings(max_examples=150)
    @hypothesis.given(some.binary(max_size=200))
    def arbitrary(contents: bytes) -> None:
        attempt(contents)
        attempt(put_together(contents, b""))

    @hypothesis.settings(max_examples=150)
    @hypothesis.given(some.data())
    def changed(draw: Any) -> None:
        place = draw.draw(some.integers(0, len(packed) - 1))
        new = draw.draw(some.binary(min_size=0, max_size=6))
        width = draw.draw(some.integers(0, 6))
        attempt(packed[:place] + new + packed[place + width :])

    @hypothesis.settings(max_examples=60)
    @hypothesis.given(some.integers(0, len(packed) - 1))
    def cut(size: int) -> None:
        with pytest.raises(MicrogptError):
            checkpoint.loads(packed[:size])

    arbitrary()
    changed()
    cut()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MicrogptError, match="There is no file"):
        checkpoint.load(tmp_path / "missing")
    with pytest.raises(MicrogptError, match="is a folder, not a checkpoint"):
        checkpoint.load(tmp_path)
    with pytest.raises(MicrogptError, match=r"cannot be read|is not a file"):
        checkpoint.load(tmp_path / "a\0b")
    if Path("/dev/zero").exists():
        with pytest.raises(MicrogptError, match="is not a file"):
            checkpoint.load("/dev/zero")
