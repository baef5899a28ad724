"""Local copies of a remote storage's blobs, and deleting local files that other processes may begin to use."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from edgepack_assets.artefacts.artefact import Blob
from edgepack_assets.artefacts.backend import StoredFile
from edgepack_assets.filesystem.atomic_files import disk_errors, file_digest

KEPT = 30 * 24 * 3600.0
"""Seconds after which an unused copy is deleted although its blob is needed: it can be downloaded again."""


class BlobCache:
    """Verified, read-only copies of blobs in a folder of this machine, which several processes may share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "blobs"
        self._tmp = folder / "tmp"

    def get(self, blob: Blob, download: Callable[[Path], None]) -> Path:
        """The file with the blob's bytes. `download` writes them to the path it is given, and raises an error if they
        are not the blob's bytes."""
        path = self._folder / blob.digest[:2] / blob.digest
        with disk_errors(path):
            if path.is_file() and file_digest(path) == blob.digest and _touched(path):
                return path
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
            try:
                download(temporary)
                temporary.chmod(0o444)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return path

    def garbage(self, needed: Collection[str], grace: float) -> Iterator[StoredFile]:
        """Copies that were not used for `grace` seconds, or for `KEPT` if their digest is in `needed`; and temporary
        files that a crash left behind."""
        now = time.time()
        with disk_errors(self._folder, "listed"):
            for path in sorted(self._folder.rglob("*")):
                if path.is_file():
                    status = path.stat()
                    if status.st_mtime <= now - (max(KEPT, grace) if path.name in needed else grace):
                        yield StoredFile(str(path), status.st_size, status.st_mtime, is_cached=True)

    def remove(self, file: StoredFile) -> bool:
        """Delete a copy, unless it was used since."""
        return remove_unused(file, self._tmp / uuid.uuid4().hex)


def remove_unused(file: StoredFile, temporary: Path) -> bool:
    """Delete a local file, unless it was used since. `temporary` is a free name on its file system.

    The file is renamed before its time is compared. A process that uses it at the same moment either finds it gone and
    writes it again, or has changed its time, and then it is renamed back."""
    with disk_errors(temporary):
        temporary.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(Path(file.path)):
        try:
            Path(file.path).rename(temporary)
        except FileNotFoundError:
            return False
        if temporary.stat().st_mtime != file.used:
            temporary.rename(file.path)
            return False
        temporary.unlink()
    return True


def _touched(path: Path) -> bool:
    """Mark a copy as used now; whether that could be done. Another user's copy is downloaded again."""
    try:
        os.utime(path)
    except (FileNotFoundError, PermissionError):
        return False
    return True
