"""pipeline_content.yml: the list of what a deployment package's component holds, as the SDK's `export` writes it.

File format 1.3.0 promises that file at the package's top, and the SDK's reader of earlier packages needs it. All of it
follows from the component, so it is no part of a package's content digest: it is made again and compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgepack_assets.filesystem.canonical_yaml import dump_yaml

PIPELINE_CONTENT = "pipeline_content.yml"


@dataclass(frozen=True)
class FileEntry:
    """The size and sha256 of a file."""

    size: int
    digest: str


def pipeline_content(
    component: str, size: int, files: Mapping[str, FileEntry], wheels: Mapping[str, FileEntry], requirements: bytes
) -> bytes:
    """The file of a package with one component: the size of the component's zip, its files and wheels by name, and its
    requirements.txt."""
    lines = [line.strip() for line in requirements.decode().splitlines()]
    entry = {
        "sizeInBytes": size,
        "files": _listed(files),
        "dependencies": _listed(wheels),
        "requirements": [line for line in lines if line and not line.startswith(("#", "-"))],
    }
    return dump_yaml({"totalSizeInBytes": size, "components": {component: entry}})


def _listed(files: Mapping[str, FileEntry]) -> list[dict[str, str | int]]:
    return [{"path": name, "size": entry.size, "hash": entry.digest} for name, entry in sorted(files.items())]
