"""Experiments: programs beside a baseline, over the same seeds, with an interval and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microgpt import data
from microgpt.data import Corpus
from microgpt.errors import MicrogptError
from microgpt.lab import variants
from microgpt.lab.bench import SEEDS, Bench, Progress, Spread, Wanted, corpora, seeds_of
from microgpt.lab.records import Record
from microgpt.lab.statistics import Interval, Verdict, interval, looks, verdict
from microgpt.lab.trials import Trial
from microgpt.lab.variants import Program
from microgpt.source import ORIGINAL, encode_link, knobs, set_knob

MOST_SEEDS = 64


@dataclass(frozen=True)
class Metric:
    """A number of a run that programs are compared by."""

    name: str
    title: str
    more_is_better: bool


METRICS = (
    Metric("exact", "exact answers", more_is_better=True),
    Metric("held_out", "held-out loss", more_is_better=False),
)


@dataclass(frozen=True)
class Difference:
    """What one metric says of a program beside its baseline.

    Attributes:
        metric: which.
        baseline, variant: the mean over the pairs.
        interval: of the difference, variant less baseline.
        verdict: better, worse, can't tell, or too few seeds.
    """

    metric: Metric
    baseline: float
    variant: float
    interval: Interval
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """One program beside its baseline, on one set of data.

    Attributes:
        data, baseline, variant: names.
        seeds: of the pairs that are complete.
        differences: by metric, the one that counts first; none when no pair is complete.
        runs: of each pair, the baseline's record and the variant's.
        failed: what went wrong, a sentence for each run that did.
        link: the part of the page's address after `#` that shows the variant.
    """

    data: str
    baseline: str
    variant: str
    seeds: list[int]
    differences: list[Difference]
    runs: list[tuple[Record, Record]]
    failed: list[str]
    link: str

    @property
    def verdict(self) -> Verdict:
        """By the metric that counts: exact answers where there are any, else the held-out loss."""
        return self.differences[0].verdict if self.differences else "too few seeds"

    def plain(self) -> dict[str, Any]:
        """As plain data, without the runs."""
        return {
            "data": self.data, "baseline": self.baseline, "variant": self.variant,
            "verdict": self.verdict, "seeds": self.seeds, "failed": self.failed,
            "link": self.link,
            "differences": [
                {
                    "metric": d.metric.name, "baseline": d.baseline, "variant": d.variant,
                    "difference": d.interval.mean, "low": d.interval.low, "high": d.interval.high,
                    "level": d.interval.level, "verdict": d.verdict,
                }
                for d in self.differences
            ],
            "cost": {
                name: [_mean(r[i][name] for r in self.runs) for i in (0, 1)]
                for name in ("parameters", "operations", "seconds")
            },
        }  # fmt: skip


def rung(below: Comparison, above: Comparison) -> Difference | None:
    """A rung of a ladder beside the one below it: their difference, by the metric that counts, over
    the seeds that both have."""
    if not below.differences or not above.differences:
        return None
    metric = above.differences[0].metric
    first = {a["seed"]: b[metric.name] for a, b in below.runs}
    second = {a["seed"]: b[metric.name] for a, b in above.runs}
    pairs = [(first[seed], second[seed]) for seed in first if seed in second]
    if not pairs:
        return None
    return _difference(metric, pairs)


@dataclass(frozen=True)
class Report:
    """What an experiment found.

    Attributes:
        comparisons: one for each program and set of data.
        records: of all runs.
        whole: whether nothing was left to do; False after a stop or when a budget was used up.
    """

    comparisons: list[Comparison]
    records: list[Record]
    whole: bool

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"whole": self.whole, "comparisons": [c.plain() for c in self.comparisons]}


@dataclass
class _Pairing:
    """One program beside its baseline on one set of data, while the experiment goes on."""

    corpus: Corpus
    baseline: Program
    variant: Program
    open: bool = True
    seeds: list[int] = field(default_factory=list)

    def wanted(self, engine: str) -> list[Wanted]:
        """The baseline's runs, and the variant's."""
        base, seeds = self.baseline.source, tuple(self.seeds)
        return [
            Wanted(Trial(base, self.corpus, seeds, None, engine), self.baseline.name),
            Wanted(
                Trial(self.variant.source, self.corpus, seeds, base, engine),
                self.variant.name, self.baseline.name,
            ),
        ]  # fmt: skip


class Experiment:
    """Programs beside a baseline, run pair by pair; it can be stopped and keeps what it has.

    Args:
        asked: the variants: recipes, names of groups or of ladders, or programs as they are.
        baseline: the recipe of what they are edits of; the file itself when it is empty.
        tasks: data: names of data sets, or corpora.
        seeds: how many, or which.
        numbers: numbers of the file for all programs (`steps`, `n_layer`, ...).
        usual: whether a data set's own steps and batch are in force where neither a program nor
            these numbers say otherwise.
        until_sure: look several times, and add seeds to what is not decided yet.
        most_seeds: where that ends.
        budget: seconds after which no further run is begun, or None.
        engine: "fast" or "reference".
        results: a file to keep the runs in; what is in it is not run again.
        spread: what performs the trials: here, or on several processes.

    Raises:
        MicrogptError: a recipe, data or a number cannot be used, or there is nothing to compare.
    """

    def __init__(
        self,
        asked: Sequence[str | Program],
        baseline: str = "",
        tasks: Sequence[str | Corpus] = ("names",),
        seeds: int | Sequence[int] = SEEDS,
        numbers: dict[str, float] | None = None,
        *,
        usual: bool = True,
        until_sure: bool = False,
        most_seeds: int = MOST_SEEDS,
        budget: float | None = None,
        engine: str = "fast",
        results: Path | None = None,
        spread: Spread | None = None,
    ) -> None:
        self._seeds = seeds_of(seeds)
        count = len(self._seeds)
        self._looks = looks(count, max(most_seeds, count)) if until_sure else [count]
        if until_sure:
            last = self._seeds[-1]
            self._seeds += [last + 1 + i for i in range(self._looks[-1] - count)]
        programs = [one for one in asked if isinstance(one, Program)]
        recipes: list[str | Program] = [
            *programs,
            *variants.recipes([x for x in asked if isinstance(x, str)]),
        ]
        if not recipes:
            raise MicrogptError(
                "There is nothing to compare: name a variant, such as no-attention."
            )
        self.pairings = [
            pairing
            for task in corpora(tasks)
            for pairing in _pairings(task, baseline, recipes, numbers or {}, usual)
        ]
        self._engine, self._whole = engine, False
        self._bench = Bench(results, spread, budget)
        self.left_out = self._bench.left_out

    def run(self) -> Iterator[Progress]:
        """Do what is to be done, and say after each run how far it is."""
        for look in self._looks:
            for pairing in self.pairings:
                if pairing.open:
                    pairing.seeds = self._seeds[:look]
            yield from self._bench.perform(
                [wanted for pairing in self.pairings for wanted in pairing.wanted(self._engine)]
            )
            if self._bench.over:
                return
            for pairing in self.pairings:
                found = self._comparison(pairing)
                decided = found.differences and found.differences[0].interval.decided
                hopeless = len(found.seeds) < look // 2
                pairing.open = pairing.open and not decided and not hopeless
            if not any(pairing.open for pairing in self.pairings):
                break
        self._whole = True

    def report(self) -> Report:
        """What is known so far."""
        found = [self._comparison(pairing) for pairing in self.pairings]
        return Report(found, list(self._bench.used.values()), self._whole)

    def _comparison(self, pairing: _Pairing) -> Comparison:
        pairs: list[tuple[int, Record, Record]] = []
        failed: dict[str, list[int]] = {}
        for seed in pairing.seeds:
            both = [self._bench.find(one.trial, seed) for one in pairing.wanted(self._engine)]
            for found, program in zip(both, (pairing.baseline, pairing.variant)):
                if found is not None and found["failed"]:
                    failed.setdefault(f"{program.name}: {found['failed']}", []).append(seed)
            ours, theirs = both
            if ours and theirs and not ours["failed"] and not theirs["failed"]:
                pairs.append((seed, ours, theirs))
        runs = [(ours, theirs) for _, ours, theirs in pairs]
        state: dict[str, Any] = {"source": pairing.variant.source, "seed": self._seeds[0]}
        if pairing.corpus.name in data.DATASETS:
            state["data"] = pairing.corpus.name
        return Comparison(
            pairing.corpus.name, pairing.baseline.name, pairing.variant.name,
            [seed for seed, _, _ in pairs], _differences(runs, len(self._looks)), runs,
            [f"{why[:-1]} (seed {_spelled(seeds)})." for why, seeds in failed.items()],
            encode_link(state),
        )  # fmt: skip


def compare(
    asked: Sequence[str] | str,
    baseline: str = "",
    tasks: Sequence[str | Corpus] | str = ("names",),
    seeds: int | Sequence[int] = SEEDS,
    *,
    until_sure: bool = False,
    most_seeds: int = MOST_SEEDS,
    budget: float | None = None,
    engine: str = "fast",
    results: str | Path | None = None,
    jobs: int | None = None,
    **numbers: float,
) -> Report:
    """Train programs and their baseline with the same seeds, and say what the difference is worth.

    >>> from microgpt.lab import compare
    >>> report = compare(["no-attention", "gelu"], tasks=["names", "copy"])
    >>> report.comparisons[0].verdict

    Args:
        asked, baseline, tasks, seeds, until_sure, most_seeds, budget, engine: as of `Experiment`.
        results: the path of a file to keep the runs in.
        jobs: how many processes share the work; None leaves it to `joblib.parallel_config`, which
            may also name a cluster, and is this process where nothing is said.
        numbers: numbers of the file, for all programs: `steps=3000`.

    Raises:
        MicrogptError: something of this cannot be used.
    """
    from microgpt.lab.parallel import spread

    experiment = Experiment(
        [asked] if isinstance(asked, str) else asked, baseline,
        [tasks] if isinstance(tasks, str) else tasks, seeds, numbers, until_sure=until_sure,
        most_seeds=most_seeds, budget=budget, engine=engine,
        results=None if results is None else Path(results), spread=spread(jobs),
    )  # fmt: skip
    for _ in experiment.run():
        pass
    return experiment.report()


def _pairings(
    corpus: Corpus,
    baseline: str,
    recipes: Sequence[str | Program],
    numbers: dict[str, float],
    usual: bool,
) -> Iterator[_Pairing]:
    base = numbered(baseline, corpus, numbers, usual=usual)
    for recipe in recipes:
        found = recipe if isinstance(recipe, Program) else variants.program(recipe, base.source)
        if found.whole:
            found = Program(
                found.name, _set(found.source, _usual(corpus, usual), numbers), whole=True
            )
        if found.source == base.source:
            raise MicrogptError(
                f"{found.name} changes nothing on {corpus.name}: it is the baseline itself."
            )
        yield _Pairing(corpus, base, found)


def numbered(
    baseline: str, corpus: Corpus, numbers: dict[str, float], *, usual: bool = True
) -> Program:
    """The program of a recipe with other numbers, and with those that its data want.

    Args:
        baseline: the recipe.
        corpus: the data.
        numbers: by name; the recipe has the last word.
        usual: whether a data set's own steps and batch are in force where nothing else is said.
    """
    base = variants.program(baseline)
    if base.whole:
        return Program(base.name, _set(base.source, _usual(corpus, usual), numbers), whole=True)
    return variants.program(baseline, _set(ORIGINAL, _usual(corpus, usual), numbers))


def _usual(corpus: Corpus, wanted: bool) -> dict[str, float]:
    own = data.DATASETS.get(corpus.name) if wanted else None
    return {"steps": own["steps"], "batch": own["batch"]} if own else {}


def _set(source: str, usually: dict[str, float], numbers: dict[str, float]) -> str:
    """A program with other numbers: those that are given, and a data set's own where the program
    has those of the file."""
    own = {knob.name: knob.value for knob in knobs(ORIGINAL)}
    for knob in knobs(source):
        if knob.name in usually and knob.name not in numbers and own.get(knob.name) == knob.value:
            source = set_knob(source, knob.name, usually[knob.name])
    for name, number in numbers.items():
        source = set_knob(source, name, number)
    return source


def _differences(runs: Sequence[tuple[Record, Record]], looks: int) -> list[Difference]:
    found = []
    for metric in METRICS:
        pairs = [(ours[metric.name], theirs[metric.name]) for ours, theirs in runs]
        if pairs and not any(number is None for pair in pairs for number in pair):
            found.append(_difference(metric, pairs, looks))
    return found


def _difference(metric: Metric, pairs: Sequence[tuple[float, float]], looks: int = 1) -> Difference:
    made = interval([theirs - ours for ours, theirs in pairs], looks)
    return Difference(
        metric, _mean(a for a, _ in pairs), _mean(b for _, b in pairs), made,
        verdict(made, more_is_better=metric.more_is_better),
    )  # fmt: skip


def _mean(numbers: Iterable[float | None]) -> float:
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if known else float("nan")


def _spelled(seeds: Sequence[int]) -> str:
    *most, last = map(str, seeds)
    return f"{', '.join(most)} and {last}" if most else last
