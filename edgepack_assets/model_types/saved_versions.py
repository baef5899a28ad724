"""Compares the versions that a model says it was saved with to those in its component's lock."""

from __future__ import annotations

from collections.abc import Mapping

from packaging.version import InvalidVersion, Version

from edgepack_assets.evidence import Part
from edgepack_assets.model_types.saved_environment import edge_python
from edgepack_assets.runtime.lock import Lock
from edgepack_assets.settings import ModelTypeSettings

_LONGEST = 100


def saved_version_parts(saved: Mapping[str, str], lock: Lock, entry: ModelTypeSettings) -> list[Part]:
    """A row for each library of the lock (and `python`) whose version the model says it was saved with.

    A difference warns, or with `saved_versions: block` fails the check. What the component does not hold cannot
    differ."""
    locked = {package.name: package.version for package in lock.packages}
    rows = []
    for name, version in sorted(saved.items()):
        if name == "python":
            found, same = lock.python, edge_python(version) == lock.python
        elif name in locked:
            found, same = locked[name], _public(version) == _public(locked[name])
        else:
            continue
        warns = entry.saved_versions == "warn"
        rows.append(Part(f"{name} as saved", same, found, f"{version[:_LONGEST]}, as the model says", warns=warns))
    return rows


def _public(version: str) -> object:
    """A version without its local part: 2.1.0+cpu is the same code as 2.1.0."""
    try:
        parsed = Version(version)
    except InvalidVersion:
        return version
    return Version(parsed.public)
