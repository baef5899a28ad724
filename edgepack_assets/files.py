"""Files written whole or not at all, their digests, and errors of the disk in words for the user."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edgepack_assets.errors import EdgepackError, TransientError

_NETWORK = {
    errno.ESTALE,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENETRESET,
    errno.ENOTCONN,
}
"""What a mounted share says that has lost its server."""


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is whole. Raises EdgepackError (disk full, ...)."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with published(path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp"), path) as stream:
        yield stream


@contextlib.contextmanager
def disk_errors(path: Path, done: str = "written") -> Iterator[None]:
    """Turn what the operating system says (disk full, no permission, ...) into an EdgepackError that names
    `path`; a TransientError if it speaks of the network, as a lost share does."""
    try:
        yield
    except OSError as error:
        other = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
        network = isinstance(error, (ConnectionError, TimeoutError, socket.gaierror)) or error.errno in _NETWORK
        kind = TransientError if network else EdgepackError
        raise kind(f"{path}: cannot be {done}: {error.strerror or error}{other}") from error


def sync_folder(path: Path) -> None:
    """Make renames in a folder survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network shares that cannot sync a folder
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def published(aside: Path, path: Path, replace: bool = True) -> Iterator[IO[bytes]]:
    """Write `aside`, which becomes `path` when the block ends; without `replace` only if there is none."""
    with disk_errors(path):
        try:
            with aside.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            if replace:
                aside.replace(path)
            else:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, path)
            sync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)
