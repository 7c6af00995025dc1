"""The command `microgpt`: the explainer, and the same model in the terminal.

Whatever a person can do wrong ends in one sentence on standard error and an exit code: 2 for a
command that cannot be meant, 130 after Ctrl-C, 1 for the rest.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import shlex
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import microgpt
from microgpt import checkpoint, data
from microgpt import source as file
from microgpt.cli import experiments
from microgpt.cli.terminal import (
    COUNT,
    FILE,
    NUMBER,
    POSITIVE,
    WHOLE,
    Commands,
    Plain,
    Stopped,
    ask_trust,
    changed,
    checkpoint_option,
    console,
    corpus_of,
    counted,
    data_argument,
    duration,
    link_option,
    linked_corpus,
    named,
    on_terminal,
    print_json,
    print_no_more,
    printable,
    read_program,
    repr_short,
    shown_text,
    sizes_options,
    source_option,
    stoppable,
    tell,
    text_option,
    token,
    trust_option,
    undisturbed,
)
from microgpt.errors import MicrogptError
from microgpt.run import ASKED, ENGINES, HELD_OUT, DivergedError, Run

if TYPE_CHECKING:
    from rich.text import Text


SAVE_EVERY = 100  # steps between two writes of the checkpoint
REFRESH = 0.1  # seconds between two drawings of the progress bar
FEW = 3  # texts that are shown while training goes on


# ---- The command ----


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"microgpt {microgpt.__version__}")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="microgpt COMMAND --help says more about each, with examples.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Print the version.",
)  # fmt: skip
def main() -> None:
    """A whole GPT in one file of 150 lines, to read, run, take apart and edit.

    \b
      microgpt               open the explainer in the browser
      microgpt train         train a model here, on names
      microgpt xray anna     every value of every line
    """


# ---- serve, export, source ----


@main.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Instead of the first free one from 8150.",
)
@click.option("--no-open", is_flag=True, help="Do not open the browser.")
def serve(port: int | None, no_open: bool) -> None:
    """Open the explainer in the browser, served on this machine alone.

    \b
      microgpt                 the same, for short
      microgpt serve --port 9000
      microgpt --no-open       print the address, open nothing

    Ctrl-C ends it.
    """
    from microgpt import site

    site.serve(port=port, open_browser=not no_open)
    tell("The explainer has ended.")


@main.command(short_help="Write the explainer as a static site.")
@click.argument("folder", type=FILE)
def export(folder: Path) -> None:
    """Write the explainer to FOLDER as a static site, for any web server.

    \b
      microgpt export public
      python -m http.server -d public
    """
    from microgpt import site

    site.export(folder)


@main.command(short_help="Print the file.")
@click.option("--path", is_flag=True, help="Print where the file is.")
@click.option("--diff", is_flag=True, help="Print how it differs from the gpt.py of this package.")
@click.option(
    "--checkpoint", "checkpoint_file", type=FILE, metavar="FILE",
    help="The program inside a checkpoint; it is read, not run.",
)  # fmt: skip
@link_option
def source(path: bool, diff: bool, checkpoint_file: Path | None, link: str | None) -> None:
    """Print the file: the whole model, its training and its sampling.

    \b
      microgpt source
      microgpt source > mine.py           a copy to edit,
      microgpt train --source mine.py     and to train
      microgpt source --checkpoint names.safetensors --diff
    """
    if path:
        click.echo(file.PATH)
        return
    text = file.ORIGINAL
    if checkpoint_file is not None:
        text = checkpoint.read(checkpoint_file).source
    elif link is not None:
        text = file.decode_link(link).get("source", file.ORIGINAL)
    if diff:
        text = file.diff(file.ORIGINAL, text)
        if not text:
            tell("There is no difference.")
            return
    if on_terminal():
        from rich.syntax import Syntax

        kind = "diff" if diff else "python"
        console().print(
            Syntax(
                printable(text).rstrip(),
                kind,
                line_numbers=not diff,
                theme="ansi_dark",
                word_wrap=True,
            )
        )
    else:
        click.echo(text, nl=not text.endswith("\n"))


# ---- train ----


@main.command(short_help="Train a model.")
@data_argument
@text_option
@click.option("--steps", type=WHOLE, metavar="N", help="Training steps (1000).")
@click.option("--batch", type=WHOLE, metavar="N", help="Documents in each step (1).")
@click.option("--lr", type=POSITIVE, metavar="X", help="Learning rate of the first step (0.01).")
@click.option("--seed", type=COUNT, metavar="N", help="Decides first weights and order (42).")
@sizes_options
@source_option
@link_option
@click.option("--out", type=FILE, metavar="FILE", help="Save the run in this checkpoint.")
@click.option(
    "--save-every",
    type=WHOLE,
    metavar="N",
    default=SAVE_EVERY,
    help="Steps between two saves (100).",
)
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint that is there already.")
@click.option("--resume", type=FILE, metavar="FILE", help="Go on with the run in a checkpoint.")
@click.option(
    "--every",
    type=WHOLE,
    metavar="N",
    help="Steps between two looks at it (a fifth of all).",
)
@click.option("--samples", type=COUNT, metavar="N", default=10, help="New texts at the end (10).")
@click.option("--temperature", type=NUMBER, metavar="X", help="Of the samples (1).")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=ENGINES[0],
    help="fast compiles the program, where it can (fast).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@trust_option
@click.pass_context
def train(
    ctx: click.Context,
    data_name: str | None,
    text: str | None,
    steps: int | None,
    batch: int | None,
    lr: float | None,
    seed: int | None,
    n_layer: int | None,
    n_head: int | None,
    n_embd: int | None,
    block_size: int | None,
    std: float | None,
    source_file: Path | None,
    link: str | None,
    out: Path | None,
    save_every: int,
    overwrite: bool,
    resume: Path | None,
    every: int | None,
    samples: int,
    temperature: float | None,
    engine: str,
    as_json: bool,
    trust: bool,
) -> int:
    """Train a model on DATA: a data set's name, or a text file, one document a line.

    \b
      microgpt train           on the bundled names
      microgpt train sort --steps 3000 --batch 8
      microgpt train poems.txt --out poems.safetensors
      microgpt train poems.txt --resume poems.safetensors
      microgpt train --json | jq .loss

    Ctrl-C stops; with --out the run is saved, and --resume goes on exactly as if it had
    never stopped.
    """
    sizes: dict[str, float | None] = {
        "n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "block_size": block_size,
        "std": std,
    }  # fmt: skip
    until = None
    program = source_file
    if resume is not None:
        fixed: Plain = {"steps": steps, "batch": batch, "lr": lr, "seed": seed}
        fixed |= {"source": source_file, "link": link, **sizes}
        given = next((name for name, value in fixed.items() if value is not None), None)
        if given is not None:
            option = "--" + given.replace("_", "-")
            raise click.UsageError(
                f"--resume goes on with a run as it was begun; leave out {option}", ctx
            )
        run = _load(resume, corpus_of(data_name, text), trust)
        program = resume
        if run.data_problem is not None and not run.done:
            raise MicrogptError(run.data_problem)
        out = resume if out is None else out
    else:
        state: Plain = {}
        if link is not None:
            if source_file is not None:
                raise click.UsageError("--link and --source cannot both say what to run", ctx)
            state = file.decode_link(link)
        corpus = corpus_of(data_name, text) or linked_corpus(state)
        written = read_program(source_file) if source_file else state.get("source", file.ORIGINAL)
        if link is not None:
            ask_trust(written, trust, "This link", "microgpt source --diff --link URL")
        seed = state.get("seed", 42) if seed is None else seed
        until = state.get("step") or None
        if temperature is None:
            temperature = state.get("temperature")
        with named(program):
            run = Run(
                written, corpus, seed=seed, steps=steps, batch=batch, lr=lr, vocab=None,
                engine=engine, **sizes,
            )  # fmt: skip
    if resume is not None:
        run.use(engine)
    if out is not None:
        _check_out(run, out, resume, overwrite, ctx)
        if not run.resumable:
            tell(
                "This source's train takes no start and moments: the run can be saved, not "
                "continued."
            )
    named_data = "--text TEXT" if text is not None else shlex.quote(data_name or "")
    learns_from = "" if run.corpus.name in data.DATASETS else named_data + " "
    report = Json() if as_json else Bar() if on_terminal() else Lines()
    training = Training(run, report, out, save_every, every, until, learns_from)
    with named(program):
        return training.go(samples, 1.0 if temperature is None else temperature)


class Training:
    """The loop of `microgpt train`: steps, looks, saves, and an end that loses nothing."""

    def __init__(
        self,
        run: Run,
        report: Report,
        out: Path | None,
        save_every: int,
        every: int | None,
        until: int | None,
        learns_from: str,
    ) -> None:
        self.run, self.report, self.out, self.save_every = run, report, out, save_every
        self.steps = run.steps if until is None else min(until, run.steps or until)
        self.every = every or max(100, (run.steps or 0) // 5)
        self.learns_from = learns_from  # what to write in front of --resume, to go on
        self.saved: int | None = None  # the step that is in the file
        self.warned = False

    def go(self, samples: int, temperature: float) -> int:
        """Train to the end; the exit code."""
        run = self.run
        with stoppable():
            try:
                note = run.prepare()
                if note is not None:
                    tell(note)
                with self.report:
                    self.report.begin(run, self.steps)
                    with contextlib.redirect_stdout(self.report.aside or sys.stdout):
                        self._steps(temperature)
                    failed = self._save_at_the_end()
                    look = Look.at(run, samples, temperature, seed=run.seed, exact=True)
                    self.report.end(run, look, self.out, failed is None)
            except Stopped as stop:
                with undisturbed():
                    return self._stopped(stop)
            except OSError:  # whoever read what is printed is gone: a closed pipe or terminal
                with undisturbed():
                    self._last_save()
                print_no_more()
                return 1
            except DivergedError as error:
                self._add(error, self.saved)
                raise
            except MicrogptError as error:
                if self.saved != run.step:
                    self._last_save()
                self._add(error, self.saved)
                raise
        if failed is not None:
            raise failed
        return 0

    def _save_at_the_end(self) -> MicrogptError | None:
        """Save, and say why not when it fails: what was learnt is shown all the same."""
        if self.out is not None and self.saved != self.run.step:
            try:
                self._save()
            except MicrogptError as error:
                return error
        return None

    def _steps(self, temperature: float) -> None:
        run = self.run
        while not run.done and (self.steps is None or run.step < self.steps):
            before = run.step
            run.advance_by(self._until_something() - before, REFRESH)
            self.report.steps(run, before)
            last = run.done or run.step == self.steps
            if self.out is not None and run.step % self.save_every == 0 and not last:
                self._save_or_warn()
            if run.step % self.every == 0 and not last:
                self.report.look(run, Look.at(run, FEW, temperature, seed=run.step))

    def _until_something(self) -> int:
        """The next step at which there is more to do than training."""
        step = self.run.step
        ends = [step + gap - step % gap for gap in (self.every, self.save_every)]
        return min([*ends, *[end for end in (self.steps, self.run.steps) if end is not None]])

    def _save(self) -> None:
        assert self.out is not None
        with undisturbed():
            checkpoint.save(self.run, self.out)
            self.saved = self.run.step
        self.report.save(self.run, self.out)

    def _save_or_warn(self) -> None:
        """A full disk in the middle of a long run is no reason to end it: there may be room
        later."""
        try:
            self._save()
        except MicrogptError as error:
            if not self.warned:
                tell(f"{error.message} Training goes on, and the next save is tried as planned.")
            self.warned = True

    def _last_save(self) -> None:
        """Save what there is, when something has gone wrong already."""
        if self.out is not None and self.run.whole and self.run.step:
            try:
                with undisturbed():
                    checkpoint.save(self.run, self.out)
                    self.saved = self.run.step
            except MicrogptError as error:
                tell(error.message)

    def _add(self, error: MicrogptError, saved: int | None) -> None:
        if self.out is not None:
            error.message += (
                f" Nothing has been saved in {self.out} yet."
                if saved is None
                else f" {self.out} holds step {saved:,}."
            )

    def _stopped(self, stop: Stopped) -> int:
        run = self.run
        if self.out is not None and self.saved != run.step:
            self._last_save()
        of = "" if self.steps is None else f" of {self.steps:,}"
        where = f"Stopped after step {run.step:,}{of}"
        if self.out is None:
            tell(f"{where}; nothing was saved, because no --out FILE was given.")
        elif self.saved is None:
            tell(f"{where}; there is nothing to save.")
        elif run.resumable and not run.done:
            tell(f"{where}; step {self.saved:,} is saved in {self.out}. To go on:")
            again = f"microgpt train {self.learns_from}--resume {shlex.quote(str(self.out))}"
            again += _trusting(run)
            with contextlib.suppress(OSError):
                click.echo(f"  {again}", err=True)
        else:
            tell(f"{where}; step {self.saved:,} is saved in {self.out}.")
        return 128 + stop.number


@dataclass(frozen=True)
class Look:
    """What a run can do at a step: its held-out loss, its exact answers, a few texts."""

    held_out: float | None  # nats a token; None when no document is held out
    read: int  # the documents that it was measured on
    exact: float | None  # the share of exact answers; None where the data are no task
    asked: int  # the documents that they were asked of
    temperature: float
    texts: list[tuple[str, bool]]  # each text, and whether it is in the data

    @classmethod
    def at(cls, run: Run, n: int, temperature: float, *, seed: int, exact: bool = False) -> Look:
        """Look at a run as it is now."""
        kept = len(run.held_out_docs)
        texts = run.sample(n, temperature=temperature, seed=seed)
        return cls(
            held_out=run.held_out_loss() if kept else None,
            read=min(kept, HELD_OUT),
            exact=run.exact_answers() if kept and exact and run.corpus.separator else None,
            asked=min(kept, ASKED),
            temperature=temperature,
            texts=[(text, run.knows(text)) for text in texts],
        )

    def plain(self) -> Plain:
        """As JSON has it."""
        return {
            "held_out": self.held_out, "exact": self.exact, "temperature": self.temperature,
            "samples": [{"text": text, "known": known} for text, known in self.texts],
        }  # fmt: skip


def _trusting(run: Run) -> str:
    """What a command needs besides, to run the program of this run again."""
    return "" if run.source == file.ORIGINAL else " --trust"


class Report:
    """How training is told while it goes on."""

    aside: Any = None  # where the source's own prints go, when not to standard output

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def begin(self, run: Run, until: int | None) -> None:
        """Training starts, up to a step."""

    def steps(self, run: Run, before: int) -> None:
        """The steps after `before` are done."""

    def look(self, run: Run, look: Look) -> None:
        """The run was looked at, between two steps."""

    def save(self, run: Run, out: Path) -> None:
        """The run was saved."""

    def end(self, run: Run, look: Look, out: Path | None, saved: bool) -> None:
        """Training is over, and the run was looked at for the last time."""


class Json(Report):
    """One JSON object a line; its `event` is start, step, look, save or end."""

    def __init__(self) -> None:
        self.stream = sys.stdout
        self.aside = sys.stderr
        self.started = time.monotonic()

    def _print(self, event: str, run: Run, **facts: Any) -> None:
        print_json({"event": event, "step": run.step, **facts}, self.stream)

    def begin(self, run: Run, until: int | None) -> None:
        self._print(
            "start", run, steps=run.steps, until=until, batch=run.batch, lr=run.lr, seed=run.seed,
            sizes=run.sizes, weights=run.parameters, vocab=run.vocab, baseline=run.baseline,
            engine=run.engine, data=run.corpus.name, train_docs=len(run.train_docs),
            held_out_docs=len(run.held_out_docs), edited=run.source != file.ORIGINAL,
        )  # fmt: skip

    def steps(self, run: Run, before: int) -> None:
        for step in range(before + 1, run.step + 1):
            told = {"loss": run.losses[step - 1], "smoothed": run.smoothed(step=step)}
            print_json({"event": "step", "step": step, **told}, self.stream)

    def look(self, run: Run, look: Look) -> None:
        self._print("look", run, **look.plain())

    def save(self, run: Run, out: Path) -> None:
        self._print("save", run, file=str(out))

    def end(self, run: Run, look: Look, out: Path | None, saved: bool) -> None:
        seconds = round(time.monotonic() - self.started, 3)
        self._print("end", run, baseline=run.baseline, seconds=seconds, **look.plain())


class Lines(Report):
    """Plain lines, for a file or a pipe."""

    tells_left = True  # whether a look says how much time is left

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.first = 0  # the step that this command began at
        self.until: int | None = None
        self.looked = False

    def say(self, line: str = "") -> None:
        click.echo(line)

    def begin(self, run: Run, until: int | None) -> None:
        self.first, self.until = run.step, until
        size = len(run.vocab)
        self.say(
            f"{printable(run.corpus.name)}: {counted(len(run.train_docs), 'document')}, "
            f"{len(run.held_out_docs):,} more held out, {counted(size, 'token')}"
        )
        words = (("n_layer", "layer"), ("n_head", "head"), ("n_embd", "channel"))
        shape = [counted(int(run.sizes[name]), word) for name, word in words if name in run.sizes]
        shape += [] if run.context is None else [f"context {run.context}"]
        self.say(f"{counted(run.parameters, 'weight')}: {', '.join(shape)}")
        if run.source != file.ORIGINAL:
            self.say(f"gpt.py with {changed(run.source)}")
        plan = "" if run.steps is None else counted(run.steps, "step")
        plan += "" if run.batch is None else f" of {counted(run.batch, 'document')}"
        plan += "" if run.lr is None else f", learning rate {run.lr:g}"
        self.say(f"{plan}, seed {run.seed}".lstrip(", "))
        enough = data.DATASETS.get(run.corpus.name)
        given = (run.steps or 0) * (run.batch or 1)
        task = run.corpus.separator is not None and not run.step
        if enough is not None and task and given < enough["steps"] * enough["batch"]:
            self.say(
                f"To learn {run.corpus.name} well, --steps {enough['steps']} --batch "
                f"{enough['batch']} are enough."
            )
        if run.step and not run.done:
            self.say(f"Going on after step {run.step:,}.")
        self.say(f"A guess among {size} tokens scores ln {size} = {run.baseline:.3f}.")
        self.say()

    def look(self, run: Run, look: Look) -> None:
        width = len(f"{self.until or run.step:,}")
        measured = "" if look.held_out is None else f"  held out {look.held_out:.3f}"
        left = f"  {self.left(run)} left" if self.tells_left and self.left(run) else ""
        shown = "  ".join(shown_text(text) for text, _ in look.texts)
        loss = f"step {run.step:>{width},}  loss {run.smoothed():.3f}"
        self.say(f"{loss}{measured}{left}  {shown}".rstrip())
        self.looked = True

    def left(self, run: Run) -> str | None:
        """The time that is left, at the pace so far."""
        done = run.step - self.first
        if self.until is None or not done:
            return None
        return duration((time.monotonic() - self.started) / done * (self.until - run.step))

    def end(self, run: Run, look: Look, out: Path | None, saved: bool) -> None:
        done, size = run.step - self.first, len(run.vocab)
        if self.looked:
            self.say()
        if done:
            took = duration(time.monotonic() - self.started)
            self.say(f"{counted(done, 'step')} in {took}; loss {run.smoothed():.3f}.")
        else:
            self.say(f"This run is finished: {counted(run.step, 'step')} done.")
        if look.held_out is not None:
            self.say(
                f"Held-out loss {look.held_out:.3f} a token, on {counted(look.read, 'document')} "
                f"never trained on; a guess among {size} scores {run.baseline:.3f}."
            )
            if not look.held_out < run.baseline:
                self.say("That is no better than a guess; try a lower --lr, or more --steps.")
        if look.exact is not None:
            self.say(
                f"Exact answers {look.exact:.0%}, on {counted(look.asked, 'document')} held out."
            )
        if look.texts:
            known = sum(known for _, known in look.texts)
            texts = counted(len(look.texts), "text")
            self.say()
            self.say(f"{texts} at temperature {look.temperature:g}, {known or 'none'} in the data:")
            for text, is_known in look.texts:
                self.say(f"  {shown_text(text)}{'  (in the data)' if is_known else ''}")
        self.say()
        if out is None:
            self.say("This run is not saved; --out FILE saves one.")
        elif saved:
            again = f"microgpt sample {shlex.quote(str(out))}{_trusting(run)}"
            self.say(f"Saved in {out}. Sample from it: {again}")


class Bar(Lines):
    """The same lines, above a bar that moves and says how much time is left."""

    tells_left = False

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        super().__init__()
        self.console = console()
        self.progress = Progress(
            BarColumn(bar_width=max(6, min(40, self.console.width - 46))),
            TextColumn("{task.fields[words]}", markup=False),
            console=self.console,
            auto_refresh=False,
            transient=True,
        )
        self.task = self.progress.add_task("", words="")
        self.drawn = 0.0

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def say(self, line: str = "") -> None:
        self.console.print(line)

    def begin(self, run: Run, until: int | None) -> None:
        super().begin(run, until)
        self.progress.update(self.task, total=until, completed=run.step)
        if not run.done:
            self.progress.start()

    def steps(self, run: Run, before: int) -> None:
        if time.monotonic() - self.drawn >= REFRESH:
            self._draw(run)

    def _draw(self, run: Run) -> None:
        self.drawn = time.monotonic()
        of = f"/{self.until:,}" if self.until is not None else ""
        words = f"{run.step:,}{of}  loss {run.losses[-1]:.2f}, mean {run.smoothed():.2f}"
        words += f"  {self.left(run)} left" if self.left(run) else ""
        self.progress.update(self.task, completed=run.step, words=words)
        self.progress.refresh()

    def end(self, run: Run, look: Look, out: Path | None, saved: bool) -> None:
        self.progress.stop()
        super().end(run, look, out, saved)


# ---- sample ----


@main.command(short_help="New texts from a trained model.")
@click.argument("checkpoint_file", metavar="FILE", type=FILE)
@click.option("-n", "--number", type=COUNT, metavar="N", help="How many (10; with --probs 1).")
@click.option(
    "--temperature",
    type=NUMBER,
    metavar="X",
    default=1.0,
    help="Below 1 more careful, above 1 more daring, 0 always the likeliest token (1).",
)
@click.option("--prefix", metavar="TEXT", default="", help="What each text begins with.")
@click.option("--seed", type=COUNT, metavar="N", default=0, help="Same seed, same texts (0).")
@click.option("--probs", is_flag=True, help="Show what each token was drawn from, as bars.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@trust_option
def sample(
    checkpoint_file: Path,
    number: int | None,
    temperature: float,
    prefix: str,
    seed: int,
    probs: bool,
    as_json: bool,
    trust: bool,
) -> None:  # fmt: skip
    """New texts from the model in FILE, a checkpoint.

    \b
      microgpt train --out names.safetensors
      microgpt sample names.safetensors
      microgpt sample names.safetensors -n 3 --prefix an
      microgpt sample names.safetensors --probs
    """
    run = _load(checkpoint_file, None, trust)
    rng = random.Random(seed)
    with named(checkpoint_file):
        for _ in range((1 if probs else 10) if number is None else number):
            steps = list(run.sample_steps(prefix, temperature, rng))
            text = (steps[-1][0] if steps else prefix).removesuffix("\n")
            known = run.knows(text) if run.corpus.docs else None
            if as_json:
                line: Plain = {"text": text, "known": known}
                print_json(line | ({"steps": _plain_steps(run, prefix, steps)} if probs else {}))
                continue
            if probs:
                _show_steps(run, prefix, steps)
            click.echo(f"{shown_text(text)}{'  (in the data)' if known else ''}")


def _plain_steps(run: Run, prefix: str, steps: list[tuple[str, list[float]]]) -> list[Plain]:
    before, plain = prefix, []
    for text, probs in steps:
        plain.append(
            {"token": text[len(before) :], "probs": dict(zip(run.vocab, probs, strict=False))}
        )
        before = text
    return plain


def _show_steps(run: Run, prefix: str, steps: list[tuple[str, list[float]]], most: int = 5) -> None:
    """Each token with the likeliest candidates as bars, and a mark at the one that was drawn."""
    room = max(10, min(40, console().width - 24))
    before = prefix
    for text, probs in steps:
        if len(probs) != len(run.vocab):
            raise MicrogptError("This source's sample has no list called probs, so none is shown.")
        drawn, total = text[len(before) :], sum(probs)
        order = sorted(range(len(probs)), key=lambda i: -probs[i])
        shown = [i for rank, i in enumerate(order) if rank < most or run.vocab[i] == drawn]
        click.echo(f'after "{printable(before)}"')
        for i in shown:
            share = probs[i] / total
            mark = ">" if run.vocab[i] == drawn else " "
            row = f"  {mark} {token(run.vocab[i]):<5} {share:6.1%} {'█' * round(share * room)}"
            click.echo(row.rstrip())
        if len(shown) < len(probs):
            share = max(0.0, 1 - sum(probs[i] for i in shown) / total)
            click.echo(f"    {len(probs) - len(shown)} others together {share:.1%}")
        click.echo()
        before = text


# ---- xray ----


@main.command(short_help="Every value of every line.")
@click.argument("text", required=False)
@click.option(
    "--line",
    "lines",
    type=WHOLE,
    metavar="N",
    multiple=True,
    help="Only what this line of the file made, in full.",
)
@click.option(
    "--name",
    "names",
    metavar="NAME",
    multiple=True,
    help="Only values of this name, in full: scores, wq, blocks.0.fc.",
)
@click.option("--all", "everything", is_flag=True, help="Also arguments, and plain functions.")
@click.option("--data", "data_name", metavar="DATA", help="Whose vocabulary to use (names).")
@click.option("--seed", type=COUNT, metavar="N", help="Of the first weights (42).")
@source_option
@checkpoint_option
@link_option
@click.option("--json", "as_json", is_flag=True, help="Print all of it, as one JSON object.")
@trust_option
@click.pass_context
def xray(
    ctx: click.Context,
    text: str | None,
    lines: tuple[int, ...],
    names: tuple[str, ...],
    everything: bool,
    data_name: str | None,
    seed: int | None,
    source_file: Path | None,
    checkpoint_file: Path | None,
    link: str | None,
    as_json: bool,
    trust: bool,
) -> None:  # fmt: skip
    """Every value of every line, while the file takes one training step on TEXT (anna).

    \b
      microgpt xray anna
      microgpt xray anna --name weights    who attends to whom
      microgpt xray anna --line 101        q, k and v in full
      microgpt xray --checkpoint names.safetensors
      microgpt xray --json | jq .loss

    Of each matrix the last row is shown, with its gradient; --line and --name show every
    row. On a terminal numbers are shaded by size: orange above zero, blue below.
    """
    from microgpt.xray import finite
    from microgpt.xray import xray as look

    ways = {"--source": source_file, "--checkpoint": checkpoint_file, "--link": link}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} cannot both say what to run", ctx)
    program = source_file or checkpoint_file
    document = text
    if checkpoint_file is not None:
        if seed is not None:
            raise click.UsageError("--seed makes new weights, and --checkpoint has its own", ctx)
        run = _load(checkpoint_file, corpus_of(data_name, None), trust)
    else:
        state: Plain = {} if link is None else file.decode_link(link)
        written = read_program(source_file) if source_file else state.get("source", file.ORIGINAL)
        if link is not None:
            ask_trust(written, trust, "This link", f"microgpt source --diff --link {link}")
        seed = state.get("seed", 42) if seed is None else seed
        document = state.get("text") if text is None else text
        with named(program):
            run = Run(written, corpus_of(data_name, None) or linked_corpus(state), seed=seed)
    with named(program), stoppable():
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what the source itself prints
                record = look(
                    run.source, "anna" if document is None else document, vocab=run.vocab,
                    params=run.params, seed=run.seed, steps=run.steps, moments=run.moments,
                    start=run.step if run.steps is None else min(run.step, run.steps - 1),
                )  # fmt: skip
        except Stopped:
            raise KeyboardInterrupt from None
        record |= {"seed": run.seed, "data": run.corpus.name, "source": run.source}
        chosen = _chosen(record, set(lines), set(names), everything)
        if as_json:
            record["values"] = chosen if lines or names else record["values"]
            click.echo(json.dumps(finite(record), allow_nan=False))
        else:
            XrayView(record, full=bool(lines or names)).show(chosen)
        if record["error"]:
            raise MicrogptError(record["error"]["message"], line=record["error"]["line"])


def _chosen(record: Plain, lines: set[int], names: set[str], everything: bool) -> list[Plain]:
    """The values to show: those asked for, or those of functions that compute with tensors."""
    values: list[Plain] = record["values"]
    if lines or names:
        found = [v for v in values if not lines or v["line"] in lines]
        found = [v for v in found if not names or names & {v["name"], _weight(record, v)}]
        if not found:
            asked = [f"called {name}" for name in names] + [f"on line {n}" for n in sorted(lines)]
            known = dict.fromkeys(v["name"] for v in values if v["tensor"] is not None)
            raise MicrogptError(
                f"This step made nothing {printable(' or '.join(asked))}; some of its values are "
                f"{', '.join(list(known)[:30])}."
            )
        if everything or lines:
            return found
        arguments = _arguments(record)
        own = [v for v in found if v["i"] not in arguments] or found
        own = [v for v in own if v["kind"] != "text"] or own
        first = {v["tensor"]: v["i"] for v in reversed(own) if v["tensor"] is not None}
        return [v for v in own if v["tensor"] is None or first[v["tensor"]] == v["i"]]
    if everything:
        return values
    arguments = _arguments(record)
    own = [v for v in values if v["i"] not in arguments]
    made = {v["call"] for v in own if v["tensor"] is not None and _weight(record, v) is None}
    return [v for v in own if v["call"] in made and v["kind"] != "text"]


def _weight(record: Plain, value: Plain) -> str | None:
    """The path of the weight that a value is, if it is one."""
    place = value["tensor"]
    path: str | None = None if place is None else record["tensors"][place]["weight"]
    return path


def _arguments(record: Plain) -> set[int]:
    """The values that functions were called with: those on the line of a `def`, but for returns."""
    heads = {(f.name.rpartition(".")[2], f.first) for f in file.functions(record["source"])}
    values = record["values"]
    return {v["i"] for v in values if (v["function"], v["line"]) in heads and v["name"] != "return"}


class XrayView:
    """An x-ray on a terminal: each line of the file, and under it what that line made.

    Args:
        record: what `microgpt.xray.xray` returned, with the source beside it.
        full: show every row of a matrix, with labels, instead of the last one.
    """

    def __init__(self, record: Plain, *, full: bool) -> None:
        self.record, self.full = record, full
        self.console = console()
        self.code = record["source"].splitlines()
        self.tokens = [token(text) for text in record["tokens"]]
        self.vocab = [token(text) for text in record["vocab"]]

    def show(self, values: list[Plain]) -> None:
        """Print these values, in order, under their lines."""
        from rich.text import Text

        record = self.record
        size = len(self.vocab)
        scored = "and then an error"
        if record["loss"] is not None:
            guess = f"a guess among {size} scores {math.log(size):.4f}"
            scored = f"loss {record['loss']:.4f}, where {guess}"
        self.console.print(
            f'One training step on "{printable(record["doc"])}": '
            f"{counted(len(self.tokens), 'token')} in, {scored}.",
        )
        many = Counter((v["call"], v["line"], v["name"]) for v in values)
        seen: Counter[tuple[int, int, str]] = Counter()
        call, line = None, None
        for value in values:
            key = (value["call"], value["line"], value["name"])
            seen[key] += 1
            if many[key] > 8 and seen[key] > 2:
                if seen[key] == 3:
                    more = f"        {value['name']}: {many[key] - 2} more like these"
                    self._print(Text(more, style="dim"))
                continue
            if value["call"] != call:
                call, line = value["call"], None
                self._print(Text())
                self._print(Text(self._path(call), style="bold"))
            if value["line"] != line:
                line = value["line"]
                code = self.code[line - 1].strip() if 0 < line <= len(self.code) else ""
                self._print(Text.assemble((f"{line:>5}  ", "dim"), (printable(code), "cyan")))
            self._value(value)
        hidden = self._hidden(values)
        if hidden and not self.full:
            self._print(Text())
            self.console.print(f"Not shown: {hidden}; --all shows them.")

    def _print(self, text: Text) -> None:
        text.rstrip()
        self.console.print(text, no_wrap=True, overflow="ellipsis", crop=True)

    def _path(self, call: int) -> str:
        """The functions that a value was made in, outermost first."""
        labels = []
        place: int | None = call
        while place is not None:
            labels.append(self.record["calls"][place]["label"])
            place = self.record["calls"][place]["parent"]
        return " > ".join(reversed(labels))

    def _hidden(self, values: list[Plain]) -> str:
        shown = {value["call"] for value in values}
        names = [c["function"] for c in self.record["calls"] if c["id"] not in shown]
        parts = [f"{name} ({counted(count, 'call')})" for name, count in Counter(names).items()]
        return ", ".join(parts)

    def _value(self, value: Plain) -> None:
        from rich.text import Text

        name = "returned" if value["name"] == "return" else value["name"]
        weight = _weight(self.record, value)
        name = f"{name} = {weight}" if weight and weight != name and self.full else name
        tensor = None if value["tensor"] is None else self.record["tensors"][value["tensor"]]
        rows = tensor["data"] if tensor else value["data"] if value["kind"] == "matrix" else None
        if rows is None:
            said = value["data"]
            plain = ", ".join(self._item(x) for x in said) if isinstance(said, list) else None
            self._print(
                Text(f"       {name:<12} {plain if plain is not None else self._item(said)}")
            )
            return
        grad = tensor["grad"] if tensor else None
        if self.full:
            self._matrix(name, rows)
            if grad is not None:
                self._matrix(f"gradient of {name}", grad)
            return
        shape = f"{len(rows)} x {len(rows[0])}"
        text = Text(f"       {name:<12} {shape:<8} ")
        start, room = text.cell_len, self.console.width - text.cell_len
        both = room >= 70  # enough for the gradient on the same line
        each = (room - 10) // 2 if both and grad is not None else room
        text.append_text(self._last(rows, each))
        if grad is not None and not both:
            self._print(text)
            text = Text(f"{'gradient':>{start - 2}}  ").append_text(self._last(grad, room))
        elif grad is not None:
            text.pad_right(max(0, start + each + 1 - text.cell_len))
            text.append("gradient ").append_text(self._last(grad, each))
        self._print(text)

    def _item(self, item: Any) -> str:
        return f"{item:.6g}" if isinstance(item, float) else printable(repr_short(item))

    def _last(self, rows: list[list[float]], room: int) -> Text:
        """The last row of a matrix, as far as there is room for it."""
        width = len(rows[-1])
        most = max(1, room // 8 if width * 8 <= room else (room - 3) // 8)
        text = self._row(rows, -1, most)
        return text.append("...") if most < width else text

    def _row(self, rows: list[list[float]], index: int, most: int) -> Text:
        """One row's first numbers, each shaded by its share of the largest in the matrix."""
        from rich.text import Text

        top = max((abs(x) for row in rows for x in row if math.isfinite(x)), default=0.0)
        text = Text()
        for x in rows[index][:most]:
            text.append(f"{number(x):>7}", style=shade(x, top)).append(" ")
        return text

    def _matrix(self, name: str, rows: list[list[float]]) -> None:
        """All rows of a matrix, under the names of its columns where they are tokens."""
        from rich.text import Text

        width = len(rows[0])
        most = max(1, (self.console.width - 18) // 8)
        shown = min(width, most)
        cut = "" if shown == width else f", of which the first {shown} columns are shown"
        self._print(Text(f"       {name}, {len(rows)} x {width}{cut}", style="bold"))
        columns = self._labels(width, len(rows))
        if columns:
            self._print(Text(" " * 14 + " ".join(f"{label:>7}" for label in columns[:shown])))
        labels = self._labels(len(rows), len(rows)) or [str(i) for i in range(len(rows))]
        for row, label in enumerate(labels):
            text = Text(f"       {label:>6} ").append_text(self._row(rows, row, shown))
            self._print(text)

    def _labels(self, size: int, rows: int) -> list[str] | None:
        """What the rows or columns of a matrix stand for, where their number tells."""
        if size == len(self.tokens) == rows:
            return self.tokens
        return self.vocab if size == len(self.vocab) else None


def number(x: float) -> str:
    """A number in at most seven characters."""
    if x == 0 or not math.isfinite(x):
        return f"{x + 0.0:g}"  # no minus before a zero
    text = f"{x:.3g}" if 1e-2 <= abs(x) < 1e3 else f"{x:.1e}"
    return text.replace("e-0", "e-").replace("e+0", "e+")


WARM = ("", "white on #4d2e00", "white on #7a4700", "white on #a35f00")
COLD = ("", "white on #0b2a4a", "white on #15508c", "white on #1f6fc0")


def shade(x: float, top: float) -> str:
    """The background for a number: orange above zero, blue below, stronger the nearer to `top`."""
    if not math.isfinite(x):
        return "reverse"
    step = min(3, int(4 * abs(x) / top)) if top else 0
    return (WARM if x > 0 else COLD)[step]


def _load(path: Path, corpus: data.Corpus | None, trust: bool) -> Run:
    """The run in a checkpoint, once its program may be run."""
    saved = checkpoint.read(path)
    ask_trust(saved.source, trust, str(path), f"microgpt source --diff --checkpoint {path}")
    with named(path):
        return checkpoint.loads(saved, corpus=corpus, trust=True, name=str(path))


def _check_out(
    run: Run, out: Path, resume: Path | None, overwrite: bool, ctx: click.Context
) -> None:
    """Refuse a place for a checkpoint before hours of training, not after."""
    checkpoint.check_target(out, checkpoint.dumps(run))
    same = resume is not None and resume.exists() and out.exists() and out.samefile(resume)
    if out.exists() and out.stat().st_size and not same and not overwrite:
        raise click.UsageError(
            f"{out} holds a run already: --resume {out} goes on with it, --overwrite replaces it",
            ctx,
        )


for _command in experiments.COMMANDS:
    main.add_command(_command)
