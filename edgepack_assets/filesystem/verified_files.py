"""Large files whose bytes were held against their digest already: one run does not read them again and again.

A file is the same one as long as the file system says so: inode, size, and times of change and modification. Small
files are not remembered: reading them costs nothing, and a change may come too soon after another to have another time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

SMALLEST = 16 << 20
"""Bytes of a file that is remembered."""

_Identity = tuple[int, int, int, int, int]


class VerifiedFiles:
    """Local paths of verified files, by what identified them then."""

    def __init__(self) -> None:
        self._known: dict[str, _Identity] = {}

    def remember(self, path: str) -> None:
        """The file's bytes are known to be right."""
        identity = _identity(path)
        if identity is not None:
            self._known[path] = identity

    def is_known(self, path: str) -> bool:
        """Whether the file is the one that was remembered, unchanged."""
        known = self._known.get(path)
        return known is not None and known == _identity(path)

    @contextlib.contextmanager
    def kept(self, path: str) -> Iterator[None]:
        """What the block does to a file that is known (set its times) leaves it known."""
        was_known = self.is_known(path)
        yield
        if was_known:
            self.remember(path)


def _identity(path: str) -> _Identity | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - paths are text in the artefact store
    except OSError:
        return None
    if status.st_size < SMALLEST:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
