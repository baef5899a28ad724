"""The version numbers that a local registry has ever given, one empty file for each.

A device may hold a package whose version somebody deleted by hand, so its number must not be given again. A set of
files needs no lock and never loses a number: two hosts that write at once create two files, or the same one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from edgepack_assets.errors import EdgepackError
from edgepack_assets.filesystem.atomic_files import disk_errors, sync_folder
from edgepack_assets.partitions import is_version


def numbers_in(folder: Path) -> set[int]:
    """Every version number that is the name of something in a folder; none if there is no such folder. It is asked for
    each version that is added, so nothing but the names is read."""
    return {int(name) for name in names_in(folder) if is_version(name)}


def names_in(folder: Path) -> list[str]:
    """The names of what is in a folder; none if there is no such folder."""
    with disk_errors(folder, "read"):
        try:
            return os.listdir(folder)  # noqa: PTH208 - a Path for each of a hundred thousand takes ten times as long
        except (FileNotFoundError, NotADirectoryError):
            return []


class GivenNumbers:
    """The numbers of one name, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> set[int]:
        """Every number that was recorded."""
        return numbers_in(self._folder)

    def add(self, numbers: Collection[int]) -> set[int]:
        """Record numbers, down to the disk. Returns every number that is recorded then."""
        recorded = self.read()
        self._record(set(numbers) - recorded)
        return recorded.union(numbers)

    def add_one(self, number: int) -> None:
        """Record a number without listing the others."""
        with disk_errors(self._folder):
            is_recorded = (self._folder / str(number)).exists()
        if not is_recorded:
            self._record({number})

    def _record(self, new: set[int]) -> None:
        with disk_errors(self._folder):
            if not new:
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            for number in new:
                (self._folder / str(number)).touch()
            sync_folder(self._folder)
            sync_folder(self._folder.parent)

    def add_if_possible(self, numbers: Collection[int]) -> None:
        """Record what a reader has seen. One that may not write reads all the same."""
        with contextlib.suppress(EdgepackError, OSError):
            if len(numbers) == 1:
                self.add_one(*numbers)
            elif numbers:
                self.add(numbers)
