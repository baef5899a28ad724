"""The lock under which a name in a local registry is changed, on this machine or on a share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.filesystem.atomic_files import disk_errors

LOCK_TIMEOUT = 60.0
"""Seconds to wait for another process; a lock is held for milliseconds."""


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. Raises TransientError if another process holds it for too long, EdgepackError if the
    file system has no locks."""
    file_lock = filelock.FileLock(path, timeout=LOCK_TIMEOUT)
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file_lock.acquire()
    except filelock.Timeout:
        raise TransientError(
            f"{path}: held by another process for {LOCK_TIMEOUT:.0f} s; try again when it has ended"
        ) from None
    except NotImplementedError as error:
        raise EdgepackError(f"{path}: this file system has no locks, which a registry needs: {error}") from error
    try:
        yield
    finally:
        file_lock.release()
