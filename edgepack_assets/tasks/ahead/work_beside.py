"""Work of a later step, in a fork of this process, while this one imports or does an earlier step.

The fork ends with its owner, whatever ends that. It is made before this process has threads or has imported Dagster. An
error there is none of the run's: the step does the work itself then, and meets it again.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Hashable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

_FORK = multiprocessing.get_context("fork")
_PDEATHSIG = 1
_GRACE = 10.0
"""Seconds in which work that is not wanted any more may tidy up."""
_LOGGED = ("debug", "info", "warning")
_DONE = "done"

Result = TypeVar("Result")


class WorkBeside(Generic[Result]):
    """At most one piece of work. `close` ends it, wanted or not."""

    def __init__(self) -> None:
        self._inputs: Hashable = None
        self._process: Any = None
        self._connection: Connection | None = None

    def start(self, inputs: Hashable, work: Callable[[Any], Result], output: Path | None = None) -> None:
        """Begin with it. `inputs` are what decides about the result; `work` gets a log, whose lines `take` passes on.
        `output`: a file that what it prints is appended to. Raises OSError if there can be no more processes."""
        self.close()
        self._connection, theirs = _FORK.Pipe(duplex=False)
        # What is still in a buffer here would be written by the fork as well.
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            process = _FORK.Process(target=_serve, args=(work, theirs, self._connection, os.getpid(), output))
            process.start()
        except OSError:
            self.close()
            raise
        finally:
            theirs.close()
        self._inputs, self._process = inputs, process

    def take(self, inputs: Hashable, log: Any) -> Result | None:
        """The result, which is waited for, if it was made from these inputs; None if there is none. It may be taken
        once."""
        if self._connection is None or inputs != self._inputs:
            return None
        try:
            while True:
                kind, value = self._connection.recv()
                if kind == _DONE:
                    result: Result = value
                    return result
                getattr(log, kind)(value)
        except (EOFError, OSError):  # it failed, or was killed
            return None
        finally:
            self.close()

    def close(self) -> None:
        """End the process, if it is still at work."""
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        self._inputs = None
        if process is not None:
            if connection is not None and not connection.closed:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
            process.join(_GRACE)
            if process.is_alive():
                process.kill()
            process.join()
            process.close()
        if connection is not None:
            connection.close()


class _Log:
    """Sends lines to the owner."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, level: str) -> Callable[[str], None]:
        if level not in _LOGGED:
            raise AttributeError(level)
        return lambda text: self._connection.send((level, text))


def end_with(owner: int) -> bool:
    """Have the system kill this process when `owner`, which has forked it, ends. False if that has ended already."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    return os.getppid() == owner


def _serve(
    work: Callable[[Any], Any], connection: Connection, ours: Connection, owner: int, output: Path | None
) -> None:
    ours.close()
    if not end_with(owner):
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if output is not None:
        with output.open("ab") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
    log = _Log(connection)
    with suppress(KeyboardInterrupt, BrokenPipeError):
        try:
            result = work(log)
        except Exception as error:  # noqa: BLE001 - the step does it itself, and shows what is wrong
            log.debug(f"what was begun ahead of its step failed: {type(error).__name__}: {error}")
        else:
            connection.send((_DONE, result))
