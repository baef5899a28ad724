"""Which versions of a local registry may hold the same content, one empty file for each: `<number>-<digest of tags>`.

Each registration of a package asks for the version that has the same `IDENTITY` tags. Reading the tags of a hundred
thousand versions for it takes ten seconds. The index only spares reading: a version that it names is read before it
counts, and one that it does not know (an earlier release or a person has put it there) is read, and added.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from edgepack_assets.errors import EdgepackError
from edgepack_assets.filesystem.atomic_files import disk_errors, sync_folder
from edgepack_assets.registry.base import IDENTITY
from edgepack_assets.registry.given_numbers import names_in

_DIGITS = 32


class TagIndex:
    """The entries of one name, in a folder of their own. An entry is never removed: a version may have several, of
    which the tags that it has now are one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, number: int, tags: Mapping[str, str]) -> None:
        """Record the tags of a version, down to the disk. Call it before a version appears or gets these tags: if the
        process dies in between, the entry names what is not there, which does no harm."""
        if any(tag in tags for tag in IDENTITY):
            self._write([f"{number}-{_digest(tags)}"])

    def add_if_possible(self, found: Mapping[int, Mapping[str, str]]) -> None:
        """Record the tags of versions that a reader has seen. One that may not write reads all the same."""
        with contextlib.suppress(EdgepackError):
            self._write([f"{number}-{_digest(tags)}" for number, tags in found.items()])

    def _write(self, entries: Sequence[str]) -> None:
        with disk_errors(self._folder):
            missing = [entry for entry in entries if not (self._folder / entry).exists()]
            if not missing:
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            for entry in missing:
                (self._folder / entry).touch()
            sync_folder(self._folder)
            sync_folder(self._folder.parent)

    def look_up(self, numbers: Collection[int], tags: Mapping[str, str]) -> tuple[list[int], list[int]]:
        """(those of `numbers` that have or had these tags, those that the index does not know), each lowest first."""
        wanted, known, same = _digest(tags), set(), set()
        for name in names_in(self._folder):
            number, _, digest = name.partition("-")
            known.add(number)
            if digest == wanted:
                same.add(number)
        return (
            sorted(each for each in numbers if str(each) in same),
            sorted(each for each in numbers if str(each) not in known),
        )


def _digest(tags: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([tags.get(tag) for tag in IDENTITY]).encode()).hexdigest()[:_DIGITS]
