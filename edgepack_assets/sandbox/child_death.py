"""What it means that a job's process ended without a result: whether its code failed, or somebody killed it."""

from __future__ import annotations

import signal

from edgepack_assets.errors import ComponentError, TransientError

_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM}
"""Signals that end a job which has done nothing wrong. Its code fails by an exception, a crash or a limit."""


class ChildDiedError(ComponentError):
    """A job's process ended without a result, with this exit status. `signal` is what killed it, 0 if it exited."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.signal = _signal_of(code)


class ChildKilledError(TransientError):
    """A job's process was killed, and not for what it used: by a person, a shutdown, or the system when the memory of
    the machine ran out. A model can do that to itself as well, which cannot be told apart."""


def death(subject: str, code: int, last_words: str) -> ChildDiedError | ChildKilledError:
    """The error for a job that ended with this exit status."""
    number = _signal_of(code)
    how = f"was killed by signal {number}" if number else f"exited with code {code}"
    hint = ", as the system does when memory runs out," if number == signal.SIGKILL else ""
    message = f"{subject} {how}{hint} before it gave a result{last_words}"
    return ChildKilledError(message) if number in _FROM_OUTSIDE else ChildDiedError(message, code)


def _signal_of(code: int) -> int:
    """The signal of an exit status, 0 if there was none: negative, or above 128 as the first process of a PID namespace
    reports it."""
    return code - 128 if 128 < code < 160 else max(0, -code)
