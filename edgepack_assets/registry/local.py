"""A registry in a folder: of this machine, or of a share that several machines mount.

    <root>/models/<name>/<version>/version.json    written once
                                   tags.json       replaced whole
                                   content/<file or folder as it was registered>
    <root>/data/...                                likewise
    <root>/staging/                                registrations under way
    <root>/locks/

A version is put together in staging/ and synced to disk before one rename makes it appear, so it is there
whole or not at all. Which number it gets is decided under a lock; were the lock not to hold (some shares
don't honour locks), the rename still fails on a number that is taken, and the next one is tried.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import filelock
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgepack_assets.errors import CorruptError, EdgepackError, TransientError, VersionTakenError
from edgepack_assets.files import disk_errors, sync_folder, writing
from edgepack_assets.partitions import is_version
from edgepack_assets.registry.base import (
    Kind,
    RegisteredVersion,
    Registry,
    check_name,
    check_tags,
    content_digest,
    files_of,
    not_found,
    utf8_name,
)
from edgepack_assets.settings import is_asset_name
from edgepack_assets.versions import Version

LOCK_TIMEOUT = 60.0
"""Seconds to wait for another process; a lock is held for milliseconds."""
STALE_AFTER = 24 * 3600.0
"""Seconds after which a registration that never finished is cleaned up."""

_COPIERS = 8
_SETTLED_AFTER_NS = 5_000_000_000
_NEWEST: dict[Path, tuple[int, int | None]] = {}
"""Folder of a name -> (its time of change in ns, the highest version in it): a sensor asks every few seconds."""

_FOLDERS = {Kind.MODEL: "models", Kind.DATA: "data"}


class _VersionFile(BaseModel):
    """version.json: what never changes about a version."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    created: datetime
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    is_folder: bool
    entry: str
    """Name of the one file or folder in content/."""


_T = TypeVar("_T")
_VERSION_FILE = TypeAdapter(_VersionFile)
_TAGS = TypeAdapter(dict[str, str])


class LocalRegistry(Registry):
    """The `Registry` interface (see base.py) on a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def names(self, kind: Kind) -> list[str]:
        """Every registered name of a kind, sorted."""
        folder = self.path / _FOLDERS[kind]
        with disk_errors(folder, "read"):
            found = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return sorted(name for name in found if is_asset_name(name) and self._numbers(kind, name))

    def versions(self, kind: Kind, name: str) -> list[RegisteredVersion]:
        """All versions of a name, lowest first; empty if there are none."""
        check_name(kind, name)
        return [self._read(kind, name, number) for number in self._numbers(kind, name)]

    def get(self, kind: Kind, name: str, version: Version) -> RegisteredVersion:
        """One version. Raises NotFoundError, naming what there is."""
        check_name(kind, name)
        if not isinstance(version, int) or not is_version(str(version)) or not self._is_whole(kind, name, version):
            raise not_found(kind, name, version, self._numbers(kind, name), self.names(kind))
        return self._read(kind, name, version)

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
        newest = next((n for n in reversed(self._taken(kind, name)) if self._is_whole(kind, name, n)), None)
        # A folder that changes twice within one tick of the file system's clock shows one time of change for both.
        if abs(time.time_ns() - changed) > _SETTLED_AFTER_NS:
            _NEWEST[folder] = changed, newest
        else:
            _NEWEST.pop(folder, None)
        return newest

    def download(self, found: RegisteredVersion, destination: Path) -> Path:
        """Copy the version's file or folder into `destination`, verified; nothing is overwritten."""
        source = self._content(found.kind, found.name, found.number)
        target = destination / source.name
        if target.exists() or target.is_symlink():
            raise EdgepackError(f"{target} is there already; remove it or download {found} somewhere else")
        if not source.exists():
            raise CorruptError(f"{source}: the content of {found} is gone; register it as a new version")
        made_here = not destination.exists()
        try:
            self._copy_verified(source, target, found)
        except BaseException:
            if made_here:
                with contextlib.suppress(OSError):  # not made yet, or others have put something there
                    destination.rmdir()
            raise
        return target

    @staticmethod
    def _copy_verified(source: Path, target: Path, found: RegisteredVersion) -> None:
        aside = target.parent / f".{uuid.uuid4().hex}.tmp"
        try:
            with disk_errors(target):
                aside.mkdir(parents=True)
                copy = _copy(source, aside, sync=False)
                if content_digest(copy)[0] != found.digest:
                    raise CorruptError(
                        f"{source}: bytes differ from the digest {found.digest} of {found}; "
                        "register a good copy as a new version"
                    )
                copy.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def register(
        self, kind: Kind, name: str, path: Path, tags: Mapping[str, str], version: int | None = None
    ) -> RegisteredVersion:
        """Register a file or folder, as the next integer version or as exactly `version`."""
        check_name(kind, name)
        tags = check_tags(tags)
        if version is not None and not is_version(str(version)):
            raise EdgepackError(f"{version!r} cannot be a version: a version is a whole number from 1 up")
        self._remove_stale()
        staging = self.path / "staging" / uuid.uuid4().hex
        try:
            with disk_errors(self.path):
                (staging / "content").mkdir(parents=True)
                content = _copy(path.resolve(), staging / "content", sync=True)
                sync_folder(staging / "content")
            # The copy is what will be kept, so the copy is what is measured: the source may still change.
            digest, size = content_digest(content)
            _write_json(staging / "tags.json", tags)
            with self._lock(kind, name):
                fixed = _VersionFile(
                    created=datetime.now(UTC),
                    digest=digest,
                    size=size,
                    is_folder=content.is_dir(),
                    entry=content.name,
                )
                _write_json(staging / "version.json", fixed.model_dump(mode="json"))
                number = self._place(kind, name, staging, version)
        finally:
            shutil.rmtree(staging, ignore_errors=True)  # gone from there if it was put in its place
        return self._read(kind, name, number)

    def set_tags(
        self, found: RegisteredVersion, tags: Mapping[str, str], without: Collection[str] = ()
    ) -> RegisteredVersion:
        """Add or replace tags of a version, keeping its other tags but for those in `without`."""
        tags = check_tags(tags)
        with self._lock(found.kind, found.name):
            known = self.get(found.kind, found.name, found.version).tags
            kept = {key: value for key, value in known.items() if key not in without}
            _write_json(self._folder(found.kind, found.name, found.number) / "tags.json", {**kept, **tags})
        return self.get(found.kind, found.name, found.version)

    # where things are -------------------------------------------------------------------------------

    def _folder(self, kind: Kind, name: str, version: int) -> Path:
        return self.path / _FOLDERS[kind] / name / str(version)

    def _content(self, kind: Kind, name: str, version: int) -> Path:
        folder = self._folder(kind, name, version)
        return folder / "content" / self._version_file(folder).entry

    def _taken(self, kind: Kind, name: str) -> list[int]:
        """Every number that stands in a name's folder, whatever it is: none of them is given out again."""
        folder = self.path / _FOLDERS[kind] / name
        with disk_errors(folder, "read"):
            found = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(entry) for entry in found if is_version(entry))

    def _numbers(self, kind: Kind, name: str) -> list[int]:
        """The versions of a name that are whole, lowest first."""
        return [number for number in self._taken(kind, name) if self._is_whole(kind, name, number)]

    def _is_whole(self, kind: Kind, name: str, version: int) -> bool:
        return (self._folder(kind, name, version) / "version.json").is_file()

    def _read(self, kind: Kind, name: str, version: int) -> RegisteredVersion:
        folder = self._folder(kind, name, version)
        fixed = self._version_file(folder)
        tags = _read_json(folder / "tags.json", _TAGS)
        return RegisteredVersion(
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

    @staticmethod
    def _version_file(folder: Path) -> _VersionFile:
        return _read_json(folder / "version.json", _VERSION_FILE)

    # writing ----------------------------------------------------------------------------------------

    def _place(self, kind: Kind, name: str, staging: Path, version: int | None) -> int:
        """Make a finished staging folder a version, and return its number. Call it under the lock."""
        while True:
            taken = self._taken(kind, name)
            number = version if version is not None else max(taken, default=0) + 1
            if version in taken:
                raise _taken_error(kind, name, number)
            folder = self._folder(kind, name, number)
            with disk_errors(folder):
                folder.parent.mkdir(parents=True, exist_ok=True)
                sync_folder(staging)
                try:
                    staging.rename(folder)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                    if version is not None:
                        raise _taken_error(kind, name, number) from None
                    continue
                for made in (folder.parent, folder.parent.parent, self.path):
                    sync_folder(made)
            return number

    @contextlib.contextmanager
    def _lock(self, kind: Kind, name: str) -> Iterator[None]:
        path = self.path / "locks" / f"{_FOLDERS[kind]}-{name}.lock"
        lock = filelock.FileLock(path, timeout=LOCK_TIMEOUT)
        try:
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                lock.acquire()
        except filelock.Timeout:
            raise TransientError(
                f"{path}: held by another process for {LOCK_TIMEOUT:.0f} s; try again when it has ended"
            ) from None
        except NotImplementedError as error:
            raise EdgepackError(f"{path}: this file system has no locks, which a registry needs: {error}") from error
        try:
            yield
        finally:
            lock.release()

    def _remove_stale(self) -> None:
        """Remove registrations that a crash cut short."""
        folder = self.path / "staging"
        with disk_errors(folder, "read"):
            found = list(folder.iterdir()) if folder.is_dir() else []
        for entry in found:
            try:
                age = time.time() - entry.stat().st_mtime
            except FileNotFoundError:
                continue  # finished, or removed by somebody else
            if age > STALE_AFTER:
                # What cannot be removed now is in nobody's way and is tried again the next time.
                shutil.rmtree(entry, ignore_errors=True)


def _taken_error(kind: Kind, name: str, version: int) -> VersionTakenError:
    return VersionTakenError(f"{kind} {name}:{version} is registered already; take the next version")


def _copy(source: Path, folder: Path, sync: bool) -> Path:
    """Copy a file or folder into `folder`; with `sync`, down to the disk. Returns the copy."""
    if not source.name:
        raise EdgepackError(f"{source}: a whole file system cannot be registered")
    copy = folder / utf8_name(source.name)
    base = copy if source.is_dir() else folder
    pairs = [(file, base / name) for name, file in files_of(source)]
    folders = {parent for _, to in pairs for parent in to.parents if parent.is_relative_to(folder)} - {folder}
    for made in sorted(folders):
        made.mkdir()

    def one(pair: tuple[Path, Path]) -> None:
        shutil.copyfile(*pair)
        if sync:
            with pair[1].open("rb") as stream:
                os.fsync(stream.fileno())
                os.fchmod(stream.fileno(), 0o444)

    # Waiting for the disk is most of the time for folders of many small files.
    with ThreadPoolExecutor(_COPIERS) as pool:
        list(pool.map(one, pairs))
    if sync:
        for made in folders:
            sync_folder(made)
    return copy


def _write_json(path: Path, value: object) -> None:
    with writing(path) as stream:
        stream.write(json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def _read_json(path: Path, content: TypeAdapter[_T]) -> _T:
    try:
        return content.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CorruptError(f"{path}: is damaged; restore it from a backup: {error}") from None
