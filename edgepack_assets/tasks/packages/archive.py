"""What is archived: still registered, and no longer offered. A tag says who archived it, when and why.

The files and the number stay, so what runs on a device can still be downloaded. For a package the tag is all there is.
Archiving models and data is the registry's own (registry/base.py), and the tag tells about it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from edgepack_assets.config.versions import Version
from edgepack_assets.errors import CorruptError, EdgepackError, NotFoundError
from edgepack_assets.registry.base import DamagedVersion, Kind, RegisteredVersion, Registry
from edgepack_assets.tasks.packages.stages import StageMove, current
from edgepack_assets.tasks.packages.tags import ARCHIVED, LONGEST_TAG


@dataclass(frozen=True)
class Archived:
    """Who archived a package, when (as the tag says it) and why."""

    by: str
    at: str
    reason: str

    def __str__(self) -> str:
        """In words."""
        return f"archived by {self.by} {self.at}" + (f": {self.reason}" if self.reason else "")


def archived(version: RegisteredVersion | DamagedVersion) -> Archived | None:
    """How a version was archived; None if it is not. A tag that a person wrote by hand counts, whatever it holds."""
    if ARCHIVED not in version.tags:
        return None
    text = version.tags[ARCHIVED]
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
            "use --force"
        )
    registry.set_tags(package, {ARCHIVED: tag_value(package, by, reason, now)})
    return True


def tag_value(version: RegisteredVersion, by: str, reason: str, now: datetime) -> str:
    """What the tag says. Raises EdgepackError if it would be too long."""
    value = json.dumps({"by": by, "at": now.isoformat(timespec="seconds"), "reason": reason}, ensure_ascii=False)
    if len(value) > LONGEST_TAG:
        raise EdgepackError(f"who archives {version} and why has {len(value)} characters in a tag: shorten it")
    return value


def archive_version(
    registry: Registry, kind: Kind, name: str, version: Version, tag: Callable[[RegisteredVersion], str]
) -> bool:
    """Archive a version of a model or of data, as its registry does it, with the same tag; False if it is already.

    A damaged version has no tag that could be written. Raises NotFoundError."""
    with contextlib.suppress(NotFoundError, CorruptError):  # archived already, or said below
        found = registry.get(kind, name, version)
        registry.set_tags(found, {ARCHIVED: tag(found)})
    return registry.set_archived(kind, name, version, True)


def restore_version(registry: Registry, kind: Kind, name: str, version: Version) -> bool:
    """Take a version of a model or of data out of the archive; False if it is not in it. Raises NotFoundError."""
    changed = registry.set_archived(kind, name, version, False)
    with contextlib.suppress(CorruptError):
        restore(registry, registry.get(kind, name, version))
    return changed


def restore(registry: Registry, package: RegisteredVersion) -> bool:
    """Take a package out of the archive; False if it is not in it."""
    if ARCHIVED not in package.tags:
        return False
    registry.set_tags(package, {}, without=[ARCHIVED])
    return True
