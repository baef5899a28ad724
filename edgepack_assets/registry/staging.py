"""Where a local registry puts a version together before it appears, and what registrations that were cut short leave.

Times are those of the file system: on a share each host has a clock of its own, and one that is ahead must not take
another host's registration for an old one.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.registry.base import Unfinished

STALE_AFTER = 24 * 3600.0
"""Seconds after which the next registration removes one that never finished."""
_SHORTEST_IDLE = 3600.0
"""Seconds for which an entry is kept whatever is asked: reading a large file back changes nothing in its folder."""
_BEAT = 30.0
"""Seconds between two signs of life of a registration."""


class Staging:
    """The staging folder of a registry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def new(self) -> Iterator[tuple[Path, Callable[[], None]]]:
        """(a new folder, a function to call while it is being filled). The folder is removed at the end, if it is
        still there."""
        folder = self._folder / uuid.uuid4().hex
        try:
            with disk_errors(folder):
                folder.mkdir(parents=True)
            self._remove(STALE_AFTER, folder.stat().st_mtime)
            yield folder, _signs_of_life(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def entries(self) -> list[Unfinished]:
        """Everything in the folder."""
        with disk_errors(self._folder):
            if not self._folder.is_dir():
                return []
            probe = self._folder / uuid.uuid4().hex
            probe.mkdir()
            try:
                now = probe.stat().st_mtime
            finally:
                probe.rmdir()
        return [Unfinished(path, _size(path), idle, idle <= _SHORTEST_IDLE) for path, idle in self._idle(now)]

    def remove(self, idle: float) -> list[Unfinished]:
        """Remove the entries that have not moved for `idle` seconds and for an hour, and return them."""
        abandoned = [entry for entry in self.entries() if entry.idle > idle and not entry.may_be_alive]
        return [entry for entry in abandoned if _removed(entry.path)]

    def _idle(self, now: float) -> Iterator[tuple[Path, float]]:
        with disk_errors(self._folder, "read"):
            paths = sorted(self._folder.iterdir())
        for path in paths:
            with contextlib.suppress(FileNotFoundError):  # finished, or removed by another process
                yield path, now - path.lstat().st_mtime

    def _remove(self, idle: float, now: float) -> None:
        for path, seconds in self._idle(now):
            if seconds > idle:
                _removed(path)  # what cannot be removed now is tried again by the next registration


def _signs_of_life(folder: Path) -> Callable[[], None]:
    """A function that changes the folder's time now and then: by an entry, whose time the file system's own clock
    gives."""
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > _BEAT:
            last = time.monotonic()
            sign = folder / uuid.uuid4().hex
            sign.touch()
            sign.unlink()

    return beat


def _removed(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
    return not path.exists()


def _size(path: Path) -> int:
    size = 0
    for each in (path, *path.rglob("*")):
        with contextlib.suppress(OSError):
            size += each.lstat().st_size if not each.is_dir() else 0
    return size
