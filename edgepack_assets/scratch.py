"""Temporary folders that somebody removes in any case: whoever made one, or the next who needs one.

A process that is killed leaves its folders behind, with the records and the model that were in use. So each is held by
a lock that ends with its process, and who makes a folder removes those of the same user that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgepack_assets.files import disk_errors

_PREFIX = "edgepack-scratch-"
_HELD = ".held"
"""The file in a folder that its process holds a lock on. It appears when it is locked."""


class Scratch:
    """A temporary folder of this process, `path`. Raises EdgepackError if it cannot be made."""

    def __init__(self) -> None:
        top = Path(tempfile.gettempdir())
        with disk_errors(top):
            _remove_abandoned(top)
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._held = os.open(self._folder / f"{_HELD}.tmp", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self._folder / f"{_HELD}.tmp").rename(self._folder / _HELD)
            self.path = self._folder / "files"
            self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove the folder. Raises OSError if something in it cannot be removed."""
        try:
            _remove(self._folder)
        finally:
            os.close(self._held)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder that is gone afterwards. Raises EdgepackError if it cannot be made or removed."""
    scratch = Scratch()
    try:
        yield scratch.path
    finally:
        with disk_errors(scratch.path, "removed"):
            scratch.remove()


def remove_all(path: Path) -> None:
    """Remove a file or a folder to which model code may have done anything. Nobody writes to it any more."""
    if not path.is_dir() or path.is_symlink():
        path.unlink()
        return
    try:
        shutil.rmtree(path)
    except (OSError, RecursionError):
        # These go as deep as there are folders, and past those that have no rights.
        for command in (["chmod", "--recursive", "u+rwx", "--", str(path)], ["rm", "-rf", "--", str(path)]):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(done.stderr.strip()[-500:]) from None


def _remove(folder: Path) -> None:
    """The lock goes last: without it what is left would be nobody's."""
    for entry in list(folder.iterdir()):
        if entry.name != _HELD:
            remove_all(entry)
    remove_all(folder)


def _remove_abandoned(top: Path) -> None:
    with os.scandir(top) as entries:
        found = [entry for entry in entries if entry.name.startswith(_PREFIX)]
    for entry in found:
        with contextlib.suppress(FileNotFoundError):  # its process ends as we look
            if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(folder: Path) -> None:
    held = os.open(folder / _HELD, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # in use
    else:
        # What the last job started may need a moment to end, and still write: then the next one removes it.
        with contextlib.suppress(OSError):
            _remove(folder)
    finally:
        os.close(held)
