"""A registry in a folder: of this machine, or of a share that several machines mount.

    <root>/models/<name>/<version>/version.json    written once
                                   tags.json       replaced whole
                                   archived.json   there if the version is out of use
                                   content/<file or folder as it was registered>
                                   content/<stem of a package>.sha256
    <root>/data/...                                likewise
    <root>/numbers/models-<name>/<version>         empty: this number was given once (given_numbers.py)
    <root>/index/models-<name>/<version>-<digest>  empty: which packages are the same (tag_index.py)
    <root>/staging/                                registrations in progress (staging.py)
    <root>/locks/

A version is put together in staging/, read back and synced to disk before one rename makes it appear, so it is
there whole or not at all. Which number it gets is decided under a lock; were the lock not to hold (some shares
don't honour locks), the rename still fails on a number that is taken, and the next one is tried.

A version that cannot be read, that is a link, or whose content is gone or of another size, is damaged: it keeps its
number, is listed apart with the reason, and hides no other version. So it is with a name whose folder cannot be read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from edgepack_assets.config.schema import is_asset_name
from edgepack_assets.config.versions import Version
from edgepack_assets.errors import CorruptError, EdgepackError, NotFoundError, TransientError
from edgepack_assets.filesystem.atomic_files import disk_errors, sync_folder, write_checksum
from edgepack_assets.filesystem.verified_files import VerifiedFiles
from edgepack_assets.partitions import is_version
from edgepack_assets.registry.base import (
    DamagedVersion,
    Kind,
    Lookup,
    RegisteredVersion,
    Registry,
    ResolvedVersion,
    Unfinished,
    check_name,
    check_tags,
    not_found,
    taken_error,
)
from edgepack_assets.registry.copies import copy_into, copy_verified, measured, seal
from edgepack_assets.registry.given_numbers import GivenNumbers, numbers_in
from edgepack_assets.registry.name_lock import lock
from edgepack_assets.registry.staging import Staging
from edgepack_assets.registry.tag_index import TagIndex
from edgepack_assets.registry.version_folder import VersionFile, read_folder, read_tags, read_version_file, write_json

_SETTLED_AFTER_NS = 5_000_000_000
_NEWEST: dict[Path, tuple[int, int | None]] = {}
"""Folder of a name -> (its time of change in ns, the highest version in it): a sensor asks every few seconds."""

_ARCHIVED = "archived.json"
_FOLDERS = {Kind.MODEL: "models", Kind.DATA: "data"}


class LocalRegistry(Registry):
    """The `Registry` interface (see base.py) on a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._staging = Staging(self.path / "staging")
        self._verified = VerifiedFiles()

    def names(self, kind: Kind) -> list[str]:
        """Every registered name of a kind, sorted."""
        folder = self.path / _FOLDERS[kind]
        with disk_errors(folder, "read"):
            entries = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return sorted(name for name in entries if is_asset_name(name) and any(self._taken_if_readable(kind, name)))

    def versions(self, kind: Kind, name: str) -> list[RegisteredVersion]:
        """All versions of a name, lowest first; empty if there are none."""
        return [*self._listed(kind, name)[0]]

    def last(self, kind: Kind, name: str) -> ResolvedVersion | None:
        """The last of `versions`, or None: only it, and damaged ones above it, are read."""
        for version in self._newest_first(kind, name, self._taken_if_readable(kind, name)[0]):
            if isinstance(version, ResolvedVersion):
                self._given(kind, name).add_if_possible([version.number])
                return version
        return None

    def damaged(self, kind: Kind, name: str, above: int = 0) -> list[DamagedVersion]:
        """The damaged versions of a name with a number greater than `above`, lowest first."""
        return self._listed(kind, name, above)[1]

    def versions_and_damaged(self, kind: Kind, name: str) -> tuple[list[RegisteredVersion], list[DamagedVersion]]:
        """`versions` and `damaged`, each read once."""
        sound, damaged = self._listed(kind, name)
        return [*sound], damaged

    def look_up(self, kind: Kind, name: str, tags: Mapping[str, str]) -> Lookup:
        """See base.py. Only versions that have these tags, or that the index does not know, are read."""
        check_name(kind, name)
        # In this order: what appears between the two is seen, and what appears later gets a higher number.
        given = self._given(kind, name).read()
        taken = self._taken(kind, name)
        index = self._index(kind, name)
        may_be_same, unknown = index.look_up(taken, tags)
        found = [*self._newest_first(kind, name, [*may_be_same, *unknown])]
        sound = [each for each in found if isinstance(each, ResolvedVersion)]
        index.add_if_possible({each.number: each.tags for each in sound if each.number in {*unknown}})
        return Lookup(
            max([*taken, *given], default=0),
            [each for each in sound if tags.items() <= each.tags.items()],
            [each for each in found if isinstance(each, DamagedVersion)],
            lambda: self._newest_first(kind, name, taken),
        )

    def _newest_first(
        self, kind: Kind, name: str, numbers: Sequence[int]
    ) -> Iterator[ResolvedVersion | DamagedVersion]:
        """Versions of a name, the highest first, archived ones left out; each is read when it is asked for. Raises
        TransientError if the registry itself is away."""
        for number in sorted(numbers, reverse=True):
            if self._is_archived(kind, name, number):
                continue
            try:
                version: ResolvedVersion | DamagedVersion = self._read(kind, name, number)
            except (CorruptError, TransientError) as error:
                passing = isinstance(error, TransientError)
                if passing:
                    self._taken(kind, name)  # raises if not this version alone is away
                tags = self._tags_at_hand(kind, name, number)
                version = DamagedVersion(kind, name, number, str(error), tags or {}, tags is not None, passing)
            yield version

    def _listed(self, kind: Kind, name: str, above: int = 0) -> tuple[list[ResolvedVersion], list[DamagedVersion]]:
        """(the sound versions, the damaged ones) of a name. Raises TransientError if the registry itself is away."""
        taken, unreadable = self._taken_if_readable(kind, name)
        taken = [number for number in taken if number > above]
        listed = [*self._newest_first(kind, name, taken)][::-1]
        # Whoever got a version from here has listed it before, so no number that is in use on a device is missed.
        self._given(kind, name).add_if_possible(taken)
        damaged = [each for each in listed if isinstance(each, DamagedVersion)]
        return [each for each in listed if isinstance(each, ResolvedVersion)], [*unreadable, *damaged]

    def get(self, kind: Kind, name: str, version: Version) -> ResolvedVersion:
        """One version. Raises NotFoundError, naming what there is."""
        check_name(kind, name)
        if not isinstance(version, int) or not is_version(str(version)):
            raise self._not_found(kind, name, version)
        if not os.path.lexists(self._folder(kind, name, version)) or self._is_archived(kind, name, version):
            raise self._not_found(kind, name, version)
        read = self._read(kind, name, version)
        self._given(kind, name).add_if_possible([version])
        return read

    def newest_version(self, kind: Kind, name: str) -> int | None:
        """The highest version number of a name, or None: a hint, see base.py."""
        check_name(kind, name)
        folder = self.path / _FOLDERS[kind] / name
        with disk_errors(folder, "read"):
            try:
                changed = folder.stat().st_mtime_ns
            except FileNotFoundError:
                return None
        known = _NEWEST.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        newest = next((n for n in reversed(self._taken(kind, name)) if self._is_in_use(kind, name, n)), None)
        # A folder that changes twice within one tick of the file system's clock shows one time of change for both.
        if abs(time.time_ns() - changed) > _SETTLED_AFTER_NS:
            _NEWEST[folder] = changed, newest
        else:
            _NEWEST.pop(folder, None)
        return newest

    def download(self, version: RegisteredVersion, destination: Path) -> Path:
        """Copy the version's file or folder into `destination`, verified; nothing is overwritten."""
        return self._download(version, destination, link=False)

    def view(self, version: RegisteredVersion, destination: Path) -> Path:
        """As `download`, by hard links where `destination` is on the same file system."""
        return self._download(version, destination, link=True)

    def _download(self, version: RegisteredVersion, destination: Path, link: bool) -> Path:
        source = self._content(version.kind, version.name, version.number)
        target = destination / source.name
        if target.exists() or target.is_symlink():
            raise EdgepackError(f"{target} is there already; remove it or download {version} somewhere else")
        if not source.exists():
            raise CorruptError(f"{source}: the content of {version} is gone; register it as a new version")
        made_here = not destination.exists()
        try:
            copy_verified(source, target, version, link, self._verified)
        except BaseException:
            if made_here:
                with contextlib.suppress(OSError):  # not made yet, or others have put something there
                    destination.rmdir()
            raise
        return target

    def register(
        self,
        kind: Kind,
        name: str,
        path: Path,
        tags: Mapping[str, str],
        version: int | None = None,
        *,
        is_final: bool = False,
        checksum: bool = False,
    ) -> ResolvedVersion:
        """Register a file or folder, as the next integer version or as exactly `version`; with `checksum` a file gets
        its .sha256 file beside it."""
        check_name(kind, name)
        tags = check_tags(tags)
        if version is not None and not is_version(str(version)):
            raise EdgepackError(f"{version!r} cannot be a version: a version is a whole number from 1 up")
        with self._staging.new() as (staging, beat):
            with disk_errors(self.path):
                (staging / "content").mkdir()
                content = copy_into(path.resolve(), staging / "content", sync=True, copied=beat, link=is_final)
                sync_folder(staging / "content")
            # The copy is what will be kept, so the copy is what is measured: the source may still change.
            digest, size = measured(content)
            if checksum and content.is_file():
                seal(write_checksum(content, digest))
            beat()
            write_json(staging / "tags.json", tags)
            with self._lock(kind, name):
                fixed = VersionFile(
                    created=datetime.now(UTC),
                    digest=digest,
                    size=size,
                    is_folder=content.is_dir(),
                    entry=content.name,
                )
                write_json(staging / "version.json", fixed.model_dump(mode="json"))
                # What cannot be read back must not appear: it would be damaged for ever.
                if read_folder(staging) != (fixed, tags):
                    raise CorruptError(f"{staging}: the disk gives back something else than was written; try again")
                number = self._place(kind, name, staging, version, tags)
                self._verified.remember(str(self._folder(kind, name, number) / "content" / content.name))
        return self._read(kind, name, number)

    def set_tags(
        self, version: RegisteredVersion, tags: Mapping[str, str], without: Collection[str] = ()
    ) -> ResolvedVersion:
        """Add or replace tags of a version, keeping its other tags but for those in `without`."""
        tags = check_tags(tags)
        with self._lock(version.kind, version.name):
            known = self.get(version.kind, version.name, version.version).tags
            tags = {**{key: value for key, value in known.items() if key not in without}, **tags}
            self._index(version.kind, version.name).add(version.number, tags)
            write_json(self._folder(version.kind, version.name, version.number) / "tags.json", tags)
        return self.get(version.kind, version.name, version.version)

    def set_archived(self, kind: Kind, name: str, version: Version, archived: bool) -> bool:
        """Take a version out of use, or bring it back; False if it is so already."""
        check_name(kind, name)
        with self._lock(kind, name):
            if version not in self._taken(kind, name):
                raise self._not_found(kind, name, version)
            if self._is_archived(kind, name, int(version)) == archived:
                return False
            file = self._folder(kind, name, int(version)) / _ARCHIVED
            if archived:
                write_json(file, {"archived": datetime.now(UTC).isoformat(timespec="seconds")})
            else:
                with disk_errors(file, "removed"):
                    file.unlink()
            _NEWEST.pop(self.path / _FOLDERS[kind] / name, None)
        return True

    def archived(self, kind: Kind, name: str) -> list[RegisteredVersion]:
        """The archived versions of a name, lowest first; those that are damaged are left out."""
        check_name(kind, name)
        found: list[RegisteredVersion] = []
        for number in self._taken(kind, name):
            if self._is_archived(kind, name, number):
                with contextlib.suppress(CorruptError):
                    found.append(self._read(kind, name, number))
        return found

    def unfinished(self) -> list[Unfinished]:
        """See base.py."""
        return self._staging.entries()

    def remove_unfinished(self, idle: float) -> list[Unfinished]:
        """Remove what has not moved for `idle` seconds, an hour at least, and return it."""
        return self._staging.remove(idle)

    # where things are -------------------------------------------------------------------------------

    def _folder(self, kind: Kind, name: str, version: int) -> Path:
        return self.path / _FOLDERS[kind] / name / str(version)

    def _content(self, kind: Kind, name: str, version: int) -> Path:
        folder = self._folder(kind, name, version)
        return folder / "content" / read_version_file(folder).entry

    def _taken_if_readable(self, kind: Kind, name: str) -> tuple[list[int], list[DamagedVersion]]:
        """(every number of a name, what stands for all of them if they cannot be listed). Raises an error if not even
        the names can be listed: then no single one is at fault."""
        check_name(kind, name)
        try:
            return self._taken(kind, name), []
        except EdgepackError as error:
            folder = self.path / _FOLDERS[kind]
            with disk_errors(folder, "read"):
                next(folder.iterdir(), None)
            return [], [DamagedVersion(kind, name, 0, str(error), may_pass=isinstance(error, TransientError))]

    def _taken(self, kind: Kind, name: str) -> list[int]:
        """Every number that stands in a name's folder, whatever it is: none of them is given out again."""
        return sorted(numbers_in(self.path / _FOLDERS[kind] / name))

    def _given(self, kind: Kind, name: str) -> GivenNumbers:
        return GivenNumbers(self.path / "numbers" / f"{_FOLDERS[kind]}-{name}")

    def _index(self, kind: Kind, name: str) -> TagIndex:
        return TagIndex(self.path / "index" / f"{_FOLDERS[kind]}-{name}")

    def _is_archived(self, kind: Kind, name: str, version: int) -> bool:
        # False for a folder that cannot be read, where Path.exists raises: reading its version says why.
        return os.path.exists(self._folder(kind, name, version) / _ARCHIVED)  # noqa: PTH110

    def _not_found(self, kind: Kind, name: str, version: Version) -> NotFoundError:
        taken = self._taken(kind, name)
        known = [each for each in taken if not self._is_archived(kind, name, each)]
        return not_found(kind, name, version, known, self.names(kind), archived=version in taken)

    def _is_in_use(self, kind: Kind, name: str, version: int) -> bool:
        folder = self._folder(kind, name, version)
        try:
            whole = not folder.is_symlink() and (folder / "version.json").is_file()
            return whole and not self._is_archived(kind, name, version)
        except OSError:
            return False

    def _read(self, kind: Kind, name: str, version: int) -> ResolvedVersion:
        """A version. Raises CorruptError if it is damaged."""
        folder = self._folder(kind, name, version)
        fixed, tags = read_folder(folder)
        return ResolvedVersion(
            kind=kind,
            name=name,
            version=version,
            created=fixed.created,
            digest=fixed.digest,
            size=fixed.size,
            is_folder=fixed.is_folder,
            location=str(folder / "content" / fixed.entry),
            tags=tags,
        )

    def _tags_at_hand(self, kind: Kind, name: str, version: int) -> dict[str, str] | None:
        with contextlib.suppress(EdgepackError):
            return read_tags(self._folder(kind, name, version))
        return None

    # writing ----------------------------------------------------------------------------------------

    def _place(self, kind: Kind, name: str, staging: Path, version: int | None, tags: Mapping[str, str]) -> int:
        """Make a finished staging folder a version, and return its number. Call it under the lock."""
        while True:
            taken = self._taken(kind, name)
            given = self._given(kind, name)
            recorded = given.add(taken)  # a registry of an earlier release recorded none
            number = version if version is not None else max(recorded, default=0) + 1
            if number in taken:
                raise taken_error(kind, name, number)
            folder = self._folder(kind, name, number)
            self._index(kind, name).add(number, tags)
            with disk_errors(folder):
                folder.parent.mkdir(parents=True, exist_ok=True)
                sync_folder(staging)
                try:
                    staging.rename(folder)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                    if version is not None:
                        raise taken_error(kind, name, number) from None
                    continue
                given.add_one(number)
                for above in (folder.parent, folder.parent.parent, self.path):
                    sync_folder(above)
            return number

    def _lock(self, kind: Kind, name: str) -> contextlib.AbstractContextManager[None]:
        return lock(self.path / "locks" / f"{_FOLDERS[kind]}-{name}.lock")
