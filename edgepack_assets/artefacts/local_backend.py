"""The artefact store in a folder of this machine, or of a share that is mounted.

Files are written under `tmp`, synced and renamed, so a crash leaves the old file or the new one. A file's time of
modification is its last use.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from edgepack_assets.artefacts.artefact import Blob
from edgepack_assets.artefacts.backend import StoredFile, read_pieces
from edgepack_assets.artefacts.blob_cache import remove_unused
from edgepack_assets.filesystem.atomic_files import NO_LINKS, READ_ONLY, disk_errors, published, sync_folder

_PIECE = 1 << 20


class LocalBackend:
    """A folder. See `backend.Backend` for what the methods promise."""

    def __init__(self, folder: Path) -> None:
        self.root = str(folder)
        self.local_folder = folder

    def url(self, path: str) -> str:
        """`file://` and the path."""
        return f"file://{path}"

    def put_blob(self, path: str, source: Path | bytes, blob: Blob) -> None:
        """Write the bytes to a file that is read-only."""
        with published(self._new_tmp_path(), Path(path)) as stream:
            os.fchmod(stream.fileno(), READ_ONLY)
            for piece in read_pieces(source, blob, _PIECE):
                stream.write(piece)

    def move_blob(self, path: str, source: Path) -> bool:
        """Rename it, if it is on the store's file system."""
        target = Path(path)
        with disk_errors(target):
            with source.open("rb") as stream:
                os.fchmod(stream.fileno(), READ_ONLY)
                os.fsync(stream.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                source.replace(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                return False
            sync_folder(target.parent)
        return True

    def link_blob(self, path: str, source: Path) -> bool:
        """Give it a second name, if it is read-only, this user's, and on a file system that can do that."""
        target, aside = Path(path), self._new_tmp_path()
        with disk_errors(target):
            status = source.lstat()
            # Only its owner can mark a blob as used. A file with a right to write is somebody's to change.
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o222 or status.st_uid != os.geteuid():
                return False
            try:
                os.link(source, aside)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return False
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                aside.replace(target)
            finally:
                aside.unlink(missing_ok=True)  # it stays where both are names of one file already
            sync_folder(target.parent)
        return True

    def write(self, path: str, data: bytes) -> None:
        """Rename the new file over the old one."""
        with published(self._new_tmp_path(), Path(path)) as stream:
            stream.write(data)

    def create(self, path: str, data: bytes) -> None:
        """Link the new file to its name, which fails if the name is taken."""
        with published(self._new_tmp_path(), Path(path), replace=False) as stream:
            stream.write(data)

    def read(self, path: str) -> bytes:
        """The file's bytes."""
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            raise
        except OSError:
            with disk_errors(Path(path), "read"):
                raise

    def download(self, path: str, target: Path) -> None:
        """Not needed: files are read in place."""
        raise NotImplementedError

    def use(self, path: str, size: int | None = None) -> bool:
        """Set the file's time of modification to now."""
        with disk_errors(Path(path)):
            try:
                os.utime(path)
                return size is None or Path(path).stat().st_size == size
            except (FileNotFoundError, PermissionError):
                return False  # another user's file cannot be marked as used, so it is written again

    def list_paths(self, folder: str) -> list[str]:
        """Every file below the folder."""
        with disk_errors(Path(folder), "listed"):
            return sorted(_walk(folder, _raise))

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        """Every file below the folder that can be seen."""
        for path in _walk(folder, lambda error: None):
            try:
                status = Path(path).stat()
            except OSError:
                continue  # removed meanwhile, or not to be seen
            yield StoredFile(path, status.st_size, status.st_mtime)

    def remove(self, file: StoredFile) -> bool:
        """Move the file away, look at its last use, delete it or put it back."""
        return remove_unused(file, self._new_tmp_path())

    def _new_tmp_path(self) -> Path:
        path = self.local_folder / "tmp" / uuid.uuid4().hex
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _walk(folder: str, on_error: Callable[[OSError], None]) -> Iterator[str]:
    """Every file below a folder, each folder's files in order: there may be a million, and no list of all is made."""
    for parent, folders, names in os.walk(folder, onerror=on_error):
        folders.sort()
        yield from (f"{parent}/{name}" for name in sorted(names))


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # no such folder, or it was removed meanwhile
        raise error
