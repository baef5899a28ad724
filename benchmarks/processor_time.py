"""Processor seconds of processes: of those that have ended, and of those that run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from edgepack_assets.sandbox.resource_usage import process_ids

_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on a process whose parent has ended is a child of this one, so that what it used is counted."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def used_by_ended() -> float:
    """Processor seconds of all children that have ended, and of theirs."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def used_by_descendants() -> float:
    """Processor seconds of all processes that this one has started, those that have ended too."""
    running = {process: (parent, seconds) for process, parent, _, seconds in _processes()}

    def is_descendant(process: int) -> bool:
        while process in running:
            process = running[process][0]
            if process == os.getpid():
                return True
        return False

    return used_by_ended() + sum(seconds for process, (_, seconds) in running.items() if is_descendant(process))


def used_by_session(session: int) -> float:
    """Processor seconds of the running processes of a session, and of what they started that has ended."""
    return sum(seconds for *_, its_session, seconds in _processes() if its_session == session)


def _processes() -> Iterator[tuple[int, int, int, float]]:
    """(process, parent, session, processor seconds with those of its ended children) of all that run; proc(5)."""
    for pid in process_ids():
        with contextlib.suppress(OSError):  # it has ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
            yield pid, int(fields[1]), int(fields[3]), used
