"""The local copy of a remote root's blobs, and how files of this machine are deleted while others may want them."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgepack_assets.artefacts.artefact import Blob
from edgepack_assets.filesystem.atomic_files import disk_errors, file_digest

KEPT = 30 * 24 * 3600.0
"""Seconds for which a copy is kept that nobody used, though its blob is needed: it can be fetched again."""


@dataclass(frozen=True)
class Garbage:
    """A file that nothing needs: its path, bytes, and last use (seconds since the epoch); whether it is a file of
    this machine."""

    path: str
    size: int
    used: float
    local: bool = False


class BlobCache:
    """Verified, read-only copies of blobs in a folder of this machine, which several processes may share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "blobs"
        self._tmp = folder / "tmp"

    def get(self, blob: Blob, download: Callable[[Path], None]) -> Path:
        """The file with the blob's bytes. `download` writes it to the path it is given, and raises what there is to
        raise if those are not the blob's bytes."""
        path = self._folder / blob.digest[:2] / blob.digest
        with disk_errors(path):
            if path.is_file() and file_digest(path) == blob.digest and _touched(path):
                return path
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
            try:
                download(aside)
                aside.chmod(0o444)
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)
        return path

    def garbage(self, needed: Collection[str], grace: float) -> Iterator[Garbage]:
        """Copies that nobody used for `grace` seconds, or for `KEPT` if their digest is in `needed`; and what a
        crash left behind."""
        now = time.time()
        with disk_errors(self._folder, "listed"):
            for path in sorted(self._folder.rglob("*")):
                if path.is_file():
                    told = path.stat()
                    if told.st_mtime <= now - (max(KEPT, grace) if path.name in needed else grace):
                        yield Garbage(str(path), told.st_size, told.st_mtime, local=True)

    def remove(self, item: Garbage) -> bool:
        """Delete a copy, unless it was used since."""
        return remove_unused(item, self._tmp / uuid.uuid4().hex)


def remove_unused(item: Garbage, aside: Path) -> bool:
    """Delete a file of this machine, unless it was used since; `aside` is a free name on its file system.

    It is taken away first and looked at then: who uses it in between either finds it gone and writes it anew, or has
    changed its time, and it is put back."""
    with disk_errors(aside):
        aside.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(Path(item.path)):
        try:
            Path(item.path).rename(aside)
        except FileNotFoundError:
            return False
        if aside.stat().st_mtime != item.used:
            aside.rename(item.path)
            return False
        aside.unlink()
    return True


def _touched(path: Path) -> bool:
    """Mark a copy as used now; whether it is still there. Another user's cannot be marked and is copied anew."""
    try:
        os.utime(path)
    except (FileNotFoundError, PermissionError):
        return False
    return True
