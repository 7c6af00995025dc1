"""`python -m microgpt.lessons OUT.json --trained FILE`: write the lessons that the page shows."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import zlib
from pathlib import Path

from microgpt import checkpoint
from microgpt.errors import MicrogptError
from microgpt.lessons import Lessons, facts, parse
from microgpt.lessons.instruments import Models
from microgpt.run import Run
from microgpt.source import ORIGINAL
from microgpt.xray import finite, thin


def models(trained: Path, recording: Path | None = None) -> Models:
    """The runs that the lessons look at.

    Args:
        trained: the checkpoint that the build made.
        recording: the recording that the page plays, to be sure that both are of one run.

    Raises:
        MicrogptError: the checkpoint cannot be used, or the recording is of another run.
    """
    run = checkpoint.load(trained)
    if run.source != ORIGINAL or not run.done:
        raise MicrogptError(f"{trained.name} is not a finished run of this gpt.py; build it again.")
    first = Run(seed=run.seed, corpus=run.corpus)
    if recording is not None:
        try:
            plain = json.loads(zlib.decompress(recording.read_bytes(), -15))
            losses = [point["loss"] for point in plain["losses"]]
        except (OSError, ValueError, KeyError, zlib.error):
            raise MicrogptError(f"{recording.name} cannot be read; build it again.") from None
        if losses != thin(run.losses, 3):
            raise MicrogptError(f"{recording.name} and {trained.name} are of different runs.")
    return Models(first, run)


def write(lessons: Lessons, path: Path) -> int:
    """Write the lessons as JSON; how many bytes that are."""
    plain = finite(dataclasses.asdict(lessons))
    text = json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    path.write_text(text, encoding="utf-8")
    return len(text.encode())


def main(arguments: list[str] | None = None) -> int:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(prog="python -m microgpt.lessons", description=__doc__)
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--trained", type=Path, required=True, help="the trained checkpoint")
    parser.add_argument("--recording", type=Path, help="the recording of the same run")
    parser.add_argument(
        "--lessons", type=Path, default=parse.FOLDER, help="the folder of the Markdown files"
    )
    chosen = parser.parse_args(arguments)
    try:
        looked_at = models(chosen.trained, chosen.recording)
        answers = facts.Answers(looked_at, chosen.out.with_suffix(".cache.json"))
        lessons = parse.read(answers, chosen.lessons)
        size = write(lessons, chosen.out)
    except MicrogptError as error:
        print(error.message, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename} cannot be written: {error.strerror}.", file=sys.stderr)
        return 1
    steps = sum(len(chapter.steps) for chapter in lessons.chapters)
    print(f"{chosen.out.name}: {len(lessons.chapters)} chapters, {steps} steps, {size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
