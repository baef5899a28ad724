"""Temporary folders that are removed in any case: by the process that made them, or by the next one that needs one.

A process that is killed leaves its folders behind, with the records and the model that were in use. So each process
locks its folders until it ends, and before it makes a new one it removes unlocked folders of the same user.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgepack_assets.filesystem.atomic_files import disk_errors

_PREFIX = "edgepack-scratch-"
_NAME = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")
"""The form of tempfile's names."""


class Scratch:
    """A temporary folder of this process, `path`. Raises EdgepackError if it cannot be made."""

    def __init__(self) -> None:
        top = Path(tempfile.gettempdir())
        with disk_errors(top):
            _remove_abandoned(top)
            while True:
                self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
                held = _hold(self.path)
                if held is not None:
                    break  # else another process took the new folder for an abandoned one
        self._held = held

    def remove(self) -> None:
        """Remove the folder. Raises OSError if something in it cannot be removed."""
        try:
            remove_all(self.path)
        finally:
            os.close(self._held)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder that is removed at the end. Raises EdgepackError if it cannot be made or removed."""
    scratch = Scratch()
    try:
        yield scratch.path
    finally:
        with disk_errors(scratch.path, "removed"):
            scratch.remove()


def remove_all(path: Path) -> None:
    """Remove a file or a folder in which model code may have made anything. No process may write to it any more."""
    if not path.is_dir() or path.is_symlink():
        path.unlink()
        return
    try:
        shutil.rmtree(path)
    except (OSError, RecursionError):
        # These commands handle any depth, and folders without permissions.
        for command in (["chmod", "--recursive", "u+rwx", "--", str(path)], ["rm", "-rf", "--", str(path)]):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(done.stderr.strip()[-500:]) from None


def _hold(folder: Path) -> int | None:
    """A descriptor that locks the folder while it is open; None if another process locks it, or it is gone."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = folder.lstat()
    except (BlockingIOError, FileNotFoundError):
        os.close(held)
        return None
    except BaseException:
        os.close(held)
        raise
    if os.path.samestat(before, os.fstat(held)):
        return held
    os.close(held)
    return None


def _remove_abandoned(top: Path) -> None:
    with os.scandir(top) as entries:
        leftovers = [Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name)]
    for folder in leftovers:
        with contextlib.suppress(FileNotFoundError):  # its process removes it at this moment
            status = folder.lstat()
            # a folder as tempfile makes it
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700:
                _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    held = _hold(folder)
    if held is None:
        return
    # Processes of the last job may still write for a moment. Then the next call removes the folder.
    with contextlib.suppress(OSError):
        remove_all(folder)
    os.close(held)
