"""Whether memory is short on this machine, or in a control group of this process: of a container, a systemd service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_SHORT = 0.1
"""Of all memory."""
_MACHINE, _GROUPS, _OWN = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_LIMITS, _USED, _CACHED = ("memory.max", "memory.high"), "memory.current", "inactive_file"
_FIRST_VERSION = ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"


def memory_is_short(machine: Path = _MACHINE, groups: Path = _GROUPS, own: Path = _OWN) -> bool:
    """Whether less than a tenth of the memory is left. What cannot be read limits nothing."""
    return any(left < _SHORT * limit for left, limit in (_of_machine(machine), *_of_groups(groups, own)))


def _of_machine(file: Path) -> tuple[int, int]:
    try:
        rows = dict(line.split(":", 1) for line in file.read_text().splitlines())
        return int(rows["MemAvailable"].split()[0]), int(rows["MemTotal"].split()[0])
    except (OSError, KeyError, ValueError):
        return 0, 0


def _of_groups(top: Path, own: Path) -> Iterator[tuple[int, int]]:
    """Of the groups that this process is in, and those above them. A container may see its own group as the top."""
    try:
        rows = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for row in rows:
        if row[1:2] == [""]:
            yield from (_of_group(each, _LIMITS, _USED, _CACHED) for each in _up_to(top, row[2]))
        elif "memory" in row[1].split(","):
            yield from (_of_group(each, *_FIRST_VERSION) for each in _up_to(top / "memory", row[2]))


def _up_to(top: Path, path: str) -> Iterator[Path]:
    below = Path(path.lstrip("/"))
    yield from (top / each for each in (below, *below.parents))


def _of_group(folder: Path, limits: tuple[str, ...], used: str, cached: str) -> tuple[int, int]:
    """Bytes left, and the limit. Pages of files that can be dropped are no use."""
    try:
        found = [(folder / name).read_text().strip() for name in limits if (folder / name).exists()]
        limit = min(int(each) for each in found if each != "max")
        rows = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - int((folder / used).read_text()) + int(rows[cached]), limit
    except (OSError, KeyError, ValueError):  # no group, or no limit
        return 0, 0
