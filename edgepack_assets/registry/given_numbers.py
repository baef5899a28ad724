"""The version numbers that a local registry has ever given, one empty file for each.

A device may hold a package whose version somebody deleted by hand, so its number must not be given again. A set of
files needs no lock and never loses a number: two hosts that write at once create two files, or the same one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from edgepack_assets.errors import EdgepackError
from edgepack_assets.filesystem.atomic_files import disk_errors, sync_folder
from edgepack_assets.partitions import is_version


class GivenNumbers:
    """The numbers of one name, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> set[int]:
        """Every number that was recorded."""
        with disk_errors(self._folder, "read"):
            try:
                names = [entry.name for entry in self._folder.iterdir()]
            except FileNotFoundError:
                return set()
        return {int(name) for name in names if is_version(name)}

    def add(self, numbers: Iterable[int]) -> None:
        """Record numbers, down to the disk. Those that are recorded already cost one look."""
        wanted = set(numbers)
        with disk_errors(self._folder):
            if len(wanted) == 1:  # one version is looked up without listing the others
                new = {number for number in wanted if not (self._folder / str(number)).exists()}
            else:
                new = wanted - self.read()
            if not new:
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            for number in new:
                (self._folder / str(number)).touch()
            sync_folder(self._folder)
            sync_folder(self._folder.parent)

    def add_if_possible(self, numbers: Iterable[int]) -> None:
        """Record what a reader has seen. One that may not write reads all the same."""
        with contextlib.suppress(EdgepackError, OSError):
            self.add(numbers)
