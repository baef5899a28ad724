"""The delta of two versions of a deployment package: made by the SDK, and proven by laying it over the earlier one.

A server that has the earlier version takes the delta in place of the full package. A delta holds the files that are new
or changed. It cannot remove one: what the earlier version has and the later one has not would stay on the server.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgepack_assets.errors import PackageError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.filesystem.reproducible_zip import (
    Content,
    Member,
    checked_names,
    opened_inside,
    opened_zip,
    write_zip,
)
from edgepack_assets.packaging.sdk import quiet_import
from edgepack_assets.packaging.stamp import CONFIG, digest_of

with quiet_import():
    from simaticai.deployment import create_delta_package
    from simaticai.packaging.constants import PYTHON_PACKAGES_ZIP

_NAMED = 5
_OF_A_DELTA = ("packageType", "originVersion")


@dataclass(frozen=True)
class Delta:
    """A delta package, or why there is none. Sizes are in bytes."""

    path: Path | None
    reason: str = ""
    size: int = 0
    full_size: int = 0


def build_delta_package(origin: Path, package: Path, work: Path) -> Delta:
    """The delta from `origin` to `package`, two deployment packages of one name, in the folder `work`.

    Its bytes depend on those of the packages alone. There is none if it could not express the difference, if laying it
    over the earlier package would not give the later one file for file, or if it would not be smaller. Raises
    PackageError if a package cannot be read, EdgepackError if the disk is full."""
    before, after = _files(origin), _files(package)
    full = package.stat().st_size
    if removed := sorted(before.keys() - after.keys()):
        return Delta(None, f"a delta cannot remove files, and {len(removed)} are gone: {_some(removed)}", 0, full)
    with disk_errors(work):
        scratch = Path(tempfile.mkdtemp(prefix="delta-", dir=work))
    try:
        delta = _made_by_the_sdk(origin, package, scratch)
        if differing := _differing(before, after, delta, origin, package):
            why = f"laid over {origin.name} it would not give {package.name}, but differ in {_some(differing)}"
            return Delta(None, why, 0, full)
        target = work / delta.name
        _repack(delta, target, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    size = target.stat().st_size
    if size >= full:
        target.unlink()
        return Delta(None, f"it would have {size} bytes, and the full package has {full}", size, full)
    return Delta(target, "", size, full)


def _made_by_the_sdk(origin: Path, package: Path, scratch: Path) -> Path:
    # the SDK writes beside the later package, and leaves its own work folder behind when it fails
    given = scratch / "packages"
    given.mkdir()
    later = given / package.name
    later.symlink_to(package.resolve())
    usual, tempfile.tempdir = tempfile.tempdir, str(scratch)
    try:
        return Path(create_delta_package(str(origin), str(later)))
    except (AssertionError, ValueError, RuntimeError, OSError, zipfile.BadZipFile) as error:
        raise PackageError(f"the SDK makes no delta of {origin.name} and {package.name}: {error}") from error
    finally:
        tempfile.tempdir = usual


def _differing(
    before: Mapping[str, str], after: Mapping[str, str], delta: Path, origin: Path, package: Path
) -> list[str]:
    """Files that the earlier package with the delta laid over it has otherwise than the later package."""
    applied = {**before, **_files(delta)}
    names = [name for name in applied.keys() | after.keys() if applied.get(name) != after.get(name)]
    if CONFIG in names and _config_is_of_a_delta(_config(delta), _config(origin), _config(package)):
        names.remove(CONFIG)
    return sorted(names)


def _config_is_of_a_delta(delta: Mapping[str, Any], origin: Mapping[str, Any], package: Mapping[str, Any]) -> bool:
    plain, full = ({key: value for key, value in each.items() if key not in _OF_A_DELTA} for each in (delta, package))
    version = origin["dataFlowPipelineInfo"]["dataFlowPipelineVersion"]
    return (delta.get("packageType"), delta.get("originVersion"), plain) == ("delta", version, full)


def _config(package: Path) -> dict[str, Any]:
    with opened_zip(package, package.name) as archive:
        config: dict[str, Any] = yaml.safe_load(archive.read(CONFIG))
    return config


def _files(package: Path) -> dict[str, str]:
    """Every file that a server has of a package, those inside of components and their wheels: path -> sha256."""
    digests: dict[str, str] = {}
    with opened_zip(package, package.name) as archive:
        for path, member in _members(archive, package.name):
            digests[path] = digest_of(member)
    return digests


def _members(archive: zipfile.ZipFile, subject: str, at: str = "") -> Iterator[tuple[str, Member]]:
    for name in checked_names(archive, subject):
        if _is_unpacked(name, at):
            with opened_inside(archive, name, f"{subject}: {name}") as inside:
                yield from _members(inside, f"{subject}: {name}", f"{at}{name}/")
        else:
            yield f"{at}{name}", Member(archive, name)


def _is_unpacked(name: str, at: str) -> bool:
    """Whether it is a component, or the wheels of one, which a server unpacks."""
    return (not at and name.startswith("components/") and name.endswith(".zip")) or (
        at.startswith("components/") and at.count(".zip/") == 1 and name == PYTHON_PACKAGES_ZIP
    )


def _repack(delta: Path, target: Path, scratch: Path) -> None:
    """The same files without the times at which the SDK wrote them."""
    with ExitStack() as opened:
        archive = opened.enter_context(opened_zip(delta, delta.name))
        with _repacked(archive, delta.name, scratch) as files:
            write_zip(target, files)


@contextmanager
def _repacked(archive: zipfile.ZipFile, subject: str, scratch: Path, at: str = "") -> Iterator[dict[str, Content]]:
    files: dict[str, Content] = {}
    for name in checked_names(archive, subject):
        if not _is_unpacked(name, at):
            files[name] = Member(archive, name)
            continue
        with (
            opened_inside(archive, name, f"{subject}: {name}") as inside,
            _repacked(inside, subject, scratch, f"{at}{name}/") as inner,
        ):
            packed = scratch / f"{len(list(scratch.iterdir()))}.zip"
            write_zip(packed, inner)
            files[name] = packed
    yield files


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
