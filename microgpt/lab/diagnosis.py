"""What is wrong with a trained model, read off the model itself.

Each finding is a measurement with the bound that it passed: of the losses, of the gradients of a
few documents, of what its ReLUs let through, and of the texts that it writes.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from microgpt import data
from microgpt.data import Corpus
from microgpt.lab.trials import causal, written
from microgpt.run import Run

READ = 20  # documents that gradients and activations are measured on
WRITTEN = 100  # texts, to see how many are copies
FEW_OF_ALL = 0.5  # of the cells of a ReLU: more that never pass anything are said
APART = 100.0  # times as large: gradients of one block beside another's
GAP = 0.5  # nats a token that documents learnt from are known better than others
WINDOW = 20  # steps that a loss is averaged over
WORSE = 1.5  # times the loss of a guess: more, for a while, is said
COPIES = 0.5  # of the texts: more that are documents learnt from are said


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what it was read off.

    Attributes:
        name: of what it is: diverged, unlearnt, future, dead, gradients, memorised.
        sentence: what was measured and what it means.
        numbers: the measurements, by name.
    """

    name: str
    sentence: str
    numbers: dict[str, float]

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"name": self.name, "sentence": self.sentence, "numbers": self.numbers}


@dataclass(frozen=True)
class Measured:
    """What was measured of a model.

    Attributes:
        train, held_out: surprise at documents learnt from and at others, in nats a token; read from
            left to right where the program sees the future.
        unigram: the surprise of a guess that knows how frequent each token is, and nothing else.
        dead: of each ReLU on the way, the share of its columns that are zero for every token.
        gradients: of each block, the root of the mean square of all its weights' gradients.
        copies: the share of its texts that are documents learnt from; None where none is written.
        sees: whether it sees the future.
        at_once: the surprise at whole held-out documents.
    """

    train: float
    held_out: float
    unigram: float
    dead: list[float]
    gradients: list[float]
    copies: float | None
    sees: bool
    at_once: float


def measure(run: Run) -> Measured:
    """Look at a trained model.

    Raises:
        MicrogptError: the source fails.
    """
    sees = not causal(run)
    kept = run._held_out(None)[:READ] if run.held_out_docs else run.train_docs[:READ]
    learnt = run.train_docs[:READ]
    at_once = run.surprise(kept)
    train, held_out = run.surprise(learnt), at_once
    if sees:
        train, held_out = written(run, learnt), written(run, kept)
    dead, gradients = _inside(run, learnt)
    texts = run.sample(WRITTEN, seed=run.seed)
    copies = sum(text in set(run.train_docs) for text in texts) / len(texts) if texts else None
    return Measured(train, held_out, _unigram(run, kept), dead, gradients, copies, sees, at_once)


def diagnose(run: Run, measured: Measured | None = None) -> list[Finding]:
    """What is wrong with a trained model; nothing, when the list is empty.

    Args:
        run: the run, trained.
        measured: what was measured of it already.
    """
    bad = next((loss for loss in run.losses if not math.isfinite(loss)), None)
    if bad is not None:
        return [Finding("diverged", f"The loss became {bad}.", {"step": run.losses.index(bad) + 1})]
    found = []
    seen = measure(run) if measured is None else measured
    ends = range(WINDOW, len(run.losses) + 1)
    worst = max((run.smoothed(WINDOW, step=step) for step in ends), default=0.0)
    if worst > WORSE * run.baseline:
        found.append(
            Finding(
                "diverged",
                f"For a while the loss was {worst:.2f}, where a guess in which all tokens are "
                f"equally likely scores {run.baseline:.2f}: steps so large undo one another.",
                {"loss": worst, "guess": run.baseline},
            )
        )  # fmt: skip
    if seen.held_out > seen.unigram - 0.01 and not seen.sees and seen.train > seen.held_out - GAP:
        found.append(
            Finding(
                "unlearnt",
                f"Its surprise at new documents, {seen.held_out:.2f}, is that of a guess that "
                f"knows how frequent each token is ({seen.unigram:.2f}): it uses nothing of what "
                "came before.",
                {"held_out": seen.held_out, "unigram": seen.unigram},
            )
        )  # fmt: skip
    if seen.sees:
        found.append(
            Finding(
                "future",
                f"It reads the tokens that it is to predict: its surprise at whole documents is "
                f"{seen.at_once:.2f}, and {seen.held_out:.2f} when they are read from left to "
                "right, as a text is written.",
                {"at_once": seen.at_once, "written": seen.held_out},
            )
        )  # fmt: skip
    if seen.dead and max(seen.dead) > FEW_OF_ALL:
        worst = seen.dead.index(max(seen.dead)) + 1
        found.append(
            Finding(
                "dead",
                f"Of the ReLUs of block {worst}, {max(seen.dead):.0%} are zero for every token: no "
                "gradient reaches them, so they stay so.",
                {"share": max(seen.dead), "block": worst},
            )
        )  # fmt: skip
    sizes = [size for size in seen.gradients if math.isfinite(size)]
    if len(sizes) > 1 and max(sizes) > APART * min(sizes):
        small, large = seen.gradients.index(min(sizes)) + 1, seen.gradients.index(max(sizes)) + 1
        times = f"{max(sizes) / min(sizes):,.0f} times" if min(sizes) else "infinitely"
        found.append(
            Finding(
                "gradients",
                f"Gradients in block {large} are {times} as large as in block {small}: what one "
                "learns hardly reaches the other.",
                {"largest": max(sizes), "smallest": min(sizes)},
            )
        )  # fmt: skip
    copied = seen.copies is not None and seen.copies > COPIES
    if not seen.sees and (seen.held_out - seen.train > GAP or copied):
        share = (
            "" if seen.copies is None else f"; {seen.copies:.0%} of its texts are copies of them"
        )
        found.append(
            Finding(
                "memorised",
                f"It knows the documents that it learnt from (surprise {seen.train:.2f}) and not "
                f"new ones ({seen.held_out:.2f}){share}.",
                {"train": seen.train, "held_out": seen.held_out, "copies": seen.copies or 0.0},
            )
        )  # fmt: skip
    return found


# ---- Measurements ----


def _ids(run: Run, docs: Sequence[str]) -> Iterator[list[int]]:
    for doc in docs:
        ids = run.namespace["encode"](doc, run.vocab)
        yield ids if run.context is None else ids[: run.context + 1]


def _unigram(run: Run, docs: Sequence[str]) -> float:
    counts = Counter(token for ids in _ids(run, run.train_docs[:2000]) for token in ids[1:])
    total = sum(counts.values()) + len(
        run.vocab
    )  # each token once more, so that none is impossible
    chances = [(counts[i] + 1) / total for i in range(len(run.vocab))]
    return statistics.fmean(-math.log(chances[t]) for ids in _ids(run, docs) for t in ids[1:])


def _inside(run: Run, docs: Sequence[str]) -> tuple[list[float], list[float]]:
    """Of each ReLU the share of columns that never pass anything; of each block the size of its
    gradients."""
    space, weights = run.namespace, run.named_weights()
    passed: list[list[bool]] = []
    for w in weights.values():
        w.grad = []
    for ids in _ids(run, docs):
        targets = space["Tensor"]([[j == t for j in range(len(run.vocab))] for t in ids[1:]])
        with _watched(space["Tensor"]) as made:
            loss = space["cross_entropy"](space["gpt"](list(ids[:-1]), **run.params), targets)
        for i, rows in enumerate(made):
            alive = [any(column) for column in zip(*rows)]
            if i == len(passed):
                passed.append(alive)
            elif len(passed[i]) == len(alive):
                passed[i] = [a or b for a, b in zip(passed[i], alive)]
        space["backward"](loss)
    squares: dict[int, list[float]] = {}
    for name, w in weights.items():
        if name.startswith("blocks.") and w.grad:
            cells = [g * g for row in w.grad for g in row]
            squares.setdefault(int(name.split(".")[1]), []).extend(cells)
        w.grad = []
    sizes = [math.sqrt(statistics.fmean(cells)) for _, cells in sorted(squares.items())]
    return [1 - sum(alive) / len(alive) for alive in passed], sizes


@contextmanager
def _watched(tensor: Any) -> Iterator[list[list[list[float]]]]:
    """What the ReLUs of a source give while this lasts."""
    made: list[list[list[float]]] = []
    relu = tensor.relu

    def watched(self: Any) -> Any:
        found = relu(self)
        made.append(found.data)
        return found

    tensor.relu = watched
    try:
        yield made
    finally:
        tensor.relu = relu


# ---- The gallery ----


@dataclass(frozen=True)
class Failure:
    """Something that goes wrong, to look at.

    Attributes:
        name, title: what it is.
        recipe: the program.
        data: what it learns: the name of a data set.
        documents: how many of them, or all.
        expected: the name of the finding that it is there for.
        advice: what mends it.
    """

    name: str
    title: str
    recipe: str
    data: str
    documents: int | None
    expected: str
    advice: str


GALLERY = (
    Failure(
        "diverging", "A learning rate that is too large", "lr=1.0+steps=300", "names", None,
        "diverged", "A learning rate a hundred times lower.",
    ),
    Failure(
        "missing-mask", "Attention without its mask", "no-mask", "names", None, "future",
        "The two lines of the mask.",
    ),
    Failure(
        "dead-relus", "ReLUs that died", "no-norm+lr=0.1", "names", None, "dead",
        "A lower learning rate, the norm, or a bend that is nowhere flat (gelu, silu).",
    ),
    Failure(
        "no-residual-at-depth", "Eight layers without residuals", "no-residual+n_layer=8", "copy",
        None, "gradients", "The residual stream: each part adds to it instead of taking its place.",
    ),
    Failure(
        "overfitting", "Thirty names, again and again", "steps=3000", "names", 30, "memorised",
        "More data, fewer steps, or a smaller model.",
    ),
)  # fmt: skip


def failure(name: str) -> Failure | None:
    """The failure of this name in the gallery."""
    return next((one for one in GALLERY if one.name == name), None)


def corpus_of(one: Failure) -> Corpus:
    """What is learnt there."""
    whole = data.load(one.data)
    return dataclasses.replace(whole, docs=whole.docs[: one.documents])
