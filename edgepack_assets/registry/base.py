"""What the project needs of a registry: versions of models and data assets, with tags and digests.

Packages are registered models of their own name. A version is immutable but for its tags.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from edgepack_assets.config.schema import is_asset_name
from edgepack_assets.config.versions import Version
from edgepack_assets.errors import EdgepackError, NotFoundError, TransientError, VersionTakenError
from edgepack_assets.filesystem.atomic_files import disk_errors, file_digest

MOST_FILES = 1_000_000
DEEPEST_FOLDER = 100
"""What a folder may hold that is registered or downloaded."""

IDENTITY = ("content_digest", "model_name", "model_version")
"""Tags that make a package what it is: a retrained model of equal bytes is another package. A registry finds versions
by all of them, see `Registry.look_up`."""

_DAMAGED_SHOWN = 5


class Kind(StrEnum):
    """What a registered name stands for."""

    MODEL = "model"
    DATA = "data"


@dataclass(frozen=True)
class RegisteredVersion(ABC):
    """One version of a model or data asset, as a registry lists it. No attribute asks the registry for anything:
    what it may have to look up among the files, `resolve` gives.

    `version` of a model is a number (`number`); that of a data asset may be text, in a registry that knows such.
    `location` is where a person finds it (a path or URI); it may differ each time, so two versions are
    equal whatever it is.
    """

    kind: Kind
    name: str
    version: Version
    created: datetime
    location: str = field(compare=False)
    tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def number(self) -> int:
        """`version` of a model, or of what else is counted. Raises EdgepackError for a version that is text."""
        if isinstance(self.version, str):
            raise EdgepackError(f"{self}: {self.version!r} is no whole number")
        return self.version

    @abstractmethod
    def resolve(self) -> ResolvedVersion:
        """The version with digest and size. May ask the registry, once: a second call gives the same.

        Raises CorruptError if its files are gone, TransientError."""


@dataclass(frozen=True, kw_only=True)
class ResolvedVersion(RegisteredVersion):
    """A version and what is known of its files: `digest` is their `content_digest`, or stands for it where a registry
    keeps none, `size` their bytes, `is_folder` whether they are a folder."""

    digest: str
    size: int
    is_folder: bool

    def resolve(self) -> ResolvedVersion:
        """The version itself."""
        return self


@dataclass(frozen=True)
class DamagedVersion:
    """A version that stands in the registry and cannot be used. It keeps its number.

    `version` is 0 where nothing under the name can be read. `reason` names the file, what is wrong and what to do.
    `tags` are empty, and not known, if they cannot be read. `may_pass`: it cannot be read at the moment (a disk's or a
    share's error), and is perhaps sound."""

    kind: Kind
    name: str
    version: int
    reason: str
    tags: Mapping[str, str] = field(default_factory=dict)
    tags_are_known: bool = False
    may_pass: bool = False

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version else f"{self.name} (every version)"

    @property
    def number(self) -> int:
        """`version`, under the name that usable versions have for it."""
        return self.version


@dataclass(frozen=True)
class Unfinished:
    """Files of a registration that is in progress or was cut short. `idle` are the seconds since it last moved, by the
    clock of the file system; `may_be_alive` says that this is too short a time to be sure that it was cut short."""

    path: Path
    size: int
    idle: float
    may_be_alive: bool


@dataclass(frozen=True)
class Lookup:
    """What a registration must know of the versions under its name.

    `highest` is the highest number that is known to be given, that of a deleted version too, 0 for none. What appears
    after the look has a higher one. `same` have the tags that were asked for, `damaged` may have them. `newest_first`
    gives all versions, and reads them only as far as somebody asks."""

    highest: int
    same: Sequence[RegisteredVersion]
    damaged: Sequence[DamagedVersion]
    newest_first: Callable[[], Iterator[RegisteredVersion | DamagedVersion]]


class Registry(Protocol):
    """The interface. Every method raises EdgepackError with a message for the user."""

    def names(self, kind: Kind) -> list[str]:
        """Every registered name of a kind, sorted."""

    def versions(self, kind: Kind, name: str) -> list[RegisteredVersion]:
        """All versions of a name that can be used, the latest last; empty if there are none. Without the damaged ones:
        a damaged version must not hide the others.

        The latest model is the one with the highest number. Data assets whose versions may be text are in the order of
        their creation."""

    def last(self, kind: Kind, name: str) -> RegisteredVersion | None:
        """The last of `versions`, or None. A registry that can tell reads no other version for it."""
        versions = self.versions(kind, name)
        return versions[-1] if versions else None

    def damaged(self, kind: Kind, name: str, above: int = 0) -> list[DamagedVersion]:
        """The damaged versions of a name with a number greater than `above`, lowest first. A registry that cannot tell
        has none."""
        return []

    def versions_and_damaged(self, kind: Kind, name: str) -> tuple[list[RegisteredVersion], list[DamagedVersion]]:
        """`versions` and `damaged`, from one look where a registry can."""
        return self.versions(kind, name), self.damaged(kind, name)

    def newest_version(self, kind: Kind, name: str) -> int | None:
        """The highest version number of a name, or None, in one or two calls whatever the number of versions.

        A hint: it may lag behind a registration, and name a version that `get` does not find (any more, or yet).
        Whoever must not miss a version asks `versions` too, now and then."""

    def newest_versions(self, kind: Kind, most_calls: int) -> Mapping[str, int] | None:
        """`newest_version` of every name that has one, from at most so many calls; None where a registry cannot tell
        so, or where the names are too many for it."""
        return None

    def look_up(self, kind: Kind, name: str, tags: Mapping[str, str]) -> Lookup:
        """The versions of a name that have `tags`, a value for each of `IDENTITY`, and what else a registration asks.

        A listing that lags may lack versions, see `versions`."""
        sound, damaged = self.versions_and_damaged(kind, name)
        same = [each for each in sound if tags.items() <= each.tags.items()]
        every: list[RegisteredVersion | DamagedVersion] = [*sound, *damaged]
        every.sort(key=lambda each: each.number, reverse=True)
        return Lookup(every[0].number if every else 0, same, damaged, lambda: iter(every))

    def get(self, kind: Kind, name: str, version: Version) -> RegisteredVersion:
        """One version. Raises NotFoundError, naming what there is; CorruptError if it is damaged. Its cost does not
        grow with their number."""

    def download(self, version: RegisteredVersion, destination: Path) -> Path:
        """Copy the version's file or folder, under the name it was registered from, into the folder
        `destination` (made if missing) and return its path. Nothing is overwritten. The bytes are verified
        against the digest of `version`: raises CorruptError, and leaves nothing behind then."""

    def view(self, version: RegisteredVersion, destination: Path) -> Path:
        """As `download`, verified as well, for a caller that only reads: the files may be the registry's own."""
        return self.download(version, destination)

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
        """Register a file or folder, as the next integer version or as exactly `version`. Nobody writes into files that
        are `is_final` any more: a registry may keep them as they are, under a second name.

        With `checksum` a .sha256 file is kept beside a file, where the registry has a place for one. It is no part of
        the version. Empty folders in it are no content and are dropped. The next version is above every number that
        was given, that of a deleted version too. Raises VersionTakenError if `version` is taken. Nothing is registered
        half."""

    def set_tags(
        self, version: RegisteredVersion, tags: Mapping[str, str], without: Collection[str] = ()
    ) -> RegisteredVersion:
        """Add or replace tags of a version, keeping its other tags but for those in `without`."""

    def set_archived(self, kind: Kind, name: str, version: Version, archived: bool) -> bool:
        """Take a version out of use, or bring it back; False if it is so already. An archived one is in no list but
        `archived`, is never the latest, and `get` does not find it; its files and its number stay. Raises NotFoundError
        if there is no such version."""

    def archived(self, kind: Kind, name: str) -> list[RegisteredVersion]:
        """The archived versions of a name, in the order of `versions`."""

    def unfinished(self) -> list[Unfinished]:
        """What registrations in progress, or cut short, have left in the registry."""
        return []

    def remove_unfinished(self, idle: float) -> list[Unfinished]:
        """Remove what has not moved for `idle` seconds, and return it. Never removes a registration in progress."""
        return []


def latest(registry: Registry, kind: Kind, name: str) -> RegisteredVersion:
    """The latest version of a name that is not damaged, see `Registry.versions`. Raises NotFoundError, and
    TransientError if one that cannot be read at the moment may be the latest."""
    last = registry.last(kind, name)
    if last is not None:
        refuse_unread(damaged_above(registry, last))
        return last
    if damaged := registry.damaged(kind, name):
        refuse_unread(damaged)
        raise NotFoundError(f"every version of the {_noun(kind)} {name!r} is damaged: {damaged_in_words(damaged)}")
    known = ", ".join(registry.names(kind)) or "none"
    raise NotFoundError(f"the registry has no {_noun(kind)} {name!r}; it has: {known}")


def damaged_above(registry: Registry, version: RegisteredVersion) -> list[DamagedVersion]:
    """The damaged versions that are higher than `version`: one of them would be the latest."""
    # A registry whose versions may be text knows no damaged ones.
    return registry.damaged(version.kind, version.name, version.version) if isinstance(version.version, int) else []


def refuse_unread(damaged: Iterable[DamagedVersion]) -> None:
    """Raise TransientError if one of these versions cannot be read at the moment: what is decided without it may be
    wrong."""
    if unread := [each for each in damaged if each.may_pass]:
        raise TransientError("; ".join(f"{each}: {each.reason}" for each in unread[:_DAMAGED_SHOWN]))


def damaged_in_words(damaged: Sequence[DamagedVersion]) -> str:
    """Damaged versions with their reasons, in one line, the highest first."""
    words = [
        f"{each} cannot be read and is passed over ({each.reason})"
        if each.may_pass
        else f"{each} is damaged and passed over ({each.reason})"
        for each in reversed(damaged)
    ]
    more = f"; {len(words) - _DAMAGED_SHOWN} more are damaged" if len(words) > _DAMAGED_SHOWN else ""
    return "; ".join(words[:_DAMAGED_SHOWN]) + more


def resolve(registry: Registry, kind: Kind, name: str, version: Version) -> RegisteredVersion:
    """`version` of a name, or its latest one."""
    return latest(registry, kind, name) if version == "latest" else registry.get(kind, name, version)


def not_found(
    kind: Kind, name: str, version: Version, known: Sequence[Version], names: Sequence[str], *, archived: bool = False
) -> NotFoundError:  # fmt: skip
    """The error of `Registry.get`, the same for every registry. `archived`: there is such a version in the archive."""
    back = f"; {name}:{version} is archived (edgepack {kind} archive {name}:{version} --undo)" if archived else ""
    if not known:
        if archived:
            return NotFoundError(f"{_noun(kind)} {name!r} has no version that is not archived{back}")
        return NotFoundError(f"the registry has no {_noun(kind)} {name!r}; it has: {', '.join(names) or 'none'}")
    shown = ", ".join(map(str, known[-10:]))
    return NotFoundError(f"{_noun(kind)} {name!r} has no version {version}; its versions are: {shown}{back}")


def taken_error(kind: Kind, name: str, version: int) -> VersionTakenError:
    """The error of `Registry.register`, the same for every registry."""
    return VersionTakenError(f"{kind} {name}:{version} is registered already; take the next version")


def check_name(kind: Kind, name: str) -> None:
    """Refuse what no registry takes as a name, before it becomes a path or part of a URL."""
    if not is_asset_name(name):
        raise EdgepackError(
            f"{name!r} cannot be the name of a {_noun(kind)}: a name starts with a letter or digit and holds "
            "up to 200 letters, digits, _, . and -"
        )


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """A copy of `tags`. Refuses keys and values that are not UTF-8 text, or have a NUL: a registry would drop or change
    them, or could not read them again."""
    for key, value in tags.items():
        if not isinstance(key, str) or not isinstance(value, str) or not key:
            raise EdgepackError(f"tag {key!r}: {value!r} cannot be kept: keys and values of tags are text")
        if "\0" in key or "\0" in value:
            raise EdgepackError(f"tag {key!r}: {value!r} cannot be kept: it has a NUL character; leave it out")
        if not is_utf8(key) or not is_utf8(value):
            raise EdgepackError(
                f"tag {key!r}: {value!r} cannot be kept: it is not UTF-8 text; set the locale of the shell that gives "
                "it to UTF-8"
            )
    return dict(tags)


def is_utf8(text: str) -> bool:
    """Whether `text` can be written as UTF-8. Bytes of another encoding that a shell passed on cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _noun(kind: Kind) -> str:
    return "model" if kind is Kind.MODEL else "data asset"


def files_of(path: Path) -> Iterator[tuple[str, Path]]:
    """(relative POSIX path, file) of a file or of everything in a folder, sorted.

    Raises EdgepackError on links and special files (a registry keeps bytes, not pointers), if there is no file at
    all, and if there are too many or too deep."""
    if not path.exists() and not path.is_symlink():
        raise NotFoundError(f"{path}: no such file or folder")
    with disk_errors(path, "read"):
        entries = list(_entries(path)) if path.is_dir() and not path.is_symlink() else [path]
    files = []
    for entry in entries:
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise EdgepackError(f"{entry}: a link or special file cannot be used; put what it stands for in its place")
        if entry.is_file():
            name = entry.name if entry == path else entry.relative_to(path).as_posix()
            files.append((utf8_name(name), entry))
    if not files:
        raise EdgepackError(f"{path}: an empty folder cannot be registered")
    yield from sorted(files)


def utf8_name(name: str) -> str:
    """`name`, unless it is no text: a registry keeps names of files as UTF-8."""
    if not is_utf8(name):
        raise EdgepackError(f"{name!r}: a file name must be UTF-8 text; rename the file")
    return name


def content_digest(path: Path) -> tuple[str, int]:
    """(sha256, bytes) of a file, or of a folder as the sorted list of its files' paths and sha256."""
    is_folder = path.is_dir() and not path.is_symlink()
    digest, size = hashlib.sha256(), 0
    with disk_errors(path, "read"):
        for name, file in files_of(path):
            file_sha256 = file_digest(file)
            size += file.stat().st_size
            if not is_folder:
                return file_sha256, size
            digest.update(f"{name}\0{file_sha256}\n".encode())
    return digest.hexdigest(), size


def _entries(top: Path) -> Iterator[Path]:
    # Path.rglob passes over folders it may not read, and their files would be missing without a word. A deep folder
    # would also be more than Python's stack, or than a path may be long, so this is a loop that ends.
    count = 0
    waiting = [(top, 1)]
    while waiting:
        folder, depth = waiting.pop()
        for entry in folder.iterdir():
            count += 1
            if count > MOST_FILES:
                raise EdgepackError(f"{top}: holds more than {MOST_FILES:,} files and folders; register a smaller one")
            yield entry
            if entry.is_dir() and not entry.is_symlink():
                if depth >= DEEPEST_FOLDER:
                    raise EdgepackError(f"{top}: has folders more than {DEEPEST_FOLDER} deep; register a flatter one")
                waiting.append((entry, depth + 1))
