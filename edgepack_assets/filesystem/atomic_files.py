"""Writing files whole or not at all, digests of files, and errors of the disk as errors for the user."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import IO

from edgepack_assets.errors import EdgepackError, InfrastructureError, TransientError

_TRANSIENT = {
    # a mounted share has lost its server
    errno.ESTALE,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENETRESET,
    errno.ENOTCONN,
    errno.EIO,
    errno.ENOLCK,
    # the machine has run out of a resource
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
}
"""Errors about the condition of the machine, not about the file that is read or written."""


_LEFTOVER_NAMES = frozenset(
    {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", ".ipynb_checkpoints", ".spotlight-v100"}
    | {".trashes", ".fseventsd", ".directory", "$recycle.bin", "system volume information"}
    | {"__pycache__", ".git"}
)


def is_leftover(path: PurePath) -> bool:
    """Whether an operating system, a notebook, Python or git left this file behind (`._x`, `.DS_Store`, `Thumbs.db`,
    anything in `__MACOSX`, `.ipynb_checkpoints` or `__pycache__`). `path` is relative to the folder that is read:
    folders above do not count."""
    return any(part.startswith("._") or part.lower() in _LEFTOVER_NAMES for part in path.parts)


_LFS = b"version https://git-lfs.github.com/spec/"
_LONGEST_POINTER = 1024  # bytes, as the specification of Git LFS says


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is a Git LFS pointer: the few lines that stand for a file which was not downloaded."""
    with disk_errors(file, "read"):
        if file.stat().st_size >= _LONGEST_POINTER:
            return False
        with file.open("rb") as stream:
            return stream.read(len(_LFS)) == _LFS


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


READ_ONLY = 0o444
"""The mode of a file that is never written into again."""
NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES})
"""Errors of os.link that say that this file, or file system, takes no second name."""


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system cannot do that. Only for files that nobody writes
    into any more: a change would show under both names. Raises OSError."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, target)


def write_checksum(file: Path, digest: str) -> Path:
    """Write the .sha256 file beside `file`, named and written as Siemens' SDK does for a package: `sha256sum --check`
    reads it. `digest` is the sha256 of the file's bytes. Raises EdgepackError if another one is there."""
    path, text = file.with_suffix(".sha256"), f"{digest}  {file.name}"
    with disk_errors(path):
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise EdgepackError(f"{path} is there already, of another file; remove it")
        path.write_text(text, encoding="utf-8")
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is whole. Raises EdgepackError (disk full, ...)."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with published(path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp"), path) as stream:
        yield stream


@contextlib.contextmanager
def disk_errors(path: Path, done: str = "written") -> Iterator[None]:
    """Turn an error of the operating system (disk full, no permission, ...) into an EdgepackError that names `path`;
    into a TransientError if it is about the condition of the machine: a lost share, a full disk; into an
    InfrastructureError if a person has to allow it."""
    try:
        yield
    except OSError as error:
        other = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
        is_forbidden = isinstance(error, PermissionError) or error.errno == errno.EROFS
        kind = TransientError if is_transient(error) else InfrastructureError if is_forbidden else EdgepackError
        raise kind(f"{path}: cannot be {done}: {error.strerror or error}{other}") from error


def is_transient(error: OSError) -> bool:
    """Whether an error of the operating system is about the network or a resource that the machine has run out of."""
    return isinstance(error, (ConnectionError, TimeoutError, socket.gaierror)) or error.errno in _TRANSIENT


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


def sync_tree(path: Path) -> None:
    """Make everything that was written on the file system of this folder survive a power failure: one call, where a
    sync per file would be thousands."""
    try:
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except AttributeError:  # a C library without it
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
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
