"""Whether memory is short on this machine, or in this container."""

from __future__ import annotations

from pathlib import Path

_SHORT = 0.1
"""Of all memory."""
_MACHINE, _CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def memory_is_short(machine: Path = _MACHINE, container: Path = _CONTAINER) -> bool:
    """Whether less than a tenth of the memory is left. What cannot be read limits nothing."""
    return any(left < _SHORT * limit for left, limit in (_of_machine(machine), _of_container(container)))


def _of_machine(file: Path) -> tuple[int, int]:
    try:
        rows = dict(line.split(":", 1) for line in file.read_text().splitlines())
        return int(rows["MemAvailable"].split()[0]), int(rows["MemTotal"].split()[0])
    except (OSError, KeyError, ValueError):
        return 0, 0


def _of_container(folder: Path) -> tuple[int, int]:
    """Bytes left, and the limit, of the control group (version 2). Pages of files that can be dropped are no use."""
    try:
        limit, used = int((folder / "memory.max").read_text()), int((folder / "memory.current").read_text())
        rows = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - used + int(rows["inactive_file"]), limit
    except (OSError, KeyError, ValueError):  # no group, or no limit: "max"
        return 0, 0
