"""The files that describe one version of a local registry, and what of a version is damaged."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgepack_assets.errors import CorruptError, TransientError
from edgepack_assets.files import is_passing, writing

_LARGEST = 16 << 20
"""Bytes of version.json and tags.json that are read at most."""


class VersionFile(BaseModel):
    """version.json: what never changes about a version."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    created: AwareDatetime
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    is_folder: bool
    entry: str = Field(pattern=r"^[^/\x00]+$")
    """Name of the one file or folder in content/."""


_T = TypeVar("_T")
_VERSION_FILE = TypeAdapter(VersionFile)
_TAGS = TypeAdapter(dict[str, str])


def read_version_file(folder: Path) -> VersionFile:
    """version.json. Raises CorruptError if it is damaged."""
    return _read_json(folder / "version.json", _VERSION_FILE)


def read_tags(folder: Path) -> dict[str, str]:
    """tags.json. Raises CorruptError if it is damaged."""
    return _read_json(folder / "tags.json", _TAGS)


def read_folder(folder: Path) -> tuple[VersionFile, dict[str, str]]:
    """(version.json, tags.json) of a version that can be used. Raises CorruptError if it is damaged."""
    fixed, tags = read_version_file(folder), read_tags(folder)
    content = folder / "content" / fixed.entry
    with _damage(content):
        status = content.lstat()
        as_registered = stat.S_ISDIR(status.st_mode) if fixed.is_folder else stat.S_ISREG(status.st_mode)
        if not as_registered or (not fixed.is_folder and status.st_size != fixed.size):
            raise ValueError("it is not the file or folder that was registered")
    return fixed, tags


def write_json(path: Path, value: object) -> None:
    """Write a file whole or not at all."""
    with writing(path) as stream:
        stream.write(json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def _read_json(path: Path, content: TypeAdapter[_T]) -> _T:
    with _damage(path):
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise ValueError("it is not a file")
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST} bytes")
        return content.validate_json(data)


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What one version suffers from. A share that is gone is no damage: it is a TransientError."""
    try:
        yield
    except OSError as error:
        if is_passing(error):
            raise TransientError(f"{path}: cannot be read: {error.strerror}") from error
        raise CorruptError(f"{path}: is damaged; restore it from a backup: {error.strerror}") from None
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise CorruptError(
            f"{path}: is damaged; restore it from a backup: {where + ': ' if where else ''}{fault['msg']}"
        ) from None
    except ValueError as error:
        raise CorruptError(f"{path}: is damaged; restore it from a backup: {error}") from None
