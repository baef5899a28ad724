"""The package before: which one that is, and what it answers to a payload.

How its answers are compared with those of a new package is in numbering.py, and what it declares in contract.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.environments.lock import LOCKS, Lock, read_generation, split_name
from edgepack_assets.errors import EdgepackError, PackageError, TransientError
from edgepack_assets.model_types.interface import Payload, Results
from edgepack_assets.packaging.component_runs import PackageRun
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import (
    DamagedVersion,
    Kind,
    RegisteredVersion,
    Registry,
    damaged_in_words,
    refuse_unread,
)
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.package_run import run_package
from edgepack_assets.tasks.packages.history import by_model_version, model_version_of
from edgepack_assets.tasks.packages.stages import current
from edgepack_assets.tasks.packages.tags import (
    ARCHIVED,
    CONTENT_DIGEST,
    LOCK_DIGEST,
    LOCK_KEY,
    MODEL_TYPE,
    SERVER_LOCK_DIGEST,
    SERVER_LOCK_KEY,
)
from edgepack_assets.tasks.payload_data import open_payload
from edgepack_assets.tasks.predecessor.kept_answers import answers_key, keep_answers, kept_answers

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


@contextmanager
def answers_to(
    payload_data: Artefact, predecessor: Predecessor, key: ModelKey, context: TaskContext
) -> Iterator[Results]:
    """What the predecessor answers to a payload: as it was recorded or kept, else from a run of the registered package,
    whose results are kept.

    The results may be gone after the block. Raises EdgepackError if it cannot be run."""
    known, records = recorded(predecessor, context), payload_data.parts["records"]
    if known is not None and known.payload_data.parts["records"] == records:
        yield Results(context.store.fetch(known.validation_results.parts["results"]))
        return
    locks = [lock.digest for lock in _locks(predecessor, context) if lock is not None]
    kept_as = answers_key(predecessor.package.resolve().digest, locks, records)
    if (kept := kept_answers(kept_as, context.store, context.log)) is not None:
        yield Results(kept)
        return
    context.log.info(f"running {predecessor} over the payload of {key}, to compare its answers")
    with run_registered(predecessor, open_payload(payload_data, context), key, context) as run:
        keep_answers(kept_as, run.results, context.store)
        yield Results(run.results)


@contextmanager
def run_registered(
    predecessor: Predecessor, payload: Payload, key: ModelKey, context: TaskContext
) -> Iterator[PackageRun]:
    """Run a registered package over a payload, in its own environment; `key` names its model type.

    The files of the run are gone after the block. Raises EdgepackError if it cannot be run."""
    lock, server_lock = _locks(predecessor, context)
    with context.work_folder() as work:
        path = registered_zip(predecessor.package, work, context.registry)
        environment = context.environment(lock)
        server = context.environment(server_lock) if server_lock is not None else None
        run, _ = run_package(f"running {predecessor}", path, environment, payload, key, work, context, server=server)
        yield run


def registered_zip(package: RegisteredVersion, folder: Path, registry: Registry) -> Path:
    """The zip of a registered package, downloaded into `folder`, held against its digest. Raises EdgepackError."""
    path = registry.download(package, folder / "registered")
    if path.is_file():
        return path
    files = [file for file in path.rglob("*.zip") if file.is_file()]
    if len(files) != 1:
        raise PackageError(f"{package} is registered with {len(files)} zips, not as one")
    return files[0]


def _locks(predecessor: Predecessor, context: TaskContext) -> tuple[Lock, Lock | None]:
    """The lock of its environment, and the one that stands for the server's GPU runtime, if it has that."""
    lock = _lock(predecessor, context, LOCK_KEY, LOCK_DIGEST)
    if SERVER_LOCK_KEY not in predecessor.package.tags:
        return lock, None
    return lock, _lock(predecessor, context, SERVER_LOCK_KEY, SERVER_LOCK_DIGEST)


def _lock(predecessor: Predecessor, context: TaskContext, key_tag: str, digest_tag: str) -> Lock:
    key, digest = (predecessor.package.tags.get(tag, "") for tag in (key_tag, digest_tag))
    for name in context.store.names(LOCKS, key) if key else ():
        document = context.store.get_named(LOCKS, name) if split_name(name)[0] == key else None
        if document is not None and (lock := read_generation(name, document).lock).digest == digest:
            return lock
    raise PackageError(
        f"{predecessor} cannot be run: its lock {digest[:12] or '(its tags name none)'} is not in the artefact store"
    )
