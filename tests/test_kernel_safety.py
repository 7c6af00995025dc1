"""The kernel reads and writes nothing but its own memory, whatever program it is given.

kernel/check.c decides which programs the kernel may execute. Here its decisions are put to the test
by kernel/fuzz.c, which is compiled with every sanitizer that the compiler has: programs of the file
and of edits of it must all be let through; damaged at random they may be refused or executed, but
nothing may be touched that is not theirs, and nothing may hang.

More of the same, for every vector, for lanes and for double numbers, with so many damaged forms of
each program (20,000 take an hour):

    MICROGPT_FUZZ=20000 .venv/bin/python -m pytest tests/test_kernel_safety.py -k exhaustive
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import engines
import pytest

from microgpt.engines.compiled import Compiled
from microgpt.engines.program import STEPS
from microgpt.engines.rehearse import Schedule
from microgpt.errors import LeavesContract
from microgpt.source import ORIGINAL, execute

KERNEL = Path(__file__).resolve().parent.parent / "kernel"
DRAWN = 12  # programs of models drawn at random
TRAIN, MEASURE, SAMPLE = range(3)  # what a program is for
DOCS = (
    "anna",
    "bo",
    "catherinexyz",
    "",
    "jackquelvfgmpw",
    "elisabeth" * 40,
)  # the last fills memory

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fuzzer asks for POSIX")

# ---- The compiler ----

SANITIZERS = ("address", "undefined", "float-cast-overflow")


def _compilers() -> Iterator[list[str]]:
    """The commands that might compile the fuzzer, those that see most first."""
    common = ["-std=gnu11", "-g1", "-w", "-fno-sanitize-recover=all"]
    for name in filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")):
        if shutil.which(name):
            yield [name, *common, f"-fsanitize={','.join(SANITIZERS)}"]
    if importlib.util.find_spec("ziglang"):  # it has no memory sanitizer: then the pages watch
        zig = [sys.executable, "-m", "ziglang", "cc", *common]
        yield [*zig, f"-fsanitize={','.join(SANITIZERS[1:])}", "-fno-sanitize-trap=undefined"]


TRIAL = """
typedef float four __attribute__((vector_size(16)));
four turned(four v) { return __builtin_shufflevector(v, v, 1, 0, 3, 2); }
int main(void) { return 0; }
"""


@cache
def _compiler(folder: Path) -> list[str] | None:
    """The first of them that works here: it needs its sanitizers' libraries, too."""
    source, program = folder / "trial.c", folder / "trial"
    source.write_text(TRIAL, encoding="utf-8")
    for command in _compilers():
        done = [*command, str(source), "-o", str(program)]
        if _run(done, 120).returncode == 0 and _run([str(program)], 60).returncode == 0:
            return command
    return None


def _run(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
    )


@dataclass(frozen=True)
class Build:
    """The fuzzer, compiled once for a vector."""

    name: str
    flags: tuple[str, ...]
    quick: str = "-O1"  # to run; to compile where that takes longer


ONE = Build("one", ("-DWIDTH=64",), "-Og")
LANES = Build("lanes", ("-DWIDTH=32", "-DLANES=8"), "-O0")
OTHERS = (
    Build("wide", ("-DWIDTH=64",)),
    Build("narrow", ("-DWIDTH=16",)),
    Build("middle", ("-DWIDTH=32",)),
    Build("middle lanes", ("-DWIDTH=32", "-DLANES=8")),
    Build("narrow lanes", ("-DWIDTH=16", "-DLANES=4")),
    Build("full lanes", ("-DWIDTH=64", "-DLANES=16")),
    Build("double", ("-DWIDTH=128", "-DDOUBLE")),
    Build("narrow double", ("-DWIDTH=16", "-DDOUBLE")),
    Build("double lanes", ("-DWIDTH=64", "-DDOUBLE", "-DLANES=8")),
)


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest) -> Path:
    """Where what was compiled is kept from run to run, as long as its sources stay."""
    cache = request.config.cache
    assert cache is not None
    return Path(cache.mkdir("kernel-safety"))


@pytest.fixture(scope="module")
def compiled(folder: Path) -> dict[str, Path]:
    """The two builds that every run of the tests needs, compiled at the same time."""
    return dict(zip(("one", "lanes"), _compile((ONE, LANES), folder)))


def _unfinished(to: Path) -> Path:
    return to.with_suffix(f".{os.getpid()}")


def _compile(builds: Sequence[Build], folder: Path) -> list[Path]:
    compiler = _compiler(folder)
    if compiler is None:
        pytest.skip("there is no compiler with sanitizers")
    sources = b"".join((KERNEL / name).read_bytes() for name in ("kernel.c", "check.c", "fuzz.c"))
    jobs = []
    for build in builds:
        command = [*compiler, build.quick, *build.flags, str(KERNEL / "fuzz.c"), "-lm", "-lpthread"]
        made_of = hashlib.sha256(" ".join(command).encode() + sources).hexdigest()[:16]
        to = folder / f"{build.name.replace(' ', '-')}.{made_of}"
        process = None
        if not to.exists():
            for old in folder.glob(f"{to.stem}.*"):
                old.unlink()
            pipe, fresh = subprocess.PIPE, _unfinished(to)
            process = subprocess.Popen(
                [*command, "-o", str(fresh)], stdout=pipe, stderr=pipe, text=True, errors="replace"
            )
        jobs.append((build, to, process))
    for build, to, process in jobs:
        if process is not None:
            _, complaint = process.communicate(timeout=600)
            assert process.returncode == 0, f"{build.name}: {complaint[-3000:]}"
            _unfinished(to).replace(to)
    return [to for _, to, _ in jobs]


# ---- Programs ----


@dataclass(frozen=True)
class Given:
    """What the kernel is given: a program, and what it works on."""

    name: str
    use: int
    code: array[int]
    fixed: list[float]
    numbers: list[float]
    documents: tuple[tuple[int, ...], ...]
    laned: bool

    def bytes(self) -> bytes:
        """As the fuzzer reads it."""
        tokens, starts = array("i"), array("q", [0])
        for ids in self.documents:
            tokens.extend(ids)
            starts.append(len(tokens))
        lists: tuple[Sized, ...] = (self.code, self.fixed, self.numbers, tokens, self.documents)
        sizes = array("q", [self.use, *map(len, lists)])
        fixed, numbers = array("d", self.fixed), array("d", self.numbers)
        return b"".join(x.tobytes() for x in (sizes, self.code, fixed, numbers, tokens, starts))


# The file's own programs have few of the steps and views that there are; these have the others.
EDITS: dict[str, list[tuple[str, str]]] = {
    "gain and bias": [
        (
            "gpt(ids, wte, wpe, blocks, lm_head):",
            "gpt(ids, wte, wpe, blocks, lm_head, gain, bias):",
        ),
        ("return norm(x) @ lm_head", "return (norm(x) * gain) @ lm_head + bias"),
        ("lm_head=lm_head)", "lm_head=lm_head, gain=new(1, C), bias=new(1, vocab_size))"),
    ],
    "largest": [("return norm(x) @", "return (norm(x) + x.amax(-1, keepdim=True)) @")],
    "attention without softmax": [
        ("softmax(scores + future)", "scores.transpose(-2, -1).triu(0).transpose(-2, -1)")
    ],
    "the token before": [
        ("= wte[ids]", "= wte[ids] + wte[[ids[max(i - 1, 0)] for i in range(len(ids))]]")
    ],
    "backwards": [("wpe[: tokens.shape[-2]]", "wpe[[len(ids) - 1 - i for i in range(len(ids))]]")],
    "no mask": [("softmax(scores + future)", "softmax(scores)")],
    "alibi": [
        (
            "softmax(scores + future)",
            "softmax(scores + future + Tensor([[0.1 * (j - i) for j in range(scores.shape[-2])]"
            " for i in range(scores.shape[-2])]))",
        )
    ],
    "gate": [
        ("(x @ fc).relu()", "x @ fc\n    hidden = hidden * (hidden.exp() / (hidden.exp() + 1))")
    ],
    "tanh and powers": [
        (
            "(max(a, 0.0), a > 0)",
            "(math.tanh(a) + abs(a) ** 1.3, 1 - math.tanh(a) ** 2 if a > 0 else a)",
        )
    ],
    "tied": [("norm(x) @ lm_head", "norm(x) @ wte.transpose(-2, -1)")],
    "last token": [
        (
            "surprise.transpose(-2, -1).sum(-1, keepdim=True) / surprise.shape[-2]",
            "surprise[-1:]",
        )
    ],
    "computed table": [("= wte[ids]", "= (wte * 2)[ids]")],
    "by length": [("    return norm(x) @", "    x = x * (1 / len(ids))\n    return norm(x) @")],
    "another update": [("for a, b in zip(w.data[i], move)", "for a, b in zip(w.data[i], grad)")],
    "weights used twice": [("x @ wq, x @ wk,", "x @ wq, x @ wq,")],
    "gated attention": [("weights @ v @ wo", "(weights @ v * q) @ wo")],
}
SMALL: dict[str, Any] = {"batch": 4, "n_head": 2, "n_embd": 12, "block_size": 7}
SIZES: tuple[dict[str, Any], ...] = (
    {},
    {"batch": 5, "n_layer": 2, "n_head": 2, "n_embd": 12, "block_size": 8},
    {"batch": 3, "n_head": 1, "n_embd": 40, "block_size": 30},  # tall enough for panels
)


def _compiled(source: str, batch: int = 1, **sizes: int) -> Compiled:
    space = execute(source)
    vocab = space["vocabulary"](list(DOCS))
    params = space["init"](random.Random(1), len(vocab), **sizes)
    schedule = Schedule([], lambda doc: (), batch, 1, 0.01)
    context = params["wpe"].shape[-2]
    return Compiled(source, space, params, vocab, context, schedule)


def _drawn(seed: int) -> Compiled:
    """A model, a loss and an optimiser that nobody would think of."""
    rng = random.Random(seed)
    vocab = [*"\nabcd"]
    assert len(vocab) == engines.VOCAB
    context, batch = rng.choice([1, 2, 5, 9, 30]), rng.choice([1, 2, 5])
    source = engines.program(lambda options: rng.choice(list(options)), context, rng.randrange(15))
    space = execute(source)
    params = space["init"](rng, len(vocab))
    schedule = Schedule([], lambda doc: (), batch, 1, 0.01)
    return Compiled(source, space, params, vocab, context, schedule)


def _given(name: str, source: Compiled, use: int) -> Given:
    program = source.program(("measure", "sample")[use - 1]) if use else source.training
    fixed = [0.0] * program.fixed
    for place, flat in program.constants:
        fixed[place : place + len(flat)] = flat
    numbers = [x for row in program.numbers for x in row]
    docs = ["".join(c for c in doc if c in source.vocab) for doc in DOCS]
    documents = tuple(source.ids(doc) for doc in docs)
    return Given(name, use, array("i", program.code), fixed, numbers, documents, program.laned)


@cache
def drawn_programs(count: int) -> tuple[Given, ...]:
    """Programs of models that were drawn at random, those that the engine compiles."""
    found = []
    for seed in range(count):
        with contextlib.suppress(LeavesContract):
            found.append(_given(f"drawn by {seed}", _drawn(seed), TRAIN))
    return tuple(found)


@cache
def real_programs() -> tuple[Given, ...]:
    """Programs that the engine writes: of the file in several sizes, and of edits of it."""
    found = []
    for sizes in SIZES:
        source = _compiled(ORIGINAL, **sizes)
        found += [_given(f"the file {sizes}", source, use) for use in (TRAIN, MEASURE, SAMPLE)]
    for n, (name, edits) in enumerate(EDITS.items()):
        source = _compiled(engines.edited(*edits), **(SMALL if n % 2 else {}))
        uses = (TRAIN, MEASURE) if n % 4 == 3 else (TRAIN,)
        found += [_given(name, source, use) for use in uses]
    return tuple(found)


# ---- Runs of the fuzzer ----


def fuzz(
    binary: Path,
    programs: Iterable[Given],
    first: int,
    end: int,
    threads: int = 1,
    seconds: float = 300,
) -> list[tuple[int, int]]:
    """What the check says of each program, and how many of its damaged forms it accepted.

    Args:
        first, end: which damaged forms; 0 is the program as it is.
        threads: the most that train together. They wait for each other without sleep, which takes
            long where other processes are busy.
    """
    programs = list(programs)
    with tempfile.TemporaryDirectory() as name:
        file, progress = Path(name, "programs"), Path(name, "progress")
        file.write_bytes(b"".join(p.bytes() for p in programs))
        words = [str(binary), str(file), str(first), str(end), str(threads), str(progress)]
        done = _run(words, seconds)
        reached = progress.read_text(encoding="utf-8").split()[:2]
    if done.returncode:
        which, number = map(int, reached)
        pytest.fail(
            f"{binary.name}: {programs[which].name!r} (program {which}), damaged in way {number}, "
            f"ended with {done.returncode}:\n{done.stderr[-4000:]}"
        )
    return [(int(a), int(b)) for a, b in (line.split() for line in done.stdout.splitlines())]


def names(file: str, first: str) -> dict[str, int]:
    """The names of the C `enum` that begins with this one, and the number of each."""
    text = (KERNEL / file).read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    found = re.search(rf"enum \{{\s*({first}\b.*?)\}}", text, re.DOTALL)
    assert found, first
    return {name.strip(): i for i, name in enumerate(found[1].split(","))}


FAULTS = names("check.c", "SAFE")
HEAD = names("kernel.c", "MAGIC")
VIEW = names("kernel.c", "SPACE")
SHIFTS = names("kernel.c", "STAY")
KINDS = names("kernel.c", "PRODUCT")
MICRO = names("kernel.c", "ADD")


def _reason(found: int) -> str:
    return next(name for name, number in FAULTS.items() if number == found % 100)


# ---- Tests ----


def test_the_two_sides_name_the_same_steps() -> None:
    assert [name.lower() for name in KINDS] == list(STEPS)


def test_real_programs_have_every_step() -> None:
    seen = {kind for given in real_programs() for kind, _ in Damaged(given).steps()}
    assert seen == set(KINDS)


def test_real_programs_are_let_through(compiled: dict[str, Path]) -> None:
    programs = [*real_programs(), *drawn_programs(DRAWN)]
    assert len(programs) > len(real_programs()) + DRAWN / 2
    found = fuzz(compiled["one"], programs, 0, 1, threads=2)
    refused = [(p.name, p.use, _reason(n)) for p, (n, _) in zip(programs, found) if n]
    assert refused == []


def test_real_programs_are_let_through_in_lanes(compiled: dict[str, Path]) -> None:
    """Several runs side by side: only where documents of different lengths can share the views."""
    programs = [p for p in (*real_programs(), *drawn_programs(DRAWN)) if p.use == TRAIN]
    found = fuzz(compiled["lanes"], programs, 0, 1)
    assert {_reason(n) for _, (n, _) in zip(programs, found)} == {"SAFE", "BAD_LANES"}
    assert [n == 0 for n, _ in found] == [p.laned for p in programs]


def test_damaged_programs_touch_nothing_else(compiled: dict[str, Path]) -> None:
    found = fuzz(compiled["one"], real_programs(), 1, 150)
    accepted = sum(count for _, count in found)
    assert 300 < accepted < 150 * len(found) / 2, "too few were executed, or too many"


def test_damaged_programs_touch_nothing_else_in_lanes(compiled: dict[str, Path]) -> None:
    laned = [p for p in real_programs() if p.use == TRAIN and p.laned]
    programs = [p for p in laned if p.code[HEAD["OWN"]] < 50_000]  # as memory is filled each time
    found = fuzz(compiled["lanes"], programs, 1, 25)
    assert sum(count for _, count in found) > 30


@pytest.mark.skipif("MICROGPT_FUZZ" not in os.environ, reason="takes as long as you like")
@pytest.mark.parametrize("build", OTHERS, ids=lambda build: build.name)
def test_exhaustive(build: Build, folder: Path) -> None:
    (binary,) = _compile((build,), folder)
    programs = [*real_programs(), *drawn_programs(10 * DRAWN)]
    fuzz(binary, programs, 0, int(os.environ["MICROGPT_FUZZ"]), 3, seconds=1e6)


class Damaged:
    """A program with names for its parts, to damage it on purpose."""

    def __init__(self, given: Given) -> None:
        self.given, self.code, self.fixed = given, array("i", given.code), list(given.fixed)
        self.use, self.documents = given.use, list(given.documents)
        self.views = HEAD["HEADER"] + self.code[HEAD["SCALARS"]]
        self.body = self.views + self.code[HEAD["VIEWS"]] * VIEW["VIEW"]

    def result(self) -> Given:
        return replace(
            self.given,
            code=self.code,
            fixed=self.fixed,
            use=self.use,
            documents=tuple(self.documents),
        )

    def head(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self.code[HEAD[name]] = number

    def steps(self) -> Iterator[tuple[str, int]]:
        at = self.body
        while at < len(self.code):
            yield list(KINDS)[self.code[at]], at
            at += self.code[at + 1]

    def step(self, kind: str, last: bool = False) -> int:
        """Where the first step of a kind begins, or the last."""
        found = [at for name, at in self.steps() if name == kind]
        return found[-1] if last else found[0]

    def view(self, number: int, **numbers: int) -> int:
        """Where a view begins, some of its numbers replaced."""
        at = self.views + number * VIEW["VIEW"]
        for name, value in numbers.items():
            self.code[at + VIEW[name]] = value
        return at

    def copy(self, at: int, **numbers: int) -> None:
        """Let a step use a view of its own in place of the one that its number `at` names."""
        old = self.view(self.code[at])
        self.code[at] = self.code[HEAD["VIEWS"]]
        self.code[self.body : self.body] = self.code[old : old + VIEW["VIEW"]]
        self.code[HEAD["VIEWS"]] += 1
        self.body += VIEW["VIEW"]
        self.view(self.code[HEAD["VIEWS"]] - 1, **numbers)


Damage = Callable[[Damaged], object]


def head(**numbers: int) -> Damage:
    """Numbers of the header replaced."""
    return lambda d: d.head(**numbers)


def view(**numbers: int) -> Damage:
    """Numbers of a view replaced."""
    return lambda d: d.view(3, **numbers)


def step(kind: str, place: int, number: int) -> Damage:
    """A number of a step replaced."""

    def damage(d: Damaged) -> None:
        d.code[d.step(kind) + place] = number

    return damage


def view_of(kind: str, place: int, **numbers: int) -> Damage:
    """Numbers of one of a step's views replaced, for that step alone."""
    return lambda d: d.copy(d.step(kind) + 4 + place, **numbers)


def micro(place: int, number: int) -> Damage:
    """A number of a micro-step replaced: of the first function of cells that has one."""

    def damage(d: Damaged) -> None:
        at = next(at for kind, at in d.steps() if kind == "CELLS" and d.code[at + 6])
        d.code[at + d.code[at + 1] - 5 * d.code[at + 6] + place] = number

    return damage


def use(purpose: int) -> Damage:
    return lambda d: setattr(d, "use", purpose)


def document(change: Callable[[Damaged, tuple[int, ...]], tuple[int, ...]]) -> Damage:
    """A document replaced."""
    return lambda d: d.documents.__setitem__(2, change(d, d.documents[2]))


def no_result(d: Damaged) -> None:
    d.head(RESULT=d.code[HEAD["VIEWS"]])


def few_gradients(d: Damaged) -> None:
    d.head(OWN=d.code[HEAD["PARAMETERS"]] - 16)


def scalar_nowhere(d: Damaged) -> None:
    d.code[HEAD["HEADER"]] = d.code[HEAD["NUMBERS"]]


def behind_memory(d: Damaged) -> None:
    d.view(3, OFFSET=d.code[HEAD["OWN"]])


def little_memory(d: Damaged) -> None:
    d.head(OWN=d.code[HEAD["OWN"]] - 16)


def over_the_border(d: Damaged) -> None:
    d.head(BACKWARD=d.code[HEAD["BACKWARD"]] + 1)


def rows_without_tokens(d: Damaged) -> None:
    d.code[d.step("TOKENS") + 2] = 0  # one document after another: together, rows are tokens
    d.copy(d.step("TOKENS") + 4, ROW_PLUS=40)


def one_key(d: Damaged) -> None:
    """Attention of all tokens to one, told that none reads what comes after it."""
    for place, size in ((2, "ROW"), (3, "ROW"), (4, "COLUMN")):
        d.copy(d.step("ATTEND") + 4 + place, **{f"{size}_TIMES": 0, f"{size}_PLUS": 1})


def update_each(d: Damaged) -> None:
    d.code[list(d.steps())[-1][1] + 2] = 0


def view_left_out(d: Damaged) -> None:
    """The last view of a step left out: a number of it lies where a view is expected."""
    at = d.step("NORM_BACK")
    d.code.pop(at + 7)
    d.code[at + 1] -= 1
    d.code[at + 3] -= 1
    for name in ("BODY", "UPDATE"):
        d.code[HEAD[name]] -= 1


def short_input(d: Damaged) -> None:
    """A function of cells shall read whole rows where the last row of memory begins."""
    at = next(
        at for kind, at in d.steps() if kind == "CELLS" and d.code[at + 3] and d.code[at + 9] == 0
    )
    d.code[at + 2] = 0
    last = d.code[HEAD["SHARED"]] - 16
    numbers = {"ROW_TIMES": 0, "ROW_PLUS": 1, "COLUMN_TIMES": 0, "COLUMN_PLUS": 1, "JUMP": 0}
    d.copy(at + 8, SPACE=0, OFFSET=last, STRIDE=16, ROOM=0, SHIFT=SHIFTS["STAY"], **numbers)


def over_weights(d: Damaged) -> None:
    d.code[d.step("NORM") + 4] = d.code[d.step("TOKENS") + 5]


def growing_table(d: Damaged) -> None:
    d.head(GROWS=1)
    d.copy(d.step("TOKENS") + 5, ROW_TIMES=1)


def token_elsewhere(d: Damaged) -> None:
    """Of a document of three tokens the first row shall be that of one far behind it."""
    number = next(
        d.code[at + 6] for kind, at in d.steps() if kind == "TOKENS" and d.code[at + 6] >= 0
    )
    at = d.view(number)
    d.fixed[d.code[at + VIEW["OFFSET"]] + 3 * d.code[at + VIEW["JUMP"]]] = 1e9


CASES: dict[str, dict[str, Damage]] = {
    "BAD_HEADER": {
        "another kind of file": head(MAGIC=1),
        "no documents at a time, so no end": head(CHUNK=0),
        "more documents than the kernel notes": head(CHUNK=65),
        "no tokens": head(LONGEST=0),
        "more views than memory": head(VIEWS=2**31 - 1),
        "less than no scratch": head(SCRATCH=-1),
        "a result that is no view": no_result,
        "gradients beyond memory": few_gradients,
        "gradients that end within a vector": head(PARAMETERS=17),
        "an end before the begin": head(BACKWARD=2**20),
        "a scalar that is no slot": scalar_nowhere,
    },
    "TOO_SHORT": {
        "a number less": lambda d: d.code.pop(),
        "hardly anything": lambda d: d.code.__delitem__(slice(9, None)),
    },
    "BAD_VIEW": {
        "no such part of memory": view(SPACE=3),
        "before memory": view(OFFSET=-1),
        "no such shift": view(SHIFT=4),
        "a jump backwards": view(JUMP=-1),
        "no columns": view(COLUMN_PLUS=0, COLUMN_TIMES=0),
        "no rows for one token": view(ROW_PLUS=-1, ROW_TIMES=1),
        "rows over each other": view(STRIDE=1),
        "rows that own the next": view(ROOM=2**20),
        "sizes beyond counting": view(ROW_TIMES=2**31 - 1),
    },
    "VIEW_OUTSIDE": {"behind memory": behind_memory, "a row too many": little_memory},
    "BAD_STEP": {
        "no such step": step("NORM", 0, len(KINDS)),
        "a step before all": step("NORM", 0, -1),
        "a step of no length, so no end": step("NORM", 1, 0),
        "a step longer than all": step("NORM", 1, 2**31 - 1),
        "a view counted as a number": step("NORM", 3, 2),
        "a view left out": view_left_out,
        "a step across the border": over_the_border,
        "too many inputs": step("CELLS", 3, 9),
        "too many registers": step("CELLS", 7, 64),
    },
    "BAD_NUMBER": {
        "a view that is none": step("NORM", 4, 10**6),
        "a slot that is none": step("NORM", 7, -1),
        "neither yes nor no": step("PRODUCT", 8, 2),
        "no such micro-step": micro(0, len(MICRO)),
    },
    "BAD_SHAPES": {
        "factors that do not fit": step("PRODUCT", 9, 1),
        "rows without tokens": rows_without_tokens,
        "targets without all columns": view_of("TARGETS", 0, COLUMN_PLUS=3),
        "a table without all tokens": view_of("TOKENS", 1, ROW_PLUS=3),
        "nothing beyond the diagonal": one_key,
        "a number in place of a matrix": short_input,
        "sums in a row and one more": view_of("SUM_ROWS", 0, ROW_PLUS=2, COLUMN_PLUS=1),
    },
    "BAD_TOGETHER": {
        "attention over all documents": step("ATTEND", 2, 1),
        "an update for each document": update_each,
    },
    "WRITES_THERE": {"over the weights": over_weights},
    "BAD_REGISTER": {"over an input": micro(1, 0), "a register that is none": micro(4, 64)},
    "NO_SCRATCH": {"no room for a panel": head(SCRATCH=16)},
    "BAD_WHICH": {"a token that the document lacks": token_elsewhere},
    "BAD_RESULT": {"a loss where tokens are weighed": use(MEASURE)},
    "BAD_GROWTH": {
        "all targets in the last row's place": head(GROWS=1),
        "a table that has rows for tokens": growing_table,
    },
    "BAD_STARTS": {"a document of one token": document(lambda d, ids: ids[:1])},
    "BAD_TOKEN": {
        "a token that is none": document(lambda d, ids: (d.code[HEAD["VOCAB"]], *ids[1:])),
        "a token before all": document(lambda d, ids: (-1, *ids[1:])),
    },
}
ELSEWHERE = {"a token that the document lacks": "the token before"}
ELSEWHERE["sums in a row and one more"] = "gain and bias"


def damaged_on_purpose() -> list[Given]:
    found = []
    for cases in CASES.values():
        for what, damage in cases.items():
            name = ELSEWHERE.get(what, "the file")
            d = Damaged(next(p for p in real_programs() if p.name.startswith(name)))
            damage(d)
            found.append(replace(d.result(), name=what))
    return found


def test_each_fault_is_found(compiled: dict[str, Path]) -> None:
    damaged = damaged_on_purpose()
    found = fuzz(compiled["one"], damaged, 0, 1)
    wanted = [(what, reason) for reason, cases in CASES.items() for what in cases]
    assert [(d.name, _reason(n)) for d, (n, _) in zip(damaged, found)] == wanted


def test_every_fault_has_a_case() -> None:
    fuzzed = {"SAFE", "NO_ROOM", "BAD_ORDER", "BAD_LANES"}  # these are, and tested above
    assert set(CASES) == set(FAULTS) - fuzzed
