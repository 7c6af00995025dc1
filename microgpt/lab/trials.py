"""What is measured of a program: trained with some seeds, then asked what it has learnt.

A trial is one program on one set of data with several seeds. The compiled kernel trains the seeds
side by side where it can; what it cannot follow is trained one by one by the file itself. A seed
that fails is told with its reason, and the others are kept.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from microgpt.data import Corpus
from microgpt.errors import LeavesContract, MicrogptError
from microgpt.run import ASKED, GREEDY, HELD_OUT, SLICE, Run
from microgpt.source import functions

READ_SLOWLY = 50  # documents of which every beginning is read, where the future can be seen
POINTS = 50  # of a curve that is kept
LAST = 100  # steps that the training loss is averaged over

Ask = Callable[[str], str]


@dataclass(frozen=True)
class Trial:
    """A program, data, and seeds.

    Attributes:
        source: the program.
        corpus: the documents.
        seeds: one for each run.
        like: the program that it is compared with: where both have a weight of the same name and
            shape, drawn alike, it begins with the same numbers. None where there is none.
        engine: "fast", or "reference" for the file itself.
    """

    source: str
    corpus: Corpus
    seeds: tuple[int, ...]
    like: str | None = None
    engine: str = "fast"


@dataclass
class Result:
    """What was measured of one run.

    Attributes:
        seed: its seed.
        failed: a sentence why there is nothing more, or None.
        held_out: the surprise at held-out documents, read from left to right as they are written,
            in nats a token.
        exact: the share of held-out answers that are right to the last character; None where the
            data have no answers.
        train: the mean loss of the last 100 training steps.
        at_once: the surprise at whole documents, where the program can see the future in them;
            None where it cannot.
        steps: that were done.
        curve: the training loss in up to 50 means, from the first step to the last.
        losses: the SHA-256 of all training losses, in hexadecimal: the same for the same run.
        parameters: weights that the loss depends on.
        operations: multiply-adds of matrix products to read a token, on the way there.
        tokens: that were read in training, as many as are predicted.
        seconds: that its training took, a share of what all of its side-by-side runs took.
        engine: "fast" or "reference".
        lanes: how many runs were laid out side by side.
        beside: the seeds that were trained together. The last digits of what a run gives depend on
            how long the documents beside its own are, so to be made again it is made with them.
        note: why the reference engine was used, or None.
    """

    seed: int
    failed: str | None = None
    held_out: float | None = None
    exact: float | None = None
    train: float | None = None
    at_once: float | None = None
    steps: int = 0
    curve: list[float] | None = None
    losses: str | None = None
    parameters: int | None = None
    operations: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    engine: str = "fast"
    lanes: int = 1
    beside: list[int] = field(default_factory=list)
    note: str | None = None

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def perform(trial: Trial) -> list[Result]:
    """Train a program with every seed of a trial, and measure each run.

    Returns:
        one result for each seed, in order; those that failed say why.
    """
    results = [Result(seed) for seed in trial.seeds]
    runs: list[tuple[Run, Result]] = []
    first: Run | None = None
    for result in results:
        with _told(result):
            run = _begin(trial, result.seed, first)
            first = first or run
            runs.append((run, result))
    if first is None:
        return results
    facts = Result(0)
    with _told(facts):
        facts.parameters, facts.operations = cost(first)
        sees = not causal(first)
    if facts.failed is not None:  # the model cannot even read
        for result in results:
            result.failed = result.failed or facts.failed
        return results
    for _, result in runs:
        result.parameters, result.operations = facts.parameters, facts.operations
    if trial.engine == "fast":
        try:
            _side_by_side(runs, sees)
            return results
        except LeavesContract as why:
            for _, result in runs:
                result.note = why.message
    for run, result in runs:
        if result.held_out is None and result.failed is None:
            with _told(result):
                _alone(run, result, sees)
    return results


@contextmanager
def _told(result: Result) -> Iterator[None]:
    try:
        yield
    except LeavesContract:
        raise
    except MicrogptError as error:
        where = f" (line {error.line})" if error.line else ""
        result.failed = f"{error.message.rstrip('.')}{where}."


# ---- The beginning ----


def _begin(trial: Trial, seed: int, known: Run | None) -> Run:
    """The run of a seed before its first step; paired with that of the other program."""
    if known is not None:
        run = known.again(seed=seed)
    else:
        run = Run(trial.source, trial.corpus, seed=seed)
    run._need_data()
    if trial.like is not None and _init(trial.like) != _init(trial.source):
        take_first_weights(run, Run(trial.like, trial.corpus, seed=seed))
    return run


def _init(source: str) -> str:
    """The text of `init`."""
    place = next((f for f in functions(source) if f.name == "init"), None)
    return "\n".join(source.splitlines()[place.first - 1 : place.last]) if place else ""


def take_first_weights(run: Run, other: Run) -> None:
    """Begin as another program does, as far as the two agree.

    A weight of the same name and shape, each of whose cells both programs draw from a normal
    distribution, is drawn by the same luck: the same numbers, or as many times larger as the spread
    is larger.
    """
    ours, theirs = _drawn(run), _drawn(other)
    for name, w in run.named_weights().items():
        a, b = ours.get(name), theirs.get(name)
        if a and b and len(a) == len(b) and len(a[0]) == len(b[0]):
            w.data = [
                [mu + sigma * luck for (mu, sigma, _), (_, _, luck) in zip(*rows)]
                for rows in zip(a, b)
            ]


class _Noting(random.Random):
    """Random numbers that remember what each was drawn from."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.drawn: dict[int, tuple[float, float, float]] = {}
        self._kept: list[float] = []  # so that no other number comes to lie in its place

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        luck = super().gauss(0.0, 1.0)
        number = mu + luck * sigma
        self._kept.append(number)
        self.drawn[id(number)] = mu, sigma, luck
        return number


def _drawn(run: Run) -> dict[str, list[list[tuple[float, float, float]]]]:
    """By the name of each weight that is drawn cell by cell: mean, spread and luck of each."""
    rng = _Noting(run.seed)
    rng.shuffle(list(run.train_docs))
    again = run.again()
    again._params = run.namespace["init"](rng, len(run.vocab), **run._given)
    again._weights = run.namespace["leaves"](again._params)
    return {
        name: [[rng.drawn[id(x)] for x in row] for row in w.data]
        for name, w in again.named_weights().items()
        if all(id(x) in rng.drawn for row in w.data for x in row)
    }


# ---- What a program is ----


def cost(run: Run) -> tuple[int, int | None]:
    """How many weights the loss of a document depends on, and the multiply-adds of matrix products
    that reading a token takes; None where the program has no `matmul` to count them in."""
    space = run.namespace
    ids = [i % len(run.vocab) for i in range((run.context or 16) + 1)]
    targets = space["Tensor"]([[j == t for j in range(len(run.vocab))] for t in ids[1:]])
    count = 0
    product: Callable[..., Any] | None = space.get("matmul")

    def counting(a: Any, b: Any) -> Any:
        nonlocal count
        count += len(a) * len(b) * len(b[0])
        return product(a, b) if product else None

    try:
        if product is not None:
            space["matmul"] = counting
        logits = space["gpt"](ids[:-1], **run._params)
        read = count
        space["backward"](space["cross_entropy"](logits, targets))
    except (Exception, SystemExit) as error:
        raise run._in_words(error) from error
    finally:
        if product is not None:
            space["matmul"] = product
    used = sum(w.shape[0] * w.shape[1] for w in run._weights if w.grad)
    for w in run._weights:
        w.grad = []
    return used, round(read / len(ids[:-1])) if read else None


def causal(run: Run) -> bool:
    """Whether what a token is continued by does not depend on the tokens behind it."""
    size = min(run.context or 8, 8)
    here = [i % len(run.vocab) for i in range(size)]
    there = [*here[:-1], (here[-1] + 1) % len(run.vocab)]
    try:
        rows = [run.namespace["gpt"](ids, **run._params).data[:-1] for ids in (here, there)]
    except (Exception, SystemExit) as error:
        raise run._in_words(error) from error
    return bool(rows[0] == rows[1])


# ---- Side by side ----


def _side_by_side(runs: Sequence[tuple[Run, Result]], sees: bool) -> None:
    """Train and measure runs of one program by the kernel.

    Raises:
        LeavesContract: the kernel cannot follow the program; results without a held-out loss are
            still to be made.
    """
    from microgpt.engines.fast import Fast  # the browser has another

    first = runs[0][0]
    schedule = first.schedule(lambda doc: fast.ids(doc))
    assert first.context is not None
    fast = Fast(first.source, first.namespace, first._params, first.vocab, first.context, schedule)
    size = fast.most_runs
    for start in range(0, len(runs), size):
        part = runs[start : start + size]
        # One run alone would add up in another order: it is laid out beside itself.
        several = [*part, part[0]] if len(part) == 1 < size else list(part)
        state = fast.open(len(several))
        courses = []
        for place, (run, _) in enumerate(several):
            state.load(place, [w.data for w in run._weights], run._moments)
            courses.append(run.schedule(fast.ids))
        began = time.perf_counter()
        losses = _train(state, courses, first.steps)
        seconds = (time.perf_counter() - began) / len(several)
        for place, (run, result) in enumerate(part):
            result.engine, result.lanes, result.seconds = "fast", state.lanes, seconds
            result.beside = [other.seed for other, _ in part]
            with _told(result):
                _keep(run, result, [step[place] for step in losses])
                weights, moments = state.store(place)
                run.take(result.steps, run.losses, weights, moments)
                docs = run._held_out(HELD_OUT)
                total, count = state.surprise(docs, place)
                _measure(run, result, sees, total / count, _asking(state, run, place))


def _asking(state: Any, run: Run, place: int) -> Ask:
    def ask(question: str) -> str:
        text: str = state.sample(random.Random(0), GREEDY, 1, question, place)[0]
        return text.removesuffix("\n")

    return ask


def _train(state: Any, courses: Sequence[Any], steps: int | None) -> list[list[float]]:
    """The losses of all steps, in slices short enough to be stopped between."""
    if steps is None:
        raise LeavesContract("its train does not say how many steps there are")
    done: list[list[float]] = []
    size = 1
    while len(done) < steps:
        began = time.perf_counter()
        new = state.train(courses, min(size, steps - len(done)))
        done += new
        if not new or not any(map(math.isfinite, new[-1])):
            break
        each = (time.perf_counter() - began) / len(new)
        size = max(1, int(SLICE / max(each, 1e-7)))
    return done


# ---- One by one ----


def _alone(run: Run, result: Result, sees: bool) -> None:
    """Train and measure a run by the file itself."""
    run.use("reference")
    result.engine, result.lanes = "reference", 1
    began = time.perf_counter()
    while not run.done:
        run.advance()
    result.seconds = time.perf_counter() - began
    _keep(run, result, run.losses)

    def ask(question: str) -> str:
        return run.sample(1, temperature=0, prefix=question)[0]

    _measure(run, result, sees, run.held_out_loss(HELD_OUT), ask)


# ---- Measuring ----


def _keep(run: Run, result: Result, losses: Sequence[float]) -> None:
    """What is kept of the training losses.

    Raises:
        MicrogptError: one of them is no number.
    """
    bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
    run.losses = list(losses if bad is None else losses[:bad])
    run.step = result.steps = len(run.losses)
    result.losses = hashlib.sha256(" ".join(map(repr, run.losses)).encode()).hexdigest()
    edges = [round(i * len(run.losses) / POINTS) for i in range(POINTS + 1)]
    result.curve = [
        sum(run.losses[a:b]) / (b - a) for a, b in itertools.pairwise(edges) if b > a
    ]  # fmt: skip
    batch, room = run.batch or 1, run.context or math.inf
    lengths = [min(len(doc) + 1, room) for doc in run.train_docs]  # a token for each, and the end
    rounds, more = divmod(run.step * batch, len(lengths))
    result.tokens = int(rounds * sum(lengths) + sum(lengths[:more]))
    if bad is not None:
        run._diverged(losses[bad])
    result.train = run.smoothed(LAST)


def _measure(run: Run, result: Result, sees: bool, whole: float, ask: Ask) -> None:
    """Held-out loss and exact answers."""
    held_out = whole
    if not math.isfinite(whole):
        raise MicrogptError("Its held-out loss is no finite number.")
    if sees:
        result.at_once, held_out = whole, written(run, run._held_out(READ_SLOWLY))
    if run.corpus.separator:
        docs = run._held_out(ASKED)
        room = run.context or math.inf
        fits = [doc for doc in docs if len(doc) < room]
        right = sum(ask(run.corpus.question(doc)) == doc for doc in fits)
        result.exact = right / len(docs)
    result.held_out = held_out


def written(run: Run, docs: Sequence[str]) -> float:
    """The surprise at documents, each token asked for before it and what follows can be seen, in
    nats a token: what a held-out loss means, for a program that reads the future too."""
    total, count = 0.0, 0
    try:
        for doc in docs:
            ids = run.namespace["encode"](doc, run.vocab)
            ids = ids if run.context is None else ids[: run.context + 1]
            for n in range(1, len(ids)):
                row = run._probabilities(ids[:n])[-1]
                total -= math.log(row[ids[n]] / sum(row) + 1e-30)
                count += 1
    except (Exception, SystemExit) as error:
        raise run._in_words(error) from error
    return total / count
