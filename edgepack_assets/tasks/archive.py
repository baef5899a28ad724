"""Archived packages: still registered, and no longer offered. A tag of the package says who archived it, when and why.

The files and the number stay, so what runs on a device can still be downloaded. Archiving models and data is the
registry's own (registry/base.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from edgepack_assets.errors import EdgepackError
from edgepack_assets.registry.base import DamagedVersion, Kind, RegisteredVersion, Registry
from edgepack_assets.tasks.package_tags import ARCHIVED, LONGEST_TAG
from edgepack_assets.tasks.stages import StageMove, current


@dataclass(frozen=True)
class Archived:
    """Who archived a package, when (as the tag says it) and why."""

    by: str
    at: str
    reason: str

    def __str__(self) -> str:
        """In words."""
        return f"archived by {self.by} {self.at}" + (f": {self.reason}" if self.reason else "")


def archived(package: RegisteredVersion | DamagedVersion) -> Archived | None:
    """How a package was archived; None if it is not. A tag that a person wrote by hand counts, whatever it holds."""
    if ARCHIVED not in package.tags:
        return None
    text = package.tags[ARCHIVED]
    try:
        held = json.loads(text)
    except ValueError:
        held = None
    if not isinstance(held, dict):
        held = {"reason": text}
    return Archived(*(str(held.get(name, "?" if name == "by" else "")) for name in ("by", "at", "reason")))


def in_use(packages: Iterable[RegisteredVersion | DamagedVersion], package: RegisteredVersion) -> list[StageMove]:
    """The stages that a package is in now."""
    return [move for move in current(packages).values() if move.package.number == package.number]


def archive(  # noqa: PLR0917 - who archives what, when and why
    registry: Registry, package: RegisteredVersion, by: str, reason: str, now: datetime, force: bool = False
) -> bool:
    """Archive a package; False if it is already. Raises EdgepackError if a stage is in use, unless `force`."""
    if ARCHIVED in package.tags:
        return False
    sound, damaged = registry.versions_and_damaged(Kind.MODEL, package.name)
    moves = in_use([*sound, *damaged], package)
    if moves and not force:
        stages = " and ".join(str(move) for move in moves)
        raise EdgepackError(
            f"{package} is in {stages}: move another package there first (edgepack package promote or rollback), or "
            "say --force"
        )
    value = json.dumps(
        {"by": by, "at": now.isoformat(timespec="seconds"), "reason": reason}, ensure_ascii=False
    )  # fmt: skip
    if len(value) > LONGEST_TAG:
        raise EdgepackError(f"who archives {package} and why has {len(value)} characters in a tag: shorten it")
    registry.set_tags(package, {ARCHIVED: value})
    return True


def restore(registry: Registry, package: RegisteredVersion) -> bool:
    """Take a package out of the archive; False if it is not in it."""
    if ARCHIVED not in package.tags:
        return False
    registry.set_tags(package, {}, without=[ARCHIVED])
    return True
