"""Where the artefact store keeps its files: the interface of a storage, and what all three of them share.

local_backend.py is a folder of this machine, fsspec_backend.py any object store that fsspec knows, azure_backend.py a
container of Azure storage. Which files there are, and what they hold, is in store.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgepack_assets.artefacts.artefact import Blob
from edgepack_assets.errors import EdgepackError


@dataclass(frozen=True)
class StoredFile:
    """A file: its path, size in bytes, and last use (seconds since the epoch). `etag` is its version, where the storage
    has such. `is_cached` says that it is a local copy in the blob cache and not a file of the storage."""

    path: str
    size: int
    used: float
    etag: str = ""
    is_cached: bool = False


class Backend(Protocol):
    """A storage. Paths are absolute in it: they begin with `root` and a slash.

    A file appears whole or not at all, and several processes may write and read at the same time. Using a file (`use`)
    is recorded, so that `remove` can spare it. Errors of the disk and of the network are EdgepackErrors; those that a
    retry may overcome are TransientErrors."""

    @property
    def root(self) -> str:
        """The path below which everything lies."""

    @property
    def local_folder(self) -> Path | None:
        """The root as a folder of this machine whose files are read in place; None if they must be downloaded."""

    def url(self, path: str) -> str:
        """The URL of a path, for messages."""

    def put_blob(self, path: str, source: Path | bytes, blob: Blob) -> None:
        """Write a file that holds the blob's bytes. A whole one that is there may stay.

        Raises EdgepackError, and keeps nothing, if a file `source` changes while it is read."""

    def move_blob(self, path: str, source: Path) -> bool:
        """Make the file `source` itself the blob's. False where that is not possible: then it must be written."""

    def link_blob(self, path: str, source: Path) -> bool:
        """Make the file `source` the blob's as well, under a second name. False where that is not possible, or where
        somebody may write into the file: then it must be written."""

    def write(self, path: str, data: bytes) -> None:
        """Write a small file, or replace it in one step."""

    def create(self, path: str, data: bytes) -> None:
        """Write a small file unless there is one. Of several writers at the same time exactly one succeeds; the
        others are not informed."""

    def read(self, path: str) -> bytes:
        """A small file's bytes. Does not count as use. Raises FileNotFoundError."""

    def download(self, path: str, target: Path) -> None:
        """Write a file's bytes to `target`, which does not exist. Raises FileNotFoundError."""

    def use(self, path: str, size: int | None = None) -> bool:
        """Whether there is such a file, of this size if one is given. If so, it counts as used now."""

    def list_paths(self, folder: str) -> list[str]:
        """The paths of all files below a folder; none if there is no such folder.

        Raises EdgepackError if a part of it cannot be listed: a file that is left out could be taken for missing."""

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        """All files below a folder with their last use. What cannot be listed may be left out."""

    def remove(self, file: StoredFile) -> bool:
        """Delete a file that `list_files` gave, unless it was used since. Returns whether this call deleted it."""


def read_pieces(source: Path | bytes, blob: Blob, length: int) -> Iterator[bytes]:
    """The blob's bytes in pieces. Raises EdgepackError at the end if the file `source` does not hold them any more."""
    if isinstance(source, bytes):
        yield from (source[at : at + length] for at in range(0, len(source), length))
        return
    digest = hashlib.sha256()
    with source.open("rb") as stream:
        while piece := stream.read(length):
            digest.update(piece)
            yield piece
    if digest.hexdigest() != blob.digest:
        raise EdgepackError(f"{source} changed while it was read; nothing was kept. Try again")
