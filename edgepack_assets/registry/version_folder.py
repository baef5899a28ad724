"""The files that describe one version of a local registry, and what of a version is damaged."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgepack_assets.errors import CorruptError, EdgepackError, TransientError
from edgepack_assets.filesystem.atomic_files import is_transient, writing

_LARGEST = 16 << 20
"""Bytes of version.json and tags.json that are read at most."""


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:  # at the end of the years that Python knows
        raise ValueError("the time is out of range") from None


class VersionFile(BaseModel):
    """version.json: what never changes about a version."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    created: Annotated[AwareDatetime, AfterValidator(_in_utc)]
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
    for path in (folder, folder / "content"):
        _refuse_link(path)
    fixed, tags = read_version_file(folder), read_tags(folder)
    content = folder / "content" / fixed.entry
    try:
        status = content.lstat()
        as_registered = stat.S_ISDIR(status.st_mode) if fixed.is_folder else stat.S_ISREG(status.st_mode)
        if not as_registered or (not fixed.is_folder and status.st_size != fixed.size):
            raise ValueError("it is not the file or folder that was registered")
    except (OSError, ValueError) as error:
        raise _damage(content, error) from None
    return fixed, tags


def _refuse_link(folder: Path) -> None:
    """Raise CorruptError for a link: what it leads to is another version, or changes from outside the registry."""
    try:
        if folder.is_symlink():
            raise ValueError("it is a link; a version is a folder of its own")
    except (OSError, ValueError) as error:
        raise _damage(folder, error) from None


def write_json(path: Path, value: object) -> None:
    """Write a file whole or not at all."""
    with writing(path) as stream:
        stream.write(json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def _read_json(path: Path, content: TypeAdapter[_T]) -> _T:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise ValueError("it is not a file")
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST} bytes")
        return content.validate_json(data)
    except (OSError, ValueError) as error:
        raise _damage(path, error) from None


def _damage(path: Path, error: OSError | ValueError) -> EdgepackError:
    """What a version suffers from, in words. A share that is gone is no damage: it is a TransientError."""
    if isinstance(error, OSError):
        if is_transient(error):
            return TransientError(f"{path}: cannot be read: {error.strerror}")
        if isinstance(error, PermissionError):
            return CorruptError(f"{path}: cannot be read: {error.strerror}; give this user the right to read it")
        reason = error.strerror or str(error)
    elif isinstance(error, ValidationError):
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        reason = f"{where + ': ' if where else ''}{fault['msg']}"
    else:
        reason = str(error)
    return CorruptError(f"{path}: is damaged; restore it from a backup: {reason}")
