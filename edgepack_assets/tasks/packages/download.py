"""Downloading a package from the registry."""

from __future__ import annotations

from pathlib import Path

from edgepack_assets.errors import PackageError
from edgepack_assets.registry.base import RegisteredVersion, Registry


def registered_zip(package: RegisteredVersion, folder: Path, registry: Registry) -> Path:
    """The zip of a registered package, downloaded into `folder`, held against its digest. Raises EdgepackError."""
    path = registry.download(package, folder / "registered")
    if path.is_file():
        return path
    files = [file for file in path.rglob("*.zip") if file.is_file()]
    if len(files) != 1:
        raise PackageError(f"{package} is registered with {len(files)} zips, not as one")
    return files[0]
