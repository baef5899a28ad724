"""A control group (v2) for each child, where this user may make one.

The kernel then bounds the memory of all processes in it together, also what shows in none, and ends all of them when
that is exceeded.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_TOP = Path("/sys/fs/cgroup")
_NAME = re.compile(r"edgepack-(\d+)-[0-9a-f]{8}")
_ENTER = ("/bin/sh", "-c", 'echo $$ > "$0"; exec "$@"')
_REMOVE_FOR = 2.0


class MemoryGroup:
    """A control group of one child."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` in the group."""
        return [*_ENTER, str(self._folder / "cgroup.procs"), *command]

    def is_exceeded(self) -> bool:
        """Whether the kernel has ended a process in it because memory ran out."""
        with contextlib.suppress(OSError):
            events = dict(line.split() for line in (self._folder / "memory.events").read_text().splitlines())
            return int(events.get("oom_kill", 0)) > 0
        return False

    def remove(self) -> None:
        """Remove it, once all that was in it has ended. What stays the next process removes."""
        deadline = time.monotonic() + _REMOVE_FOR
        while True:
            try:
                self._folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.01)
            else:
                return


def new_group(memory: int) -> MemoryGroup | None:
    """A group that may have so many bytes of memory; None where this user cannot make one."""
    parent = _parent()
    if parent is None:
        return None
    folder = parent / f"edgepack-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        for name, value in {"memory.max": str(memory), "memory.oom.group": "1", "memory.swap.max": "0"}.items():
            if name != "memory.swap.max" or (folder / name).exists():  # not without swap
                (folder / name).write_text(value)
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        return None
    return MemoryGroup(folder)


@cache
def _parent() -> Path | None:
    """Where groups can be made: beside this process's own, if memory is bounded there and processes can be moved."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
        parent = (_TOP / own).parent if own else _TOP
        if "memory" not in (parent / "cgroup.subtree_control").read_text().split() or _is_limited(_TOP / own):
            return None
        _remove_left(parent)
        tried = parent / f"edgepack-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        tried.mkdir()
        try:
            # A folder of this user's own is not enough: the one above both groups must be, too.
            move = MemoryGroup(tried).command(["cat", "/proc/self/cgroup"])
            moved = subprocess.run(move, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            return parent if f"{tried.name}\n" in moved.stdout else None
        finally:
            MemoryGroup(tried).remove()
    except (OSError, StopIteration):
        return None


def _is_limited(own: Path) -> bool:
    """Whether this process's own group has limits, which one beside it would be free of."""
    names = ("memory.max", "memory.high", "cpu.max")
    return any((own / name).read_text().split()[0] != "max" for name in names if (own / name).exists())


def _remove_left(parent: Path) -> None:
    """Remove what processes that were killed have left. The kernel removes none that has a process in it."""
    for entry in parent.iterdir():
        match = _NAME.fullmatch(entry.name)
        if match and not Path("/proc", match[1]).exists():
            with contextlib.suppress(OSError):
                entry.rmdir()
