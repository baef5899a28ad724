"""Zip files: written so that equal content gives equal bytes, and read without trusting them.

Everything is stored, not deflated: wheels are compressed already, and no zlib version gets into the bytes.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from edgepack_assets.errors import PackageError

_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAX_RATIO = 200
_MAX_BYTES = 40 * 1000**3  # twice the server's hard limit for a package


def write_zip(path: Path, files: Mapping[str, Path | bytes]) -> None:
    """Write `files` (name in the zip -> file or bytes), sorted by name, without times, users or modes.

    A name that ends in "/" is a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = (0o40755 << 16) | 0x10 if name.endswith("/") else 0o100644 << 16
            content = files[name]
            if isinstance(content, bytes):
                archive.writestr(entry, content)
                continue
            entry.file_size = content.stat().st_size
            with content.open("rb") as source, archive.open(entry, "w", force_zip64=entry.file_size > 2**31) as target:
                shutil.copyfileobj(source, target, 1 << 20)


def checked_names(archive: zipfile.ZipFile, what: str) -> list[str]:
    """The names of an archive's files. Raises PackageError on what must not be extracted: absolute or parent
    paths, links, names that stand twice, a thousandfold expansion."""
    names: list[str] = []
    total = 0
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or not path.parts:
            raise PackageError(f"{what}: the entry {entry.filename!r} would be extracted outside its folder")
        if (entry.external_attr >> 16) & 0o170000 == 0o120000:
            raise PackageError(f"{what}: the entry {entry.filename!r} is a link")
        if entry.is_dir():
            continue
        if entry.filename in names:
            raise PackageError(f"{what}: the entry {entry.filename!r} stands twice")
        total += entry.file_size
        if entry.file_size > _MAX_RATIO * max(entry.compress_size, 1) and entry.file_size > 1 << 20:
            raise PackageError(f"{what}: the entry {entry.filename!r} expands {entry.file_size} bytes from "
                               f"{entry.compress_size}")
        names.append(entry.filename)
    if total > _MAX_BYTES:
        raise PackageError(f"{what}: holds {total} bytes, more than the server takes")
    return names
