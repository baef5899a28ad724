"""What the project needs of a registry: versions of models and data assets, with tags and digests.

Packages are registered models of their own name. A version is immutable but for its tags.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from edgepack_assets.artefacts import file_digest
from edgepack_assets.errors import EdgepackError, NotFoundError


class Kind(StrEnum):
    """What a registered name stands for."""

    MODEL = "model"
    DATA = "data"


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a model or data asset.

    `digest` is `content_digest` of its files, `size` their bytes, `is_folder` whether a folder was registered,
    `location` where a person finds it (a path or URI).
    """

    kind: Kind
    name: str
    version: int
    created: datetime
    digest: str
    size: int
    is_folder: bool
    location: str
    tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


class Registry(Protocol):
    """The interface. Every method raises EdgepackError with a message for the user."""

    def names(self, kind: Kind) -> list[str]:
        """Every registered name of a kind, sorted."""

    def versions(self, kind: Kind, name: str) -> list[RegisteredVersion]:
        """All versions of a name, lowest first; empty if there are none."""

    def get(self, kind: Kind, name: str, version: int) -> RegisteredVersion:
        """One version. Raises NotFoundError, naming what there is."""

    def download(self, found: RegisteredVersion, destination: Path) -> Path:
        """Copy the version's file or folder into the folder `destination` (made if missing) and return its
        path. Its digest is verified: raises CorruptError, and leaves nothing behind then."""

    def register(
        self, kind: Kind, name: str, path: Path, tags: Mapping[str, str], version: int | None = None
    ) -> RegisteredVersion:
        """Register a file or folder, as the next integer version or as exactly `version`.

        Raises VersionTakenError if somebody was faster. Nothing is registered half."""

    def set_tags(self, found: RegisteredVersion, tags: Mapping[str, str]) -> RegisteredVersion:
        """Add or replace tags of a version, keeping its other tags."""


def latest(registry: Registry, kind: Kind, name: str) -> RegisteredVersion:
    """The highest version of a name. Raises NotFoundError."""
    found = registry.versions(kind, name)
    if not found:
        known = ", ".join(registry.names(kind)) or "none"
        raise NotFoundError(f"the registry has no {_noun(kind)} {name!r}; it has: {known}")
    return found[-1]


def resolve(registry: Registry, kind: Kind, name: str, version: int | str) -> RegisteredVersion:
    """`version` of a name, where "latest" is the highest."""
    return latest(registry, kind, name) if version == "latest" else registry.get(kind, name, int(version))


def not_found(kind: Kind, name: str, version: int, known: list[int], names: list[str]) -> NotFoundError:
    """The error of `Registry.get`, the same for every registry."""
    if not known:
        return NotFoundError(
            f"the registry has no {_noun(kind)} {name!r}; it has: {', '.join(names) or 'none'}"
        )
    shown = ", ".join(map(str, known[-10:]))
    return NotFoundError(f"{_noun(kind)} {name!r} has no version {version}; its versions are: {shown}")


def _noun(kind: Kind) -> str:
    return "model" if kind is Kind.MODEL else "data asset"


def files_of(path: Path) -> Iterator[tuple[str, Path]]:
    """(relative POSIX path, file) of a file or of everything in a folder, sorted.

    Raises EdgepackError on links and special files: a registry keeps bytes, not pointers."""
    if path.is_file() and not path.is_symlink():
        yield path.name, path
        return
    if not path.is_dir():
        raise EdgepackError(f"{path}: no such file or folder")
    for entry in sorted(path.rglob("*"), key=lambda p: p.relative_to(path).as_posix()):
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise EdgepackError(
                f"{entry}: a link or special file cannot be registered; copy its content in its place"
            )
        if entry.is_file():
            yield entry.relative_to(path).as_posix(), entry


def content_digest(path: Path) -> tuple[str, int]:
    """(sha256, bytes) of a file, or of a folder as the sorted list of its files' paths and sha256."""
    if path.is_file():
        return file_digest(path), path.stat().st_size
    digest, size, count = hashlib.sha256(), 0, 0
    for name, file in files_of(path):
        digest.update(f"{name}\0{file_digest(file)}\n".encode())
        size += file.stat().st_size
        count += 1
    if not count:
        raise EdgepackError(f"{path}: an empty folder cannot be registered")
    return digest.hexdigest(), size
