"""`microgpt variants`, `compare` and `rerun`: experiments in the terminal."""

from __future__ import annotations

import itertools
import math
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from microgpt import data
from microgpt import source as file
from microgpt.cli.terminal import (
    COUNT,
    FILE,
    POSITIVE,
    WHOLE,
    Plain,
    Stopped,
    all_of,
    ask_trust,
    console,
    counted,
    duration,
    link_option,
    linked_corpus,
    on_terminal,
    print_json,
    printable,
    sizes_options,
    stoppable,
    tell,
    trust_option,
)
from microgpt.data import Corpus
from microgpt.errors import MicrogptError
from microgpt.files import write
from microgpt.lab import diagnosis as lab_diagnosis
from microgpt.lab import parts as lab_parts
from microgpt.lab import pictures
from microgpt.lab import sweep as lab_sweep
from microgpt.lab import variants as lab
from microgpt.lab.bench import FIRST_SEED, SEEDS, Progress
from microgpt.lab.experiment import (
    METRICS,
    MOST_SEEDS,
    Comparison,
    Difference,
    Experiment,
    Report,
    numbered,
    rung,
)
from microgpt.lab.records import Ledger, Record, again
from microgpt.lab.statistics import Interval
from microgpt.lab.variants import Program
from microgpt.run import ENGINES, DivergedError, Run

if TYPE_CHECKING:
    pass

BAR = 21  # characters that an interval is drawn in
FAR = 5  # times as far as a middling interval: such a one does not set the scale of a drawing
INTERVAL = "difference (95 % interval)"
WIDE, WIDER = 100, 130  # columns of a terminal that leave room for drawings, and for rungs too
LINKS = 3  # that are printed without being asked for
MANY = 5  # verdicts of which one may well be chance

separator_option = click.option(
    "--separator", metavar="X", help="What stands before the answer in a text file."
)
jobs_option = click.option(
    "--jobs", type=COUNT, metavar="N", default=0, help="Processes (one a core, if worth it)."
)
bench_options = all_of(
    click.option("--seed", type=COUNT, metavar="N", help=f"The first seed ({FIRST_SEED})."),
    click.option("--steps", type=WHOLE, metavar="N", help="Training steps (as the data need)."),
    click.option("--batch", type=WHOLE, metavar="N", help="Documents a step (as the data need)."),
    click.option(
        "--budget", type=POSITIVE, metavar="S", help="Begin nothing after so many seconds."
    ),
    click.option("--engine", type=click.Choice(ENGINES), default=ENGINES[0], help="As in train."),
    jobs_option,
    click.option(
        "--out", type=FILE, metavar="FILE",
        help="Keep all runs here; those in it are not made again.",
    ),
)  # fmt: skip


# ---- variants ----


@click.command(short_help="List variants of the file, or show one.")
@click.argument("recipe", required=False, metavar="[RECIPE]")
@click.option("--source", "whole", is_flag=True, help="Print the whole program it makes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def variants(recipe: str | None, whole: bool, as_json: bool) -> None:
    """List the variants that come with the package, or show what one changes.

    Several are joined by plus signs, numbers of the file among them.

    \b
      microgpt variants
      microgpt variants rope
      microgpt variants rope+swiglu+lr=0.02
      microgpt variants rope --source > mine.py
    """
    if recipe is None:
        _list(as_json)
        return
    program = lab.program(recipe)
    if whole:
        click.echo(program.source, nl=False)
        return
    known = [] if program.whole else lab.parts(recipe)
    if as_json:
        about = [_about(variant) for variant in known]
        print_json({"recipe": recipe, "variants": about, "diff": program.diff})
        return
    out = console()
    for variant in known:
        out.print(f"{variant.title} ({variant.name})\n", style="bold")
        out.print(f"{variant.about}\n")
        out.print(f"Hypothesis: {variant.hypothesis}")
        out.print(f"Reference:  {variant.reference}\n")
    if on_terminal():
        from rich.syntax import Syntax

        out.print(Syntax(printable(program.diff), "diff", theme="ansi_dark", word_wrap=True))
    else:
        click.echo(program.diff)


def _about(variant: lab.Variant) -> Plain:
    return {
        "name": variant.name, "group": variant.group, "title": variant.title,
        "about": variant.about, "hypothesis": variant.hypothesis, "reference": variant.reference,
    }  # fmt: skip


def _list(as_json: bool) -> None:
    found = lab.collection().values()
    if as_json:
        print_json({"variants": [_about(v) for v in found], "ladders": lab.LADDERS})
        return
    out = console()
    width = max(len(v.name) for v in found)
    for group, title in lab.GROUPS.items():
        out.print(f"{group}: {title[0].lower()}{title[1:]}", style="bold")
        for variant in found:
            if variant.group == group:
                out.print(f"  {variant.name:{width}}  {variant.title}")
        out.print()
    out.print("ladders: one rung above the other", style="bold")
    for name, rungs in lab.LADDERS.items():
        out.print(f"  {name:{width}}  {', '.join(rungs)}", soft_wrap=True)
    out.print("\nmicrogpt variants NAME shows one; microgpt compare NAME measures it.")


# ---- compare ----


@click.command(short_help="Measure variants beside a baseline.")
@click.argument("recipes", nargs=-1, metavar="VARIANT...")
@click.option(
    "--baseline", default="", metavar="RECIPE", help="What they are edits of (the file itself)."
)
@click.option(
    "--data", "names", multiple=True, metavar="DATA",
    help="A data set or a text file; again for more, tasks for all tasks (names).",
)  # fmt: skip
@separator_option
@click.option("--seeds", type=COUNT, metavar="N", help=f"Paired runs of each ({SEEDS}).")
@click.option(
    "--until-sure", is_flag=True, help="Add seeds until the interval decides, or --most-seeds."
)
@click.option(
    "--most-seeds", type=WHOLE, metavar="N", default=MOST_SEEDS,
    help=f"Where --until-sure ends ({MOST_SEEDS}).",
)  # fmt: skip
@click.option("--lr", type=POSITIVE, metavar="X", help="Learning rate of the first step (0.01).")
@sizes_options
@link_option
@trust_option
@bench_options
@click.option("--links", is_flag=True, help="Print the page's link of each, however many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@click.pass_context
def compare(
    ctx: click.Context,
    recipes: tuple[str, ...],
    baseline: str,
    names: tuple[str, ...],
    separator: str | None,
    seeds: int | None,
    seed: int | None,
    until_sure: bool,
    most_seeds: int,
    budget: float | None,
    steps: int | None,
    batch: int | None,
    lr: float | None,
    n_layer: int | None,
    n_head: int | None,
    n_embd: int | None,
    block_size: int | None,
    std: float | None,
    link: str | None,
    trust: bool,
    engine: str,
    jobs: int,
    out: Path | None,
    links: bool,
    as_json: bool,
) -> int:
    """Train programs and a baseline with the same seeds, and say what the difference is worth.

    A VARIANT is a name (microgpt variants lists them), several joined by plus signs, a number
    of the file, a file of your own, or a group or ladder of variants.

    \b
      microgpt compare no-attention --data names --data copy
      microgpt compare rope+swiglu lr=0.02 --until-sure
      microgpt compare no-norm --baseline n_layer=4
      microgpt compare mine.py --out results.jsonl
      microgpt compare removals --data tasks --jobs 2

    Both programs of a pair begin with the same weights, where they have the same, and read the
    same documents in the same order. What is compared is measured on documents that neither
    has seen: exact answers where the data have answers, otherwise the loss.
    """
    from microgpt.lab.parallel import spread

    given: Plain = {
        "steps": steps, "batch": batch, "lr": lr, "n_layer": n_layer, "n_head": n_head,
        "n_embd": n_embd, "block_size": block_size, "std": std,
    }  # fmt: skip
    numbers = {name: value for name, value in given.items() if value is not None}
    tasks = _tasks(names, separator)
    asked: list[str | Program] = list(recipes)
    if link is not None:
        state = file.decode_link(link)
        written = state.get("source", file.ORIGINAL)
        ask_trust(written, trust, "This link", "microgpt source --diff --link URL")
        asked.append(Program("link", written, whole=True))
        corpus = linked_corpus(state)
        tasks = tasks or ([corpus] if corpus else [])
        seed = state.get("seed") if seed is None else seed
    if not asked:
        raise click.UsageError("Name a variant; microgpt variants lists them", ctx)
    if budget is not None and not until_sure and out is None:
        tell("With --budget and without --out, the runs that are made are not kept.")
    first, count = FIRST_SEED if seed is None else seed, SEEDS if seeds is None else seeds
    experiment = Experiment(
        asked, baseline, tasks or ["names"], list(range(first, first + count)), numbers,
        usual=link is None, until_sure=until_sure, most_seeds=most_seeds, budget=budget,
        engine=engine, results=out, spread=spread(jobs),
    )  # fmt: skip
    for sentence in experiment.left_out:
        tell(sentence)
    newest = ((f"{at.newest['program']} on {at.newest['data']}", at) for at in experiment.run())
    stopped = _perform(newest, as_json)
    report = experiment.report()
    if as_json:
        for comparison in report.comparisons:
            print_json({"event": "comparison", **comparison.plain()})
    else:
        Shown(report, links).show()
    if stopped is not None:
        tell(_stopped(out))
        return 128 + stopped
    if not report.whole:
        tell("The budget is used up, and not all was run; --out FILE keeps what was.")
    return 0 if any(c.differences for c in report.comparisons) else 1


def _tasks(names: Sequence[str], separator: str | None) -> list[str | Corpus]:
    """The data that were named."""
    found: list[str | Corpus] = []
    for name in names:
        if name == "tasks":
            found += [n for n, about in data.DATASETS.items() if about["separator"]]
        elif name in data.DATASETS or separator is None:
            found.append(name)
        else:
            found.append(data.with_answers(data.load(name), separator))
    return found


def _perform(steps: Iterable[tuple[str, Progress]], as_json: bool) -> int | None:
    """Do the runs, and show how far they are, under a name for each; the number of the signal that
    stopped them."""
    bar: Any = None
    if on_terminal() and not as_json:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        bar = Progress(
            BarColumn(bar_width=30), TextColumn("{task.completed:,} of {task.total:,} runs"),
            TimeRemainingColumn(), TextColumn("{task.fields[newest]}", markup=False),
            console=console(), transient=True,
        )  # fmt: skip
        task = bar.add_task("", total=None, newest="", completed=0)
    with stoppable():
        try:
            if bar is not None:
                bar.start()
            for name, at in steps:
                if as_json:
                    print_json({"event": "run", **at.newest})
                elif bar is not None:
                    bar.update(task, total=at.wanted, completed=at.done, newest=name)
        except Stopped as stop:
            return stop.number
        finally:
            if bar is not None:
                bar.stop()
    return None


def _stopped(out: Path | None) -> str:
    if out is None:
        return "Stopped; the runs were not kept, because no --out FILE was given."
    return f"Stopped; the finished runs are in {out}, and the same command goes on from there."


class Shown:
    """A report on a terminal: a table for each set of data, then what to know about it."""

    def __init__(self, report: Report, links: bool) -> None:
        self.report, self.links = report, links
        self.console = console()

    def show(self) -> None:
        """Print it."""
        found = self.report.comparisons
        for name in dict.fromkeys(c.data for c in found):
            self._data([c for c in found if c.data == name])
        for sentence in self._remarks():
            self.console.print(sentence)
        if self.links or len(found) <= LINKS:
            self.console.print("In the page, behind its address:")
            for c in found:
                self.console.print(f"  {c.variant}: #{c.link}", soft_wrap=True)

    def _data(self, found: Sequence[Comparison]) -> None:
        from rich.table import Table

        pairs = max(len(c.seeds) for c in found)
        self.console.print(f"{printable(found[0].data)}, {counted(pairs, 'seed')}", style="bold")
        first = next((c for c in found if c.differences), None)
        if first is not None:
            parts = [f"{_value(d, d.baseline)} {d.metric.title}" for d in first.differences]
            self.console.print(f"{printable(first.baseline)}: {', '.join(parts)}")
        ladder = any(_adds(b.variant, a.variant) for a, b in itertools.pairwise(found))
        wide = self.console.width >= WIDE
        titles = ["variant", "", INTERVAL, *([" "] if wide else []), "verdict"]
        titles += ["weights, work"] if wide else []
        titles += ["beside the rung below"] if ladder and self.console.width >= WIDER else []
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in titles:
            table.add_column(title, no_wrap=True)
        scales = {
            metric.name: _scale(
                [d for c in found for d in c.differences if d.metric.name == metric.name]
            )
            for metric in METRICS
        }
        most = max(len(c.seeds) for c in found)
        for below, c in zip([None, *found], found):
            added = _adds(c.variant, below.variant) if below else None
            name = printable(f"+ {added}" if added else c.variant)
            step = rung(below, c) if below and added else None
            for i, d in enumerate(c.differences):
                seeds = "" if i or len(c.seeds) == most else f" ({counted(len(c.seeds), 'seed')})"
                cells = {
                    "variant": "" if i else name, "": _value(d, d.variant), INTERVAL: _interval(d),
                    " ": _drawn(d, scales[d.metric.name]), "verdict": d.verdict + seeds,
                    "weights, work": "" if i else _cost(c),
                    "beside the rung below": "" if i or step is None else _brief(step),
                }  # fmt: skip
                table.add_row(*[cells[title] for title in titles])
            if not c.differences:
                table.add_row(name, "", "no pair of runs was completed")
        self.console.print(table)
        self.console.print()

    def _remarks(self) -> list[str]:
        found = self.report.comparisons
        said = [sentence for c in found for sentence in c.failed]
        said = [printable(sentence) for sentence in dict.fromkeys(said)]
        for c in found:
            seen = [theirs["at_once"] for _, theirs in c.runs if theirs["at_once"] is not None]
            if seen:
                whole = next(d for d in c.differences if d.metric.name == "held_out")
                said.append(
                    f"{c.variant} sees the future: at whole documents of {c.data} its loss is "
                    f"{sum(seen) / len(seen):.3f}, and {whole.variant:.3f} when a text is read "
                    "from left to right, as it is written. The second is what is compared."
                )
        notes = {theirs["note"]: c.variant for c in found for _, theirs in c.runs if theirs["note"]}
        said += [
            f"{printable(name)} was run by Python itself, which is slower: {note}."
            for note, name in notes.items()
        ]
        level = {d.interval.level for c in found for d in c.differences}
        if level and min(level) < 0.95 + 1e-9 and len(found) >= MANY:
            said.append(
                f"These are {len(found)} verdicts: where nothing matters, one in twenty would "
                "still say that it does."
            )
        if level and max(level) > 0.95 + 1e-9:
            said.append(
                f"The intervals hold {max(level):.2%} each, so that looking several times is as "
                "safe as looking once."
            )
        return said


def _adds(recipe: str, below: str) -> str | None:
    """What a recipe adds to the one below it, where it has all of that."""
    return recipe.removeprefix(below + "+") if recipe.startswith(below + "+") else None


def _value(d: Difference, number: float) -> str:
    return f"{number:.1%}" if d.metric.name == "exact" else f"{number:.3f}"


def _signed(d: Difference, number: float) -> str:
    """A difference with its sign, and a true minus."""
    if not math.isfinite(number):
        return "?"
    text = f"{100 * number:+.1f}" if d.metric.name == "exact" else f"{number:+.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _brief(d: Difference) -> str:
    return f"{_signed(d, d.interval.mean)} {d.verdict}"


def _interval(d: Difference) -> str:
    low, high = _signed(d, d.interval.low), _signed(d, d.interval.high)
    return f"{_signed(d, d.interval.mean)} ({low} to {high})"


def _scale(found: Sequence[Difference]) -> float:
    """What a drawing of intervals reaches to on both sides of zero: as far as most of them do."""
    ends = [(d.interval.low, d.interval.high) for d in found]
    reach = sorted(max(abs(low), abs(high)) for low, high in ends if math.isfinite(high - low))
    middle = reach[len(reach) // 2] if reach else 0.0
    return max([r for r in reach if r <= FAR * middle], default=0.0)


def _drawn(d: Difference, scale: float) -> str:
    """An interval as a line with a dot, zero in the middle; an arrow where it lies outside."""
    if not scale:
        return ""
    middle = BAR // 2
    low, mean, high = (
        middle + round(max(-2.0, min(2.0, number / scale)) * middle)
        for number in (d.interval.low, d.interval.mean, d.interval.high)
    )
    cells = [" "] * BAR
    for i in range(max(low, 0), min(high, BAR - 1) + 1):
        cells[i] = "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
    cells[middle] = "\N{BOX DRAWINGS LIGHT VERTICAL}"
    if 0 <= mean < BAR:
        cells[mean] = "\N{BLACK CIRCLE}"
    elif mean < 0:
        cells[0] = "\N{LEFTWARDS ARROW}"
    else:
        cells[-1] = "\N{RIGHTWARDS ARROW}"
    return "".join(cells)


def _cost(c: Comparison) -> str:
    """How many weights and multiply-adds the variant has more or fewer."""
    parts = []
    for name in ("parameters", "operations"):
        pairs = [(a[name], b[name]) for a, b in c.runs if a[name] and b[name]]
        if pairs:
            change = sum(b for _, b in pairs) / sum(a for a, _ in pairs) - 1
            parts.append(
                "=" if abs(change) < 0.0005 else f"{change:+.0%}".replace("-", "\N{MINUS SIGN}")
            )
    return ", ".join(parts)


# ---- rerun ----


@click.command(short_help="Make recorded runs again.")
@click.argument("results", type=FILE)
@click.option("--run", "wanted", metavar="ID", help="Only the run whose id begins so.")
@click.option("--data", "name", metavar="DATA", help="The data, where they are a file of yours.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@trust_option
def rerun(results: Path, wanted: str | None, name: str | None, as_json: bool, trust: bool) -> int:
    """Make the runs in a result file again, and say whether their losses are the same.

    \b
      microgpt rerun results.jsonl --run 53f701
      microgpt rerun results.jsonl

    On one machine and one version every loss is the same. Other processors add up in another
    order, so there the last digits of the losses differ, and what they lead to.
    """
    if not results.is_file():
        raise MicrogptError(f"There is no result file {results}.")
    ledger = Ledger.open(results)
    for sentence in ledger.left_out:
        tell(sentence)
    found = [r for r in ledger if r["id"].startswith(wanted or "")]
    if not found:
        raise MicrogptError(f"There is no run in {results} whose id begins with {wanted}.")
    _ask_trust(found, trust, results)
    corpus = data.load(name) if name is not None else None
    different = 0
    with stoppable():
        for record in found:
            began = time.perf_counter()
            result = again(record, corpus)
            same = (result.losses, result.failed) == (record["losses"], record["failed"])
            different += not same
            facts: Plain = {"id": record["id"], "same": same}
            facts |= {"held_out": [record["held_out"], result.held_out]}
            if as_json:
                print_json(facts)
                continue
            what = f"{record['id']}  {record['program']} on {record['data']}, seed {record['seed']}"
            click.echo(
                f"{printable(what)}: {'the same losses' if same else 'other losses'}, held-out "
                f"loss {_known(record['held_out'])} then and {_known(result.held_out)} now "
                f"({duration(time.perf_counter() - began)})"
            )
    return 1 if different else 0


def _known(number: float | None) -> str:
    return "unknown" if number is None else f"{number:.6f}"


def _ask_trust(found: Sequence[Record], trust: bool, path: Path) -> None:
    """A result file may come from elsewhere, and the programs in it with it."""
    for packed in dict.fromkeys(r.get("edit") for r in found):
        if packed is not None:
            written = file.unpack_edit(packed)
            how = f"microgpt source --diff --link {shlex.quote('#edit=' + packed)}"
            ask_trust(written, trust, f"The file {path}", how)


# ---- parts ----


@click.command(short_help="Measure what each part of the model does.")
@click.option("--stored", is_flag=True, help="Show the table that comes with the package.")
@click.option("--out", type=FILE, metavar="FILE", help="Keep all runs here, to go on from.")
@click.option("--table", type=FILE, metavar="FILE", help="Write the table here, as JSON.")
@click.option("--picture", type=FILE, metavar="FILE", help="Draw it here: .svg, .png or .pdf.")
@jobs_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def parts(
    stored: bool, out: Path | None, table: Path | None, picture: Path | None, jobs: int,
    as_json: bool,
) -> int:  # fmt: skip
    """Take each part out of the model, on every set of data, and say what that does.

    \b
      microgpt parts --stored
      microgpt parts --stored --picture parts.svg
      microgpt parts --out runs.jsonl --table parts.json

    This takes a while (half an hour on two cores), and most of it for one control that Python
    itself has to run. Ctrl-C stops it, and with --out the same command goes on from there.
    """
    from microgpt.lab.parallel import spread

    if picture is not None:
        pictures.check(picture)
    if stored:
        found = lab_parts.stored()
    else:
        whole = lab_parts.Parts(out, spread(jobs))
        stopped = _perform(
            ((f"{s.data}, {s.about}" if s.about else s.data, p) for s, p in whole.run()), as_json
        )
        if stopped is not None:
            tell(_stopped(out))
            return 128 + stopped
        found = whole.plain(shlex.join(["microgpt", *sys.argv[1:]]))
    if table is not None:
        write(table, lab_parts.text(found).encode())
    if picture is not None:
        pictures.parts(found, picture)
    if as_json:
        print_json(found)
    else:
        _show_parts(found)
    return 0


MARKS = {"worse": "\N{BLACK DOWN-POINTING TRIANGLE}", "better": "\N{BLACK UP-POINTING TRIANGLE}"}


def _show_parts(found: Plain) -> None:
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for setting in found["settings"]:
        table.add_column(setting["data"] + (f" ({setting['about']})" if setting["about"] else ""))
    cells = {(c["variant"], *c["setting"].values()): c for c in found["cells"]}
    first = {tuple(c["setting"].values()): c for c in reversed(found["cells"])}
    places = [tuple(setting.values()) for setting in found["settings"]]
    table.add_row("all parts", *[_whole_model(first[place]) for place in places])
    for name in dict.fromkeys(c["variant"] for c in found["cells"]):
        table.add_row(name, *[_part(cells.get((name, *place))) for place in places])
    out.print(table)
    out.print(
        "\nExact answers, and by how many points they change; of names, the held-out loss.\n"
        f"{MARKS['worse']} worse, {MARKS['better']} better; where neither stands, the interval "
        "does not tell."
    )
    out.print(f"{found['command']}; {found['machine']}, {found['date']}, {found['commit']}")


def _whole_model(cell: Plain) -> str:
    d = cell["differences"][0]
    return f"{d['baseline']:.0%}" if d["metric"] == "exact" else f"{d['baseline']:.3f}"


def _part(cell: Plain | None) -> str:
    if cell is None or not cell["differences"]:
        return "failed" if cell else ""
    d = cell["differences"][0]
    size = f"{100 * d['difference']:+.0f}" if d["metric"] == "exact" else f"{d['difference']:+.3f}"
    return f"{size} {MARKS.get(cell['verdict'], '')}".replace("-", "\N{MINUS SIGN}").rstrip()


# ---- sweep ----


@click.command(short_help="Vary numbers of the file, and draw the curves.")
@click.argument("axes", nargs=-1, metavar="NUMBER=VALUES...")
@click.option("--baseline", default="", metavar="RECIPE", help="The program (the file itself).")
@click.option("--data", "name", default="names", metavar="DATA", help="Its data (names).")
@separator_option
@click.option(
    "--random", "drawn", type=WHOLE, metavar="N", help="Draw N settings instead of a grid."
)
@click.option("--seeds", type=COUNT, metavar="N", help=f"Runs of each setting ({lab_sweep.SEEDS}).")
@bench_options
@click.option("--picture", type=FILE, metavar="FILE", help="Draw the curves: .svg, .png or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def sweep(
    axes: tuple[str, ...],
    baseline: str,
    name: str,
    separator: str | None,
    drawn: int | None,
    seeds: int | None,
    seed: int | None,
    steps: int | None,
    batch: int | None,
    budget: float | None,
    engine: str,
    jobs: int,
    out: Path | None,
    picture: Path | None,
    as_json: bool,
) -> int:
    """Train a program with many values of its numbers, on a grid or at random.

    \b
      microgpt sweep lr=0.001,0.003,0.01 --picture lr.svg
      microgpt sweep n_embd=4,8,16,32 lr=0.003,0.01
      microgpt sweep lr=0.001:0.1 n_layer=1:4 --random 20

    Where models of four sizes or more are among them, a power law is fitted to the loss of
    the best of each size, with what its exponent may be. A sweep that was stopped or killed
    goes on with --out: what is in the file is not run again.
    """
    from microgpt.lab.parallel import spread

    if picture is not None:
        pictures.check(picture)
    given = {"steps": steps, "batch": batch}
    first, count = FIRST_SEED if seed is None else seed, lab_sweep.SEEDS if seeds is None else seeds
    (task,) = _tasks([name], separator)
    whole = lab_sweep.Sweep(
        [lab_sweep.axis(text) for text in axes], baseline, task,
        list(range(first, first + count)), drawn=drawn, results=out, spread=spread(jobs),
        numbers={key: value for key, value in given.items() if value is not None},
        budget=budget, engine=engine,
    )  # fmt: skip
    for sentence in whole.left_out:
        tell(sentence)
    stopped = _perform(((at.newest["program"], at) for at in whole.run()), as_json)
    points = whole.points()
    laws = lab_sweep.laws(points)
    if as_json:
        for point in points:
            print_json({"event": "point", **point.plain()})
        for size, law in laws.items():
            print_json({"event": "power law", "of": size, **vars(law)})
    else:
        _show_sweep(whole, points, laws)
    if picture is not None and points:
        pictures.sweep(points, [one.name for one in whole.axes], laws, picture)
    if stopped is not None:
        tell(_stopped(out))
        return 128 + stopped
    if not whole.whole:
        tell("The budget is used up, and not all was run; --out FILE keeps what was.")
    return 0 if any(point.held_out for point in points) else 1


def _show_sweep(
    whole: lab_sweep.Sweep, points: Sequence[lab_sweep.Point], laws: dict[str, lab_sweep.PowerLaw]
) -> None:
    from rich.table import Table

    out = console()
    out.print(f"{printable(whole.corpus.name)}, {counted(len(whole.settings), 'setting')}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    exact = any(point.exact for point in points)
    names = [one.name for one in whole.axes]
    for title in [*names, "held-out loss", *(["exact"] if exact else []), "weights", "runs"]:
        table.add_column(title, justify="right", no_wrap=True)
    best = min(
        (point for point in points if point.held_out),
        key=lambda point: point.held_out.mean if point.held_out else math.inf, default=None,
    )  # fmt: skip
    for point in points:
        good = sum(not r["failed"] for r in point.runs)
        runs = f"{good}" if good == len(point.runs) else f"{good} of {len(point.runs)}"
        cells = [f"{point.numbers[name]:g}" for name in names]
        cells.append(_spread(point.held_out) + (" <" if point is best else "  "))
        cells += [f"{point.exact.mean:.1%}" if point.exact else ""] if exact else []
        table.add_row(*cells, f"{point.parameters:,}" if point.parameters else "", runs)
    out.print(table)
    out.print()
    if best is not None:
        out.print("< has the lowest loss.")
    said = dict.fromkeys(r["failed"] for point in points for r in point.runs if r["failed"])
    for sentence in said:
        out.print(printable(f"A run failed: {sentence}"))
    for size, law in laws.items():
        floor = f"{law.floor:.3f} + " if law.floor > 0 else ""
        out.print(
            f"Loss against {size}: {floor}{law.scale:.3g} x {size} ^ -{law.exponent:.3g}; the "
            f"exponent is {law.range}, by {law.sizes} sizes."
        )


def _spread(found: Interval | None) -> str:
    if found is None:
        return "no run"
    if not math.isfinite(found.low):
        return f"{found.mean:.3f}"
    return f"{found.mean:.3f} \N{PLUS-MINUS SIGN} {found.high - found.mean:.3f}"


# ---- diagnose ----


@click.command(short_help="Say what is wrong with a model, or show what can be.")
@click.argument("what", required=False, metavar="[FAILURE|RECIPE]")
@click.option("--data", "name", metavar="DATA", help="Its data (names, or those of the failure).")
@separator_option
@click.option("--seed", type=COUNT, metavar="N", help=f"Of the run ({FIRST_SEED}).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diagnose(
    what: str | None, name: str | None, separator: str | None, seed: int | None, as_json: bool
) -> int:
    """Train a program, and read off the model what is wrong with it.

    \b
      microgpt diagnose                  a gallery of failures
      microgpt diagnose dead-relus       one of them
      microgpt diagnose lr=0.3 --data sort

    What is looked at: the losses, gradients block by block, cells that no ReLU lets through,
    how much better documents learnt from are known than others, how many of its texts are
    copies, and whether it sees the future.
    """
    if what is None:
        return _gallery(as_json)
    one = lab_diagnosis.failure(what)
    corpus: str | Corpus = "names" if name is None else _tasks([name], separator)[0]
    if one is not None and name is None:
        corpus = lab_diagnosis.corpus_of(one)
    corpus = data.load(corpus) if isinstance(corpus, str) else corpus
    usual = one is None or one.documents is None
    program = numbered(what if one is None else one.recipe, corpus, {}, usual=usual)
    run = Run(program.source, corpus, seed=FIRST_SEED if seed is None else seed, engine="fast")
    ended = None
    try:
        while not run.done:
            run.advance_by(run.steps or 1)
    except DivergedError as error:
        ended = error.message
    findings = (
        [lab_diagnosis.Finding("diverged", ended, {"step": float(run.step + 1)})]
        if ended
        else lab_diagnosis.diagnose(run)
    )
    if as_json:
        told = [finding.plain() for finding in findings]
        print_json({"program": program.name, "data": corpus.name, "findings": told})
        return 0
    out = console()
    out.print(printable(f"{one.title if one else program.name}, on {corpus.name}"), style="bold")
    for finding in findings:
        out.print(printable(f"- {finding.sentence}"))
    if not findings:
        out.print("Nothing is wrong that can be told from outside.")
    if one is not None:
        out.print(f"What mends it: {one.advice[0].lower()}{one.advice[1:]}")
    return 0


def _gallery(as_json: bool) -> int:
    if as_json:
        print_json({"failures": [vars(one) for one in lab_diagnosis.GALLERY]})
        return 0
    out = console()
    width = max(len(one.name) for one in lab_diagnosis.GALLERY)
    for one in lab_diagnosis.GALLERY:
        out.print(f"  {one.name:{width}}  {one.title} ({one.recipe} on {one.data})")
    out.print("\nmicrogpt diagnose NAME trains one, and says what is wrong with it.")
    return 0


COMMANDS = (variants, compare, parts, sweep, diagnose, rerun)
