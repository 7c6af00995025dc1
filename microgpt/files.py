"""Files that are written whole or not at all, and what to say when they cannot be."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from pathlib import Path

from microgpt.errors import MicrogptError

STALE = 60.0  # seconds after which a half-written file of a killed run may be swept away


def write(path: str | os.PathLike[str], contents: bytes) -> None:
    """Put bytes in a file in one motion: written beside it, forced to the disk, then moved into
    place.

    Raises:
        MicrogptError: the disk or the folder does not take them; what was there is untouched.
    """
    place = place_on_disk(Path(path))
    _sweep(place)
    part = part_of(place)
    try:
        with part.open("xb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            part.chmod(place.stat().st_mode & 0o777)
        os.replace(part, place)
    except OSError as error:
        kept = "; what was there before is untouched" if place.exists() else ""
        raise MicrogptError(f"{path} could not be written: {reason(error)}{kept}.") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    if os.name == "posix":  # the new name, too, must survive a power cut
        with contextlib.suppress(OSError):
            folder = os.open(place.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def place_on_disk(path: Path) -> Path:
    """The file that a path means: what a link points to is replaced, not the link."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        raise MicrogptError(f"{path} is not a name that a file can have.") from None


def part_of(place: Path) -> Path:
    """A name beside a file, for what is to become it."""
    return place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")


def _sweep(place: Path) -> None:
    """Remove what runs that were killed while they wrote this file left beside it."""
    with contextlib.suppress(OSError):
        for part in place.parent.iterdir():
            left = part.name.startswith(f".{place.name}.") and part.name.endswith(".part")
            if left and time.time() - part.stat().st_mtime > STALE:
                part.unlink()


def reason(error: OSError | ValueError) -> str:
    """Why a file cannot be read or written, in a few words."""
    number = getattr(error, "errno", None)
    words = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "the file would be larger than is allowed here",
        errno.EACCES: "you have no permission to",
        errno.EPERM: "you have no permission to",
        errno.EROFS: "the disk is read-only",
        errno.ENAMETOOLONG: "the name is too long",
    }
    if number in words:
        return words[number]
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def read(path: Path, most: int, what: str) -> str:
    """The text of a program, without a byte order mark and with plain line ends.

    Args:
        path: where it is.
        most: bytes that are read.
        what: what it is, for a sentence: "source" or "variant".

    Raises:
        MicrogptError: there is no such file, it is longer, or it is not text.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(most + 1)
        if len(raw) > most:
            kind = "an edit" if what == "source" else f"a {what}"
            raise MicrogptError(f"{path} is too long to be {kind} of gpt.py.")
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise MicrogptError(f"{path} is not a text in UTF-8, so it is no program.") from None
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise MicrogptError(f"The {what} {path} cannot be read: {why}.") from None
