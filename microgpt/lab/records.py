"""Records of runs: one line of JSON each, with all that is needed to make the same run again.

A file of records is only ever added to. A line that was cut off, because a machine or a program
ended while it was written, is left out when the file is read, and everything before it is kept.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from microgpt import __version__, data
from microgpt.data import Corpus
from microgpt.errors import MicrogptError
from microgpt.files import reason
from microgpt.lab.trials import Result, Trial, perform
from microgpt.source import ORIGINAL, pack_edit, unpack_edit

Record = dict[str, Any]
NEEDED = ("id", "program", "data", "data_sha256", "source_sha256", "seed", "engine")
_MEASURED = [field.name for field in fields(Result)]


def sha256(text: str) -> str:
    """Of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


@functools.lru_cache(maxsize=16)
def _fingerprint(docs: tuple[str, ...]) -> str:
    return data.fingerprint(docs)


def fingerprint(corpus: Corpus) -> str:
    """SHA-256 of the documents of a corpus."""
    return _fingerprint(tuple(corpus.docs))


def identity(trial: Trial, seed: int) -> str:
    """The same for the same run: 16 hexadecimal digits of a hash of program, partner, data, seed
    and engine."""
    like = "" if trial.like is None else sha256(trial.like)
    parts = [sha256(trial.source), like, fingerprint(trial.corpus), str(seed), trial.engine]
    return sha256(" ".join(parts))[:16]


@functools.cache
def machine() -> str:
    """System, processor and number of cores."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line for line in lines if line.startswith("model name")).partition(": ")[2]
    return f"{platform.system()}, {name}, {os.cpu_count()} cores"


def record(trial: Trial, result: Result, program: str, baseline: str | None) -> Record:
    """What is kept of a run.

    Args:
        trial, result: what was run, and what was measured.
        program: what the program is called.
        baseline: the same of the one that it is compared with; None where it is that one.
    """
    source, like = trial.source, trial.like
    return {
        "id": identity(trial, result.seed), "program": program, "baseline": baseline,
        "data": trial.corpus.name, "separator": trial.corpus.separator,
        **result.plain(),
        "data_sha256": fingerprint(trial.corpus), "source_sha256": sha256(source),
        "edit": None if source == ORIGINAL else pack_edit(source),
        "like": None if like is None or like == ORIGINAL else pack_edit(like),
        "paired": like is not None, "asked_engine": trial.engine, "file_sha256": sha256(ORIGINAL),
        "microgpt": __version__, "python": platform.python_version(),
        "machine": machine(),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def measured(found: Record) -> Result:
    """The result in a record."""
    return Result(**{name: found[name] for name in _MEASURED if name in found})


def trial_of(found: Record, corpus: Corpus | None = None) -> Trial:
    """What a record says was run, and the seeds that were trained beside it.

    Args:
        corpus: the data; those of its name when None.

    Raises:
        MicrogptError: the record was made with another version of the file or with other data.
    """
    if found.get("file_sha256") != sha256(ORIGINAL):
        raise MicrogptError("This record was made with another version of gpt.py.")
    if corpus is None:
        if found["data"] not in data.DATASETS:
            raise MicrogptError(
                f"This record is of data called {found['data']!r}: they are not bundled, so name "
                "them."
            )
        corpus = data.load(found["data"])
    if fingerprint(corpus) != found["data_sha256"]:
        raise MicrogptError(f"The data {corpus.name} are not those that this record is of.")
    source = ORIGINAL if found["edit"] is None else unpack_edit(found["edit"])
    like = ORIGINAL if found.get("like") is None else unpack_edit(found["like"])
    engine, seeds = found.get("asked_engine", "fast"), found.get("beside") or [found["seed"]]
    return Trial(source, corpus, tuple(seeds), like if found.get("paired") else None, engine)


def again(found: Record, corpus: Corpus | None = None) -> Result:
    """Make the run of a record once more.

    Raises:
        MicrogptError: as `trial_of`.
    """
    trial = trial_of(found, corpus)
    return perform(trial)[trial.seeds.index(found["seed"])]


# ---- Files of records ----


@dataclass
class Ledger:
    """A file of records, to which finished runs are added one by one.

    Attributes:
        path: where it is.
        records: what is in it, by `id`; the newest where a run is in it twice.
        left_out: what was wrong with lines that could not be read, one sentence each.
    """

    path: Path
    records: dict[str, Record]
    left_out: list[str]

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """The ledger in a file, which may not be there yet.

        A last line that was cut off is removed from the file.

        Raises:
            MicrogptError: the file cannot be read or written, or is of another kind.
        """
        ledger = cls(path, {}, [])
        try:
            with path.open("ab"):
                pass  # it can be written
            content = path.read_bytes()
        except OSError as error:
            raise MicrogptError(
                f"The result file {path} cannot be written: {reason(error)}."
            ) from None
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content.split(b"\n"), start=1):
            if line.strip():
                ledger._read(line, number, cut=number > content[:whole].count(b"\n"))
        if content and not ledger.records and ledger.left_out:
            raise MicrogptError(f"{path} holds something other than results; choose another file.")
        if whole < len(content):
            if ledger._readable(content[whole:]):
                ledger._append(b"\n")
            else:
                with path.open("r+b") as stream:
                    stream.truncate(whole)
        return ledger

    def _read(self, line: bytes, number: int, cut: bool) -> None:
        found = self._readable(line)
        if found is not None:
            self.records[found["id"]] = found
        elif cut:
            self.left_out.append(
                f"Line {number} of {self.path} was cut off, so that run is made again."
            )
        else:
            self.left_out.append(f"Line {number} of {self.path} is no result and is left out.")

    @staticmethod
    def _readable(line: bytes) -> Record | None:
        try:
            found = json.loads(line)
        except ValueError:
            return None
        good = isinstance(found, dict) and all(name in found for name in NEEDED)
        return found if good else None

    def add(self, found: Record) -> None:
        """Write a record down, for good.

        Raises:
            MicrogptError: there is no room for it.
        """
        text = json.dumps(found, allow_nan=False, separators=(",", ":"))
        self._append(text.encode() + b"\n")
        self.records[found["id"]] = found

    def _append(self, content: bytes) -> None:
        try:
            size = self.path.stat().st_size
            with self.path.open("ab") as stream:
                try:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                except OSError:
                    os.truncate(self.path, size)  # no half of a line
                    raise
        except OSError as error:
            raise MicrogptError(
                f"The result file {self.path} cannot be written: {reason(error)}."
            ) from None

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records.values())
