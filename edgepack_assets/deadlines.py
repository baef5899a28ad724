"""Calls that must end in time, whatever they wait for. What is called, and what a missed deadline means, is the
caller's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


class DeadlineError(Exception):
    """The call did not end in time. `thread` may still be running it."""

    def __init__(self, seconds: float, thread: threading.Thread) -> None:
        super().__init__(f"no result within {seconds:g} s")
        self.thread = thread


def call_within(seconds: float, function: Callable[[], _T], name: str = "call-within") -> _T:
    """The function's result, or what it raises. Raises DeadlineError when `seconds` have passed.

    A socket's timeout is for one read: an answer that trickles in outlasts it. A network share whose server is gone
    holds its caller without any timeout. So the call has a thread of its own (`name`), which is left behind when the
    time is up and does not keep the process alive."""
    outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((function(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised again by the caller's thread
            outcome.put((None, error))

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        value, error = outcome.get(timeout=max(0.01, seconds))
    except queue.Empty:
        raise DeadlineError(seconds, thread) from None
    if error is not None:
        raise error
    result: _T = value
    return result
