"""Which package is the one before, and what the artefact store has of the run that registered it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import (
    DamagedVersion,
    Kind,
    RegisteredVersion,
    damaged_in_words,
    refuse_unread,
)
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.packages.history import by_model_version, model_version_of
from edgepack_assets.tasks.packages.stages import current
from edgepack_assets.tasks.packages.tags import (
    ARCHIVED,
    CONTENT_DIGEST,
    MODEL_TYPE,
)

_Package = RegisteredVersion | DamagedVersion
_PRODUCTION = "production"
NO_PREDECESSOR = "none: no package in production, and none of a lower model version"
_RECORDED = ("config_package", "payload_data", "validation_results")


@dataclass(frozen=True)
class Predecessor:
    """The registered package of an earlier model version, whose numbers and interface a new one keeps. `lines` are
    those that use it now, in a plant that has several."""

    package: RegisteredVersion
    model_version: int
    lines: tuple[str, ...] = ()

    @property
    def in_use(self) -> str:
        """Its name, and where it is used."""
        return f"{self}, production of {', '.join(self.lines)}" if self.lines else str(self)

    def __str__(self) -> str:
        return f"{self.package} of model version {self.model_version}"


@dataclass(frozen=True)
class Recorded:
    """What the artefact store has of the run that registered the predecessor. The artefacts were made from each
    other."""

    config_package: Artefact
    payload_data: Artefact
    validation_results: Artefact


def find_predecessors(key: ModelKey, context: TaskContext) -> list[Predecessor]:
    """The packages before that of this model version, none if there is none.

    These are the packages in production of other model versions: one for each line of edgepack.yaml, the one that was
    moved last first. Else it is the newest package of the highest lower model version that is not archived. Raises
    EdgepackError if one cannot be read, or if it is not known which ones they are; TransientError if that may pass."""
    entry = context.entry(key)
    name = entry.registered_package_name
    sound, damaged = context.registry.versions_and_damaged(Kind.MODEL, name)
    refuse_unread(damaged)
    listed: list[_Package] = [*sound, *damaged]
    chosen = _at_work(listed, entry.model_name, key, context.settings.lines)
    if not chosen and (before := _version_before(listed, entry.model_name, key)) is not None:
        chosen = [(*before, ())]
    if not chosen and (unknown := [package for package in damaged if not package.tags_are_known]):
        raise EdgepackError(f"the package before cannot be told: {damaged_in_words(unknown)}")
    found = []
    for package, version, lines in chosen:
        if isinstance(package, DamagedVersion):
            raise EdgepackError(f"{package} of model version {version} cannot be read: {package.reason}")
        found.append(Predecessor(package, version, lines))
    return found


def find_predecessor(key: ModelKey, context: TaskContext) -> Predecessor | None:
    """The package whose numbers a new one gets: the first of `find_predecessors`, None if there is none."""
    return next(iter(find_predecessors(key, context)), None)


def _at_work(
    listed: Iterable[_Package], model_name: str, key: ModelKey, lines: Sequence[str]
) -> list[tuple[_Package, int, tuple[str, ...]]]:
    """(package, model version, its lines) of those of other model versions that are in production and still there.

    A line that edgepack.yaml does not name any more counts only if no other has a package."""
    by_number = {package.number: package for package in listed}
    moves = [move for (stage, _), move in current(by_number.values()).items() if stage == _PRODUCTION]
    moves.sort(key=lambda move: move.at, reverse=True)
    found: dict[int, tuple[_Package, int, tuple[str, ...]]] = {}
    for move in [move for move in moves if move.line in (lines or ("",))] or moves[:1]:
        number = move.package.number
        version = model_version_of(by_number[number], model_name)
        if version is not None and version != key.version:
            others = found[number][2] if number in found else ()
            found[number] = (by_number[number], version, (*others, move.line) if move.line else others)
    return list(found.values())


def _version_before(listed: Iterable[_Package], model_name: str, key: ModelKey) -> tuple[_Package, int] | None:
    """The newest package of the highest lower model version, archived ones left out."""
    offered = [package for package in listed if ARCHIVED not in package.tags]
    packages: dict[int, _Package] = by_model_version(offered, model_name)
    version = max((version for version in packages if version < key.version), default=None)
    return None if version is None else (packages[version], version)


def recorded(predecessor: Predecessor, context: TaskContext) -> Recorded | None:
    """The artefacts of the predecessor, if the store still has all of them as they were when it was registered."""
    package = predecessor.package
    # Its model type may have had another name in edgepack.yaml then.
    partition = f"{package.tags.get(MODEL_TYPE, '')}:{predecessor.model_version}"
    try:
        deployed = context.store.load("deployment_package", partition)
        artefacts = {asset: context.store.load(asset, partition) for asset in _RECORDED}
    except TransientError:
        raise
    except EdgepackError as error:
        context.log.info(f"the run that made {predecessor} is not in the artefact store: {error}")
        return None
    facts = (deployed.facts.get("name"), deployed.facts.get("version"), deployed.facts.get("content_digest"))
    if facts != (package.name, package.version, package.tags.get(CONTENT_DIGEST)):
        return None
    if any(deployed.made_from.get(asset) != artefact.digest for asset, artefact in artefacts.items()):
        return None
    if not all(context.store.has(blob.digest) for artefact in artefacts.values() for blob in artefact.parts.values()):
        return None
    return Recorded(**artefacts)
