"""What is said to a person when something cannot be done: one sentence, and what to do next."""

from __future__ import annotations


class MicrogptError(Exception):
    """A problem that a user can understand and mend; its text is shown as it is, never a traceback.

    Args:
        message: one sentence that says what is wrong, and where it helps, what to do.
        line: the 1-based line of the source that it concerns, when it concerns one.
    """

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class LeavesContract(MicrogptError):
    """A program does something that the fast engine cannot follow. The message is the reason: it
    completes the sentence "This edit runs on the reference engine: ...", without a full stop."""
