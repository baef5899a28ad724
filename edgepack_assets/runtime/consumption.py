"""What a job takes while it runs, seen from outside: disk, also where it hides it, files, and memory."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from edgepack_assets.settings import RuntimeSettings

_GIB = 1 << 30
_BLOCK = 512
_MOST_FILES = 100_000


def excess(work: Path, jobs: Iterable[int], settings: RuntimeSettings) -> str:
    """What those processes, whose work folder that is, took too much of, in words; "" if nothing.

    Processes come and go, and files too, as this looks."""
    jobs = list(jobs)
    limit = settings.memory_limit * _GIB
    # The exact sum takes its time, so it is asked for only where the simple one, which counts what processes share once
    # for each of them, is too large.
    if sum(map(_memory, jobs)) > limit and sum(map(_share, jobs)) > limit:
        return (
            f"it took more than {settings.memory_limit:g} GiB of memory in {len(jobs)} processes "
            "(runtime.memory_limit in edgepack.yaml)"
        )
    size = _deleted(jobs)
    files = 0
    hidden: list[OSError] = []
    for path, folders, names in os.walk(work, onerror=hidden.append):
        files += len(folders) + len(names)
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(path, name)).st_blocks * _BLOCK  # noqa: PTH118 - many of them
        if size > settings.disk_limit * _GIB:
            return f"it wrote more than {settings.disk_limit:g} GiB (runtime.disk_limit in edgepack.yaml)"
        if files > _MOST_FILES:
            return f"it made more than {_MOST_FILES:,} files"
    if size > settings.disk_limit * _GIB:
        return f"it wrote more than {settings.disk_limit:g} GiB (runtime.disk_limit in edgepack.yaml)"
    for error in hidden:
        if not isinstance(error, FileNotFoundError):
            return f"it made a folder that cannot be looked into ({error.strerror}), as one that hides what it writes"
    return ""


def descendants(pid: int) -> list[int]:
    """All processes that a process, or one of these, started and that are there, the nearest first."""
    children = defaultdict(list)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # the name, in brackets, may hold anything
                parent = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
                children[int(parent)].append(int(entry.name))
    found = list(children[pid])
    for each in found:
        found += children[each]
    return found


def _memory(pid: int) -> int:
    """Bytes of memory that are a process's own, and not a file's."""
    size = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                size += int(line.split()[1]) << 10
    return size


def _share(pid: int) -> int:
    """As `_memory`, but what several processes share counts by a part of it for each."""
    size = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(errors="replace").splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                size += int(line.split()[1]) << 10
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended
    except PermissionError:
        return _memory(pid)  # it has shut itself off
    return size


def _deleted(pids: Iterable[int]) -> int:
    """Bytes of files that have no name any more but are kept open, in memory or on the disk."""
    sizes = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    told = entry.stat()
                    if stat.S_ISREG(told.st_mode) and told.st_nlink == 0:
                        sizes[told.st_dev, told.st_ino] = told.st_blocks * _BLOCK
    return sum(sizes.values())
