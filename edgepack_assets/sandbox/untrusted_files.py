"""Files that a child has written: opened without following its links, and moved out of its reach."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edgepack_assets.errors import ComponentError
from edgepack_assets.filesystem.atomic_files import disk_errors

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def open_output(path: Path, limit: int, subject: str, below: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file that a child has written. Raises ComponentError if it is not there, is a link, a pipe or a
    second name of another file (the child would have us read what it may not), or has more than `limit` bytes.

    `below` is the folder that the child may write to, if the file still lies there: no folder between the two may be
    a link either."""
    with _folder(path, subject, below) as folder, _opened(path, folder, limit, subject) as stream:
        yield stream


def take_output(output: Path, path: Path, limit: int, subject: str, below: Path) -> None:
    """Move a file that a job has written below `below` to `path`, out of the job's reach. This process's user
    owns it then.

    Raises ComponentError as `open_output` does, EdgepackError if it cannot be written."""
    with (
        _folder(output, subject, below) as folder,
        _opened(output, folder, limit, subject) as stream,
        disk_errors(path),
    ):
        os.fchown(stream.fileno(), os.geteuid(), os.getegid())
        os.fchmod(stream.fileno(), 0o600)
        try:
            os.rename(output.name, path, src_dir_fd=folder)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with path.open("wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)


@contextlib.contextmanager
def _folder(path: Path, subject: str, below: Path | None) -> Iterator[int]:
    """The folder that holds the file, as a descriptor."""
    top, inner = (below, path.relative_to(below).parts[:-1]) if below else (path.parent, ())
    descriptor = os.open(top, _FOLDER)
    try:
        for name in inner:
            try:
                inside = os.open(name, _FOLDER, dir_fd=descriptor)
            except OSError as error:
                raise ComponentError(f"{subject}: {path.name} cannot be read: {error.strerror}: {name}") from None
            os.close(descriptor)
            descriptor = inside
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(path: Path, folder: int, limit: int, subject: str) -> Iterator[IO[bytes]]:
    try:
        # a pipe would block, and a link lead elsewhere
        how = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path.name, how, dir_fd=folder)
    except OSError as error:
        raise ComponentError(f"{subject}: {path.name} cannot be read: {error.strerror or error}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise ComponentError(f"{subject}: {path.name} is not a file of its own")
        if status.st_size > limit:
            raise ComponentError(f"{subject}: {path.name} has {status.st_size} bytes; at most {limit} are read")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            yield stream
    finally:
        os.close(descriptor)
