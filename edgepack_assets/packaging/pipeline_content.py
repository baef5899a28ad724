"""pipeline_content.yml: the list of what a deployment package's components hold, as the SDK's `export` writes it.

File format 1.3.0 promises that file at the package's top, and the SDK's reader of earlier packages needs it. All of it
follows from the components, so it is no part of a package's content digest: it is made again and compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgepack_assets.filesystem.canonical_yaml import dump_yaml

PIPELINE_CONTENT = "pipeline_content.yml"


@dataclass(frozen=True)
class FileEntry:
    """The size and sha256 of a file."""

    size: int
    digest: str


@dataclass(frozen=True)
class ComponentEntry:
    """A component: the size of its zip, its files and wheels by name, and its requirements.txt. One that is no Python
    component has neither wheels nor requirements, and lists none."""

    size: int
    files: Mapping[str, FileEntry]
    wheels: Mapping[str, FileEntry]
    requirements: bytes
    is_python: bool = True

    def listed(self) -> dict[str, Any]:
        """What the SDK's `export` lists of it."""
        entry = {"sizeInBytes": self.size, "files": _listed(self.files)}
        if not self.is_python:
            return entry
        lines = [line.strip() for line in self.requirements.decode().splitlines()]
        requirements = [line for line in lines if line and not line.startswith(("#", "-"))]
        return {**entry, "dependencies": _listed(self.wheels), "requirements": requirements}


def pipeline_content(components: Mapping[str, ComponentEntry]) -> bytes:
    """The file of a package with these components, by name, in the order of the pipeline."""
    return dump_yaml({
        "totalSizeInBytes": sum(component.size for component in components.values()),
        "components": {name: component.listed() for name, component in components.items()},
    })  # fmt: skip


def _listed(files: Mapping[str, FileEntry]) -> list[dict[str, str | int]]:
    return [{"path": name, "size": entry.size, "hash": entry.digest} for name, entry in sorted(files.items())]
