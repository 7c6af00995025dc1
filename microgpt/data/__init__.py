"""Corpora: what the model learns from. One loader for names, tasks, files and text; one split."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from microgpt.data.tasks import TASKS, generate
from microgpt.errors import MicrogptError

__all__ = [
    "DATASETS", "LIMIT", "Corpus", "Dataset", "fingerprint", "load", "split", "with_answers",
]  # fmt: skip

LIMIT = 20_000_000
"""The most that is read of a file, in bytes, and of a text, in characters."""

_NAMES = Path(__file__).with_name("names.txt")
_BREAK = re.compile("[\n\r]")
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Corpus:
    """Documents to learn from.

    Attributes:
        name: a data set's name, a file's name, or ``"text"``.
        title: what a page or a report calls it.
        docs: the documents, each without line breaks, in the order in which they were given.
        separator: where it is set, every document is ``prompt + separator + answer``, and exact
            match is scored on the answer; None where a document is one whole.
    """

    name: str
    title: str
    docs: Sequence[str]
    separator: str | None = None

    def prompt(self, doc: str) -> str:
        """What stands before the first separator; the empty text where there is no separator."""
        return doc.partition(self.separator)[0] if self.separator else ""

    def question(self, doc: str) -> str:
        """What a model is given, to be continued by the answer: prompt and separator."""
        return doc.removesuffix(self.answer(doc))

    def answer(self, doc: str) -> str:
        """What stands after the first separator; the whole document where there is none."""
        return doc.partition(self.separator)[2] if self.separator else doc


class Dataset(TypedDict):
    """What can be said of a data set before it is loaded; plain data, ready for JSON.

    `description` is one sentence and `example` a document. `steps` and `batch` (documents a step)
    are enough to learn it with the file's default sizes and learning rate.
    """

    name: str
    title: str
    description: str
    example: str
    separator: str | None
    steps: int
    batch: int


DATASETS: dict[str, Dataset] = {
    "names": Dataset(
        name="names",
        title="Names",
        description="Given names from many languages and cultures, in the letters a to z.",
        example="anna",
        separator=None,
        steps=1000,
        batch=1,
    )
} | {
    name: Dataset(
        name=name,
        title=task.title,
        description=task.description,
        example=task.example,
        separator=task.separator,
        steps=task.steps,
        batch=8,
    )
    for name, task in TASKS.items()
}
"""What `load` knows by name."""


def load(data: str | os.PathLike[str], *, seed: int = 0) -> Corpus:
    """The corpus of this name, of the file at this path, or of this text.

    A string with a line break is text. Any other string is first looked up in `DATASETS`, then
    taken as a path (``./names`` reaches a file that is called like a data set). A file is UTF-8
    text. In files and texts every line is a document; blank lines, line ends (LF, CRLF, CR) and a
    byte order mark are left out, and everything else is kept, repeated lines too.

    Args:
        data: a name of `DATASETS`, a path, or text.
        seed: chooses which documents of a generated task are drawn; nothing else depends on it.

    Raises:
        MicrogptError: there is no such name or file; it cannot be read, is a folder, holds more
            than `LIMIT`, is not UTF-8 text, holds control characters, or has fewer than two
            distinct documents, so that none could be held out to measure what was learnt. Two are
            enough, even of a single character: how long they are can still be learnt.
    """
    if not isinstance(data, (str, os.PathLike)):
        raise MicrogptError(
            f"Data is a name, a path or a text, and this is of type {type(data).__name__}: "
            f"the names are {_names()}."
        )
    if isinstance(data, str):
        if _BREAK.search(data):
            return Corpus("text", "Text", _documents(data, "The text"))
        if not data.strip():
            raise MicrogptError(f"No data is named: give {_names()}, or the path of a text file.")
        if data == "names":
            docs = _NAMES.read_text(encoding="utf-8").split()
            return Corpus(data, DATASETS[data]["title"], tuple(docs))
        if data in TASKS:
            return Corpus(data, TASKS[data].title, generate(data, seed), TASKS[data].separator)
    path = os.fsdecode(data)
    docs_of_file = _documents(_read(path, isinstance(data, str)), f"The file {_shown(path)}")
    return Corpus(Path(path).name, Path(path).name, docs_of_file)


def with_answers(corpus: Corpus, separator: str) -> Corpus:
    """A corpus as a task: what stands behind the separator in each document is its answer.

    Raises:
        MicrogptError: the separator is empty, or a document has no answer behind it.
    """
    if not separator:
        raise MicrogptError("The separator that stands before the answers must not be empty.")
    for number, doc in enumerate(corpus.docs, start=1):
        question, found, answer = doc.partition(separator)
        if not question or not found or not answer:
            raise MicrogptError(
                f"Document {number} of {corpus.name}, {_shown(doc)}, is no question and answer "
                f"with {separator!r} between them; each document of a task must be."
            )
    return dataclasses.replace(corpus, separator=separator)


def split(docs: Iterable[str], held_out: float = 0.1) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Documents to learn from, and documents held out to measure what was learnt.

    A document's own hash decides its side, and nothing else: the SHA-256 of ``held out? `` and
    the document gives it a place from 0 to 1, and below `held_out` it is held out. (The words in
    front keep the split even for documents that were themselves chosen by a hash.) So the side
    depends on neither order, platform nor the other documents, equal documents share a side, and
    a corpus can grow without moving a document. Each side keeps the order of `docs`.

    One exception: where that would leave a side empty and there are two distinct documents or
    more, the one with the lowest place is held out, or the one with the highest learnt from. A
    single distinct document is learnt from, and nothing is held out.

    Args:
        docs: the documents.
        held_out: the share to hold out, above 0 and below 1; about this share is, not exactly.

    Returns:
        The documents to learn from, and those held out.

    Raises:
        MicrogptError: `held_out` is not between 0 and 1.
    """
    if not 0 < held_out < 1:
        raise MicrogptError(
            f"The share to hold out must be above 0 and below 1, such as 0.1, not {held_out!r}."
        )
    return _split(tuple(docs), held_out)


@functools.lru_cache(maxsize=4)
def _split(docs: tuple[str, ...], held_out: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same; a page asks for the same documents at every edit."""
    place = {doc: _fraction(doc) for doc in docs}
    away = {doc for doc in place if place[doc] < held_out}
    if len(place) > 1 and not away:
        away = {min(place, key=place.__getitem__)}
    elif len(away) == len(place) > 0:
        away.remove(max(place, key=place.__getitem__))
    return (
        tuple(doc for doc in docs if doc not in away),
        tuple(doc for doc in docs if doc in away),
    )


def fingerprint(docs: Iterable[str]) -> str:
    """SHA-256 of the documents in this order, 64 hexadecimal digits; the same on every platform.

    Each document enters as its length in bytes, a colon, and its UTF-8, so that no two lists of
    documents run together.
    """
    digest = hashlib.sha256()
    for doc in docs:
        raw = doc.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(raw) + raw)
    return digest.hexdigest()


def _fraction(doc: str) -> float:
    """A document's own place from 0 to 1, as good as random and always the same."""
    raw = b"held out? " + doc.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "big") / 2**64


def _documents(text: str, what: str) -> tuple[str, ...]:
    """The lines of a text that are not blank; `what` names the text in an error."""
    if len(text) > LIMIT:
        raise _too_large(what, "characters")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if found := _NOT_TEXT.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise MicrogptError(
            f"{what} is not plain text (character U+{ord(found[0]):04X} on line {line}): "
            f"give UTF-8 text with a document on each line."
        )
    docs = tuple(line for line in text.split("\n") if line and not line.isspace())
    if not docs:
        raise MicrogptError(f"{what} has only blank lines: put a document on each line.")
    if all(doc == docs[0] for doc in docs):
        raise MicrogptError(
            f"{what} has only one distinct document, and one must be held out to measure what was "
            f"learnt: put at least two, each on its own line."
        )
    return docs


def _read(path: str, maybe_name: bool) -> str:
    """The text of a file, or one sentence that says why there is none."""
    shown = _shown(path)
    try:
        if os.path.isdir(path):
            raise MicrogptError(
                f"{shown} is a folder: give the path of one text file, with a document on each "
                f"line."
            )
        size = os.stat(path).st_size  # nothing of a file that is too large is read
        with open(path, "rb") as file:
            raw = file.read(LIMIT + 1) if size <= LIMIT else b""
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path, maybe_name) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _missing(path, maybe_name) from None
        reason = error.strerror or type(error).__name__
        raise MicrogptError(
            f"The file {shown} cannot be read ({reason}): check that it is a text file and that "
            f"you may read it."
        ) from None
    except ValueError:  # NUL or half of a surrogate pair, which no path can hold
        raise _missing(path, maybe_name) from None
    if max(size, len(raw)) > LIMIT:
        raise _too_large(f"The file {shown}", "bytes")
    if not raw:
        raise MicrogptError(f"The file {shown} is empty: put a document on each line.")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        kind = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        raise MicrogptError(
            f"The file {shown} is {kind} (byte {raw[error.start]:#04x} on line {line}): "
            f"save it as UTF-8 text, with a document on each line."
        ) from None


def _too_large(what: str, unit: str) -> MicrogptError:
    return MicrogptError(
        f"{what} has more than {LIMIT // 1_000_000} million {unit}, the most that is read: "
        f"give a part of it, such as its first lines."
    )


def _missing(path: str, maybe_name: bool) -> MicrogptError:
    """What to say when nothing is at a path, with the data set that may have been meant."""
    shown = _shown(path)
    is_path = not maybe_name or any(mark in path for mark in ("/", "\\", "."))
    word = re.split(r"[/\\]", path)[-1].partition(".")[0].strip().lower()
    near = difflib.get_close_matches(word, DATASETS, n=1, cutoff=0.55)
    near = near or [name for name in DATASETS if len(word) > 1 and name.startswith(word)]
    if is_path:
        advice = f"check the path, or name the data set {near[0]!r}" if near else "check the path"
        return MicrogptError(f"There is no file {shown}: {advice}.")
    advice = f"did you mean {near[0]!r}?" if near else f"the names are {_names()}."
    return MicrogptError(f"{shown} is neither a data set nor a file: {advice}")


def _names() -> str:
    *most, last = DATASETS
    return f"{', '.join(most)} or {last}"


def _shown(text: str) -> str:
    """A path or a name in quotation marks, escaped; of a long one the end, where its name is."""
    return repr(text if len(text) <= 80 else "…" + text[-79:])
