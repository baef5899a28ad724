"""What a version's tags and names say of its files: the registry's own tags, and names that are safe on a disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from edgepack_assets.azure.blob_container import Blob
from edgepack_assets.config.versions import read_version
from edgepack_assets.errors import CorruptError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.registry.azure_ml.client import Asset
from edgepack_assets.registry.base import DEEPEST_FOLDER, RegisteredVersion, ResolvedVersion, files_of

DIGEST, SIZE, FILE, CONTENT, ATTEMPT = (
    "edgepack_digest",
    "edgepack_size",
    "edgepack_file",
    "edgepack_content",
    "edgepack_attempt",
)
OWN_TAGS = frozenset({DIGEST, SIZE, FILE, CONTENT, ATTEMPT})


@dataclass(frozen=True, kw_only=True)
class LazyVersion(RegisteredVersion):
    """A version registered by somebody else, of which only its files tell digest and size.

    A listing of hundreds of such versions would otherwise list the files of every one."""

    look: Callable[[], tuple[bool, int, str]] = field(compare=False, repr=False)
    """Asks storage for (whether it is a folder, size, digest), and keeps the answer."""

    def resolve(self) -> ResolvedVersion:
        """The version with digest and size, from a listing of its files at the first call that succeeds."""
        is_folder, size, digest = self.look()
        known = {each.name: getattr(self, each.name) for each in fields(RegisteredVersion)}
        return ResolvedVersion(**known, digest=digest, size=size, is_folder=is_folder)


def described(asset: Asset) -> dict[str, Any]:
    """The fields of a RegisteredVersion. Its tags are those that are not the registry's own."""
    return {
        "kind": asset.kind,
        "name": asset.name,
        "version": read_version(asset.version),
        "created": asset.created,
        "location": asset.uri,
        "tags": {key: value for key, value in asset.tags.items() if key not in OWN_TAGS},
    }


def own_digest(asset: Asset) -> tuple[str, int]:
    """(digest, size) as the version's own tags say. Raises CorruptError if they were changed."""
    digest, size = asset.tags[DIGEST], asset.tags.get(SIZE, "")
    if not re.fullmatch(r"[0-9a-f]{64}", digest) or not re.fullmatch(r"[0-9]{1,18}", size):
        raise CorruptError(
            f"{asset.name}:{asset.version}: its tags {DIGEST} and {SIZE} were changed by hand; put them back, or "
            "register it as a new version"
        )
    return digest, int(size)


def is_folder_by_tags(asset: Asset) -> bool | None:
    """Whether a version is a folder; None where only storage can tell."""
    if CONTENT in asset.tags:
        return asset.tags[CONTENT] == "folder"
    return {"uri_file": False, "uri_folder": True, "mltable": True, "mlflow_model": True}.get(asset.type)


def file_name(asset: Asset) -> str:
    """The name under which a version is handed out: that of the file or folder it was registered from."""
    given = asset.tags.get(FILE) or PurePosixPath(asset.uri.rstrip("/")).name or asset.name
    if given in (".", "..") or "/" in given or "\0" in given:
        raise CorruptError(f"{asset.name}:{asset.version}: {given!r} cannot be the name of its file")
    return given


def leaf_of(path: Path) -> str:
    """The last part of the URI: the file's name where every service reads it alike, else a stand-in."""
    name = path.name
    return name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}", name) and not name.endswith(".") else "content"


def below(copy: Path, blob: Blob) -> Path:
    """Where a blob is written: below `copy` and nowhere else."""
    if not blob.name:
        return copy
    parts = blob.name.split("/")
    if len(parts) > DEEPEST_FOLDER:
        raise CorruptError(f"{copy.name}: has folders more than {DEEPEST_FOLDER} deep; register a flatter one")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise CorruptError(f"{blob.full_name}: {blob.name!r} cannot be the name of a file")
    return copy.joinpath(*parts)


def signature(path: Path) -> dict[str, tuple[int, int]]:
    """(size, time of change) of every file, to see whether one changed."""
    with disk_errors(path, "read"):
        return {name: ((stat := file.stat()).st_size, stat.st_mtime_ns) for name, file in files_of(path)}
