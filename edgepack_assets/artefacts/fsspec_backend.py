"""The artefact store in an object store that fsspec has a file system for, where an object appears whole or not at all.

The time of an object cannot be set there. So each file has a marker, an empty object below `uses`, which is written
again at each use.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec

from edgepack_assets.artefacts.artefact import Blob
from edgepack_assets.artefacts.backend import StoredFile, read_pieces
from edgepack_assets.errors import EdgepackError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.filesystem.temp_folders import scratch_folder

MARK_AGAIN = 60.0
"""Seconds after which a file of a remote storage is marked as used again."""


class FsspecBackend:
    """A folder of a file system of fsspec. See `backend.Backend` for what the methods promise.

    Errors of the network are those of the file system's own library."""

    local_folder = None

    def __init__(self, url: str) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self.root: str = root
        self._marked: dict[str, float] = {}

    def url(self, path: str) -> str:
        """The URL that fsspec gives it."""
        return str(self._fs.unstrip_protocol(path))

    def put_blob(self, path: str, source: Path | bytes, blob: Blob) -> None:
        """Upload the bytes. A file is copied first: fsspec has no way to give up an upload when the bytes turn out to
        have changed."""
        if isinstance(source, bytes):
            self._fs.pipe_file(path, source)
            return
        with scratch_folder() as folder:
            copy = folder / blob.digest
            with disk_errors(copy), copy.open("wb") as stream:
                stream.writelines(read_pieces(source, blob, 1 << 20))
            self._fs.put_file(str(copy), path)

    def move_blob(self, path: str, source: Path) -> bool:
        """No: the storage is not a folder of this machine."""
        return False

    def link_blob(self, path: str, source: Path) -> bool:
        """No: the storage is not a folder of this machine."""
        return False

    def write(self, path: str, data: bytes) -> None:
        """Write the object."""
        self._fs.pipe_file(path, data)

    def create(self, path: str, data: bytes) -> None:
        """Write the object if the name is free."""
        with contextlib.suppress(FileExistsError):
            self._fs.pipe_file(path, data, mode="create")

    def read(self, path: str) -> bytes:
        """The object's bytes."""
        data: bytes = self._fs.cat_file(path)
        return data

    def download(self, path: str, target: Path) -> None:
        """Let fsspec download the object."""
        self._fs.get_file(path, str(target))

    def use(self, path: str, size: int | None = None) -> bool:
        """Write the file's marker, unless it was written lately."""
        self._fs.invalidate_cache()
        try:
            info = self._fs.info(path)
        except FileNotFoundError:
            return False
        if size is not None and info["size"] != size:
            return False
        if self._marked.get(path, -math.inf) < time.monotonic() - MARK_AGAIN:
            self._fs.pipe_file(self._marker_path(path), b"")
            self._marked[path] = time.monotonic()
        return True

    def list_paths(self, folder: str) -> list[str]:
        """Every object below the folder."""
        self._fs.invalidate_cache()
        if not self._fs.exists(folder):
            return []
        with disk_errors(Path(folder), "listed"):
            walk = self._fs.walk(folder, detail=True, on_error="raise")
            return sorted(info["name"] for _, _, files in walk for info in files.values())

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        """Every object below the folder; the last use is the later time of its own and its marker's."""
        self._fs.invalidate_cache()
        markers = self._fs.find(f"{self.root}/uses", detail=True)
        marked = {path: last_change(info) for path, info in markers.items()}
        for path, info in self._fs.find(folder, detail=True).items():
            used = max(last_change(info), marked.get(self._marker_path(path), 0.0))
            yield StoredFile(path, int(info["size"]), used)

    def remove(self, file: StoredFile) -> bool:
        """Delete the object and its marker. A use between the check and the deletion is lost: fsspec has no
        conditional deletion."""
        try:
            info = self._fs.info(file.path)
        except FileNotFoundError:
            return False
        marker = self._marker_path(file.path)
        is_marked = self._fs.exists(marker)
        if max(last_change(info), last_change(self._fs.info(marker)) if is_marked else 0.0) != file.used:
            return False
        self._fs.rm_file(file.path)
        if is_marked:
            self._fs.rm_file(marker)
        return True

    def _marker_path(self, path: str) -> str:
        return f"{self.root}/uses{path.removeprefix(self.root)}"


def last_change(info: Mapping[str, Any]) -> float:
    """When a file was last written. Each file system has its own name for that."""
    for key in ("mtime", "last_modified", "LastModified", "updated", "modified", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    raise EdgepackError(
        f"{info.get('name')}: its storage does not say when it was written, so its last use is unknown and no garbage "
        "can be collected"
    )
