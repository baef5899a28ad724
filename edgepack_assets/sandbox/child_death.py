"""What it means that a job's process ended without a result: whether its code failed, or somebody killed it."""

from __future__ import annotations

import signal

from edgepack_assets.errors import ComponentError, TransientError

_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM}
"""Signals that end a job which has done nothing wrong. Its code fails by an exception, a crash or a limit."""


class ChildDiedError(ComponentError):
    """A job's process ended without a result. `signal` is what killed it, 0 if it exited."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


class ChildKilledError(TransientError):
    """A job's process was killed, and not for what it used: by a person, a shutdown, or the system when the memory of
    the machine ran out. A model can do that to itself as well, which cannot be told apart."""


def death(subject: str, code: int, last_words: str) -> ChildDiedError | ChildKilledError:
    """The error for a job that ended with this exit status (negative: the signal, as above 128 where the first process
    of a PID namespace reports it)."""
    number = code - 128 if 128 < code < 160 else max(0, -code)
    if not number:
        return ChildDiedError(f"{subject} exited with code {code} before it gave a result{last_words}", 0)
    message = f"{subject} was killed by signal {number}"
    if number not in _FROM_OUTSIDE:
        return ChildDiedError(f"{message} before it gave a result{last_words}", number)
    hint = ", as the system does when memory runs out," if number == signal.SIGKILL else ""
    return ChildKilledError(f"{message}{hint} before it gave a result{last_words}")
