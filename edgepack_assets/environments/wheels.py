"""One wheel of a lock, and the checks of its content: the index only names the file.

Also here: the server's platform and tags, and the check that a set of wheels needs no package outside of it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags, parse_tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgepack_assets.artefacts.artefact import Blob
from edgepack_assets.errors import EnvironmentBuildError
from edgepack_assets.filesystem.reproducible_zip import check_layout

GLIBC_MINOR = 31
"""The server's platform: x86_64, glibc 2.31 (simaticai.packaging.constants.PLATFORMS)."""
PLATFORM = f"x86_64-manylinux_2_{GLIBC_MINOR}"
WHEEL = "application/x-wheel+zip"
_MOST_METADATA = 16 << 20
"""Bytes of a METADATA or WHEEL file; real ones have kilobytes."""
_ADVICE = "the package index, or who fills it, is wrong: see runtime.index_url in edgepack.yaml"


class LockedPackage(BaseModel):
    """One wheel of a lock: canonical name, version, file name, sha256 (hex), size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    version: str
    file: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_named_by_its_file(self) -> LockedPackage:
        # The file name becomes a path and the rest a line of pip's, so no lock may hold anything else there.
        try:
            name, version, *_ = parse_wheel_filename(self.file)
        except InvalidWheelFilename as error:
            raise ValueError(str(error)) from None
        if (name, str(version)) != (self.name, self.version):
            raise ValueError(f"{self.file} is not a wheel of {self.name} {self.version}")
        return self

    @property
    def blob(self) -> Blob:
        """The wheel in the artefact store."""
        return Blob(digest=self.digest, size=self.size, media_type=WHEEL)


def edge_tags(python: str) -> dict[Tag, int]:
    """Every tag that the server's pip takes, with its rank, the best first."""
    major, minor = (int(part) for part in python.split("."))
    interpreter = f"cp{major}{minor}"
    platforms = []
    for glibc in range(GLIBC_MINOR, 4, -1):
        platforms.append(f"manylinux_2_{glibc}_x86_64")
        platforms += {17: ["manylinux2014_x86_64"], 12: ["manylinux2010_x86_64"], 5: ["manylinux1_x86_64"]}.get(
            glibc, []
        )
    platforms.append("linux_x86_64")
    # The ABI is named, else it would be that of the interpreter that runs this.
    tags = [
        *cpython_tags((major, minor), [interpreter], platforms),
        *compatible_tags((major, minor), interpreter, platforms),
    ]
    return {tag: rank for rank, tag in enumerate(tags)}


def check_wheel(path: Path, package: LockedPackage, python: str) -> None:
    """Refuse a file that is no wheel, or one of another project, version or platform than its name says.

    Raises EnvironmentBuildError."""
    _check_layout(path, package)
    metadata = _part(path, package, "METADATA")
    own_name = f"{metadata.get('Name')} {metadata.get('Version')}"
    try:
        same = canonicalize_name(str(metadata.get("Name"))) == package.name
        same = same and Version(str(metadata.get("Version"))) == Version(package.version)
    except InvalidVersion:
        same = False
    if not same:
        raise EnvironmentBuildError(f"{package.file} is a wheel of {own_name[:200]!r} by its own METADATA: {_ADVICE}")
    tags = [tag for line in _part(path, package, "WHEEL").get_all("Tag", []) for tag in parse_tag(str(line))]
    # One of them must fit, not all: a wheel that was made for linux_x86_64 and renamed keeps its first tag.
    if tags and not edge_tags(python).keys() & set(tags):
        raise EnvironmentBuildError(
            f"{package.file} was made for {', '.join(sorted(map(str, tags)))[:200]} by what is in it, not for Python "
            f"{python} on {PLATFORM}: {_ADVICE}"
        )


def admits(path: Path, package: LockedPackage, python: str) -> bool:
    """Whether the wheel's Requires-Python admits the latest patch of `python`. Raises EnvironmentBuildError."""
    required = str(_part(path, package, "METADATA").get("Requires-Python") or "")
    try:
        return SpecifierSet(required).contains(f"{python}.99", prereleases=True)
    except InvalidSpecifier:
        raise EnvironmentBuildError(
            f"{package.file}: its Requires-Python is {required!r}, which no pip can read: pin another version"
        ) from None


def unmet(requirements: Sequence[str], wheels: Mapping[LockedPackage, Path], python: str) -> list[str]:
    """Requirements, given ones and those in the METADATA of the wheels, that apply on the server and are not met by
    `wheels`.

    A resolver relies on the index, or its cache, for the metadata of a wheel. This function reads the wheels."""
    held = {package.name: package for package in wheels}
    metadata = {package.name: _part(path, package, "METADATA") for package, path in wheels.items()}
    marks = _markers(python)
    missing: list[str] = []
    queue = [("", "", line) for line in requirements]
    seen: set[tuple[str, str]] = set()
    while queue:
        asker, extra, line = queue.pop()
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue  # of an old package's own making; the resolver reads it as best it can, and nobody else does
        if wanted.url is not None or (wanted.marker and not wanted.marker.evaluate({**marks, "extra": extra})):
            continue
        name = canonicalize_name(wanted.name)
        wheel = held.get(name)
        if wheel is None or not wanted.specifier.contains(wheel.version, prereleases=True):
            missing.append(f"{wanted.name}{wanted.specifier}" + (f" (asked for by {asker})" if asker else ""))
            continue
        for part in {"", *map(canonicalize_name, wanted.extras)}:
            if (name, part) not in seen:
                seen.add((name, part))
                queue += [(name, part, str(line)) for line in metadata[name].get_all("Requires-Dist", [])]
    return sorted(set(missing))


def _markers(python: str) -> dict[str, str]:
    """The server, as the resolver sees it: it takes the first patch of a Python for the one that is there."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError)
"""What zipfile raises for a wheel that cannot be read."""


def _check_layout(path: Path, package: LockedPackage) -> None:
    """Refuse a wheel from which pip on the server could read other files than this module does."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_layout(archive)
    except _DAMAGED as error:
        raise EnvironmentBuildError(f"{package.file} is no wheel ({error}): {_ADVICE}") from None


def _part(path: Path, package: LockedPackage, part: str) -> Message:
    """METADATA or WHEEL of the wheel's one .dist-info folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [
                entry for entry in archive.infolist()
                if entry.filename.count("/") == 1 and entry.filename.endswith(f".dist-info/{part}")
            ]  # fmt: skip
            if len(entries) != 1:
                raise EnvironmentBuildError(
                    f"{package.file} is no wheel, it has {len(entries)} {part} files: {_ADVICE}"
                )
            if entries[0].file_size > _MOST_METADATA:
                raise EnvironmentBuildError(
                    f"{package.file} is no wheel: its {part} has {entries[0].file_size} bytes: {_ADVICE}"
                )
            data = archive.read(entries[0])
    except _DAMAGED as error:
        raise EnvironmentBuildError(f"{package.file} is no wheel ({error}): {_ADVICE}") from None
    return BytesParser().parsebytes(data, headersonly=True)
