"""Large files that are hashed by a thread while something else is done with them, such as running a package.

A digest holds for the very file that was hashed: whoever asks must have the same inode, size and time of modification.
So a second name of it will do, and a file that was written to since will not.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

from edgepack_assets.filesystem.verified_files import SMALLEST

_MOST = 2
"""Files of which a digest is kept: one is built after the other."""

_Identity = tuple[int, int, int, int]
_hashed: dict[tuple[int, int], Future[tuple[_Identity, str] | None]] = {}
"""Device and inode -> what was hashed. None if it was written to meanwhile."""


def start_hashing(path: Path) -> None:
    """Begin to hash a file that is finished, if that takes long. What is wrong with it is met by whoever reads it."""
    with contextlib.suppress(OSError, RuntimeError):  # it cannot be read, or there is no other thread
        stream = path.open("rb")
        device, inode, size, _ = identity = _identity(os.fstat(stream.fileno()))
        if size < SMALLEST:
            stream.close()
            return
        pool = ThreadPoolExecutor(1, "hash ahead")
        _hashed[device, inode] = pool.submit(_hash, stream, identity)
        pool.shutdown(wait=False)
        while len(_hashed) > _MOST:
            _hashed.pop(next(iter(_hashed)), None)


def digest_of(path: Path) -> str | None:
    """sha256 (hex) of a file as it is, if `start_hashing` was told of it; waits for that. None if it was not, or if the
    file has changed. It is given once."""
    try:
        identity = _identity(path.stat())
        begun = _hashed.pop(identity[:2], None)
        hashed = None if begun is None else begun.result()
    except OSError:
        return None
    return hashed[1] if hashed is not None and hashed[0] == identity else None


def _hash(stream: IO[bytes], identity: _Identity) -> tuple[_Identity, str] | None:
    with stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # it asks for less
        return (identity, digest) if _identity(os.fstat(stream.fileno())) == identity else None


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
