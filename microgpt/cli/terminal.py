"""What the commands of `microgpt` share: how they fail, what they read, and how they write."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from microgpt import data
from microgpt import source as file
from microgpt.errors import MicrogptError
from microgpt.files import read
from microgpt.run import ArgumentError

if TYPE_CHECKING:
    from rich.console import Console

Plain = dict[str, Any]
Command = Callable[..., Any]


# ---- Errors ----


class Commands(click.Group):
    """`microgpt` alone means `microgpt serve`; every failure is told in one sentence."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help", "--version")):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def main(self, *args: Any, **options: Any) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        sys.exit(self._code(*args, **options))

    def _code(self, *args: Any, **options: Any) -> int:
        options["standalone_mode"] = False
        try:
            result = super().main(*args, **options)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "microgpt"
            tell(f"{_one_line(error)} See {where} --help.")
            return 2
        except click.ClickException as error:
            tell(_one_line(error))
            return 1
        except ArgumentError as error:
            tell(error.message)
            return 2
        except MicrogptError as error:
            tell(f"gpt.py, line {error.line}: {error.message}" if error.line else error.message)
            return 1
        except (click.Abort, KeyboardInterrupt):
            tell("Stopped.")
            return 130
        return result if isinstance(result, int) else 0


def _one_line(error: click.ClickException) -> str:
    said = " ".join(error.format_message().split())
    return said if said.endswith("?") else said.rstrip(".") + "."


def tell(sentence: str) -> None:
    """Say something to the person, on standard error."""
    sentence = sentence if sentence.endswith((".", "?", ":")) else sentence + "."
    with contextlib.suppress(OSError):  # nobody may be there any more to read it
        click.echo(f"microgpt: {sentence}", err=True)


@contextlib.contextmanager
def named(program: Path | None) -> Iterator[None]:
    """Give errors of an edited source the name that the person knows it by."""
    try:
        yield
    except MicrogptError as error:
        if error.line is None or program is None:
            raise
        error.message = f"{program}, line {error.line}: {error.message}"
        error.line = None
        raise


# ---- Stopping ----


class Stopped(KeyboardInterrupt):
    """Ctrl-C, or another request to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn the signals that ask a program to end into `Stopped`.

    A source may catch everything and go on; so the third request ends the process at once.
    """
    asked = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked >= 3:
            os._exit(128 + number)
        raise Stopped(number)

    wanted = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        wanted.append(signal.SIGHUP)
    before: dict[signal.Signals, Any] = {}
    try:
        for number in wanted:
            with contextlib.suppress(ValueError):  # not in the main thread: leave them alone
                before[number] = signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            # After a first request the process is ending: another must not tear its last words.
            signal.signal(number, signal.SIG_IGN if asked else handler)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C wait for the few milliseconds that saving takes."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def print_no_more() -> None:
    """Send to nowhere what is still to be printed, so that Python does not fail over it at the
    end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())


# ---- Options ----


def _whole(least: int) -> Callable[[Any], int]:
    """What reads an option as a whole number, `least` or more."""

    def convert(value: Any) -> int:
        try:
            number = int(str(value))
        except ValueError:
            raise click.BadParameter(f"{value} is not a whole number") from None
        if number < least:
            raise click.BadParameter(f"it must be {least} or more, not {number}")
        return number

    return convert


def _number(*, positive: bool) -> Callable[[Any], float]:
    """What reads an option as a finite number, 0 or more; above 0 when it must be positive."""

    def convert(value: Any) -> float:
        try:
            number = float(value)
        except ValueError:
            raise click.BadParameter(f"{value} is not a number") from None
        if not math.isfinite(number) or number < 0 or (positive and number == 0):
            wanted = "a number above 0" if positive else "a number, 0 or more"
            raise click.BadParameter(f"it must be {wanted}, not {value}")
        return number

    return convert


WHOLE, COUNT = _whole(1), _whole(0)
POSITIVE, NUMBER = _number(positive=True), _number(positive=False)
FILE = click.Path(path_type=Path)


def all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


sizes_options = all_of(
    click.option("--n-layer", type=WHOLE, metavar="N", help="Layers (1)."),
    click.option("--n-head", type=WHOLE, metavar="N", help="Attention heads of a layer (4)."),
    click.option("--n-embd", type=WHOLE, metavar="N", help="Channels, shared by the heads (16)."),
    click.option("--block-size", type=WHOLE, metavar="N", help="Context in tokens (16)."),
    click.option("--std", type=NUMBER, metavar="X", help="Spread of the first weights (0.08)."),
)
source_option = click.option(
    "--source", "source_file", type=FILE, metavar="FILE", help="An edited gpt.py, to run instead."
)
data_argument = click.argument("data_name", metavar="[DATA]", required=False)
text_option = click.option("--text", metavar="TEXT", help="The documents themselves, one a line.")
link_option = click.option(
    "--link", metavar="URL", help="A link of the page: its edit, its data and its seed."
)
trust_option = click.option(
    "--trust", is_flag=True, help="Run a program that came in a checkpoint or a link."
)
checkpoint_option = click.option(
    "--checkpoint", "checkpoint_file", type=FILE, metavar="FILE", help="A trained model."
)


# ---- What is read ----


def corpus_of(name: str | None, text: str | None) -> data.Corpus | None:
    """The data that were named, or given as text; None when neither was."""
    if name is not None and text is not None:
        raise click.UsageError("DATA and --text cannot both say what to learn from")
    if text is not None:
        return data.load(text + "\n")  # the line break says that it is text, not a name
    return None if name is None else data.load(name)


def linked_corpus(state: Plain) -> data.Corpus | None:
    """The data that a link names: a bundled set only, never a file of this machine."""
    name = state.get("data")
    if name is None:
        return None
    if name not in data.DATASETS:
        raise MicrogptError(
            f"This link names the data {printable(name)!r}, which are not bundled; give DATA."
        )
    return data.load(name)


def read_program(path: Path) -> str:
    """The text of an edited gpt.py.

    Raises:
        MicrogptError: there is no such file, or it is not text.
    """
    return read(path, 4 * file.LARGEST, "source")


def ask_trust(written: str, trust: bool, what: str, how: str) -> None:
    """Let a program that came from elsewhere run only after a yes."""
    if written == file.ORIGINAL or trust:
        return
    edit = changed(written)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise MicrogptError(
            f"{what} carries a program of its own, gpt.py with {edit}, and this would run it; read "
            f"it first ({how}), and add --trust if you trust it."
        )
    click.echo(printable(file.diff(file.ORIGINAL, written)), err=True)
    click.echo(f"\n{what} carries the program above, gpt.py with {edit}.", err=True)
    if not click.confirm("Run it?", err=True):
        raise MicrogptError("Nothing was run.")


# ---- What is written ----


def on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def console() -> Console:
    from rich.console import Console

    wide = None if on_terminal() or "COLUMNS" in os.environ else 120
    return Console(file=sys.stdout, width=wide, highlight=False, markup=False, emoji=False)


def print_json(value: Any, stream: Any = None) -> None:
    """One line of JSON; a number that JSON cannot hold becomes the text "nan", "inf" or "-inf"."""
    from microgpt.xray import finite

    click.echo(json.dumps(finite(value), allow_nan=False, ensure_ascii=False), file=stream)


def changed(written: str) -> str:
    """How far a source is from the file: `3 lines added and 1 removed`."""
    changes = file.edits(file.ORIGINAL, written)
    added = sum(len(rows) for _, _, rows in changes)
    return f"{counted(added, 'line')} added and {sum(n for _, n, _ in changes):,} removed"


def counted(n: int, word: str) -> str:
    """`1 step`, `1,000 steps`."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def duration(seconds: float) -> str:
    """`8.1 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def printable(text: str) -> str:
    """A text without what would steer a terminal: control characters are spelled out."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def token(text: str) -> str:
    """A token as a word or a mark: `end` for the line break, which marks both ends of a
    document."""
    return {"\n": "end", " ": "space"}.get(text, printable(text).replace("\t", "\\t"))


def shown_text(text: str) -> str:
    return printable(text) if text else "(nothing)"


def repr_short(item: Any) -> str:
    return token(item) if isinstance(item, str) else str(item)
