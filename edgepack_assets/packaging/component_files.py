"""The files of a package's component, read from its zip: what two packages are compared by."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgepack_assets.filesystem.reproducible_zip import Member, checked_names, opened_inside, opened_zip
from edgepack_assets.packaging.pipeline_content import FileEntry
from edgepack_assets.packaging.stamp import CONFIG, PACKAGES, components_of, digest_of, read_yaml


def component_files(package: Path, digests: Mapping[str, str] = {}) -> tuple[dict[str, FileEntry], list[str]]:
    """(the files of the components without their wheels, the file names of all wheels) of a config or deployment
    package. Where there are several components, a file's name begins with its component's. A config package holds no
    wheels. `digests`: those that are known, as deployment_package.expected_contents gives them; the rest is read.

    Raises PackageError if it is no package."""
    name = package.name
    files: dict[str, FileEntry] = {}
    wheels: set[str] = set()
    with opened_zip(package, name) as archive:
        names = checked_names(archive, name)
        # A config package has all its files in one folder, which is its first entry.
        top = "" if CONFIG in names or not names else f"{names[0].split('/', 1)[0]}/"
        components = components_of(read_yaml(archive, f"{top}{CONFIG}", name), name)
        for component in components:
            if component.inside in names:
                own, held = _zipped_files(archive, component.inside, name)
                wheels.update(held)
            else:
                own = _entries(archive, names, f"{top}{component.name}/", component.inside, digests)
            before = f"{component.name}/" if len(components) > 1 else ""
            files |= {f"{before}{file}": entry for file, entry in own.items()}
    return files, sorted(wheels)


def _zipped_files(archive: zipfile.ZipFile, inside: str, name: str) -> tuple[dict[str, FileEntry], list[str]]:
    with opened_inside(archive, inside, f"{name}/{inside}") as zipped:
        files = checked_names(zipped, f"{name}/{inside}")
        wheels: list[str] = []
        if PACKAGES in files:
            with opened_inside(zipped, PACKAGES, f"{name}/{inside}/{PACKAGES}") as held:
                wheels = checked_names(held, f"{name}/{inside}/{PACKAGES}")
        return _entries(zipped, files, ""), wheels


def _entries(
    archive: zipfile.ZipFile, names: Iterable[str], top: str, inside: str = "", digests: Mapping[str, str] = {}
) -> dict[str, FileEntry]:
    wanted = [name for name in names if name.startswith(top) and name not in (top, f"{top}{PACKAGES}")]
    members = {name.removeprefix(top): Member(archive, name) for name in wanted}
    return {
        name: FileEntry(member.size, digests.get(f"{inside}/{name}") or digest_of(member))
        for name, member in members.items()
    }
