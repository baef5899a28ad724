"""Finds garbage in the artefact store: blobs and locks that no manifest, registered package or kept environment needs.

A lock is needed with all its wheels, so that a registered package can be built again from them. The newest generation
of a lock is in force, so it is needed while any generation is. An older one is needed only while something was made
from it. What a side job gave is needed while a config package was made from it (a conversion), or was used lately.
What a registered package answered to a payload is needed while it was used lately.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.backend import StoredFile
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.environments.lock import LOCKS, split_name
from edgepack_assets.errors import CorruptError
from edgepack_assets.operations.lock_usage import LockUse, digest_of, lock_uses
from edgepack_assets.registry.base import DamagedVersion, Registry
from edgepack_assets.tasks.conversion import PART as CONVERSION
from edgepack_assets.tasks.predecessor.kept_answers import KIND as ANSWERS
from edgepack_assets.tasks.side_jobs import KIND as SIDE_JOBS


def find_garbage(  # noqa: PLR0917 - where to look, and what counts
    store: ArtefactStore,
    registry: Registry,
    environments: Path,
    grace: float,
    without: Collection[Path] = (),
    damaged: list[CorruptError] | None = None,
    damaged_versions: list[DamagedVersion] | None = None,
) -> list[StoredFile]:
    """Locks and blobs that nothing needs and nothing used for `grace` seconds; locks before their wheels.

    `environments` is the folder of kept environments, each named `<lock key>-...`; those in `without` do not count. If
    the tags of a registered version cannot be read, it may need any lock, so all are kept. `damaged_versions` gets the
    registry's damaged versions.

    A manifest, lock, result of a side job or document of answers that cannot be read may need any blob: it raises
    CorruptError. With a list `damaged` the error is put there, and only what no manifest can need is garbage: temporary
    files and local copies of blobs."""
    unread: list[CorruptError] | None = None if damaged is None else []
    locks = _documents(store, LOCKS, _wheels, unread)
    jobs = _documents(store, SIDE_JOBS, _outputs, unread)
    answers = _documents(store, ANSWERS, _outputs, unread)
    idle = store.idle_named(LOCKS, grace)
    damaged_versions = [] if damaged_versions is None else damaged_versions
    needed: set[str] = set()
    needed_jobs: set[str] = set()

    def look(artefact: Artefact) -> None:
        needed.update(blob.digest for blob in artefact.blobs())
        if CONVERSION in artefact.parts:
            needed_jobs.update(store.read_json(artefact.parts[CONVERSION])["jobs"])

    uses = lock_uses(store, registry, environments, without, unread, look, damaged_versions)
    if unread:
        assert damaged is not None
        damaged += unread
        return store.replaceable(grace)
    may_need_any = any(not each.tags_are_known for each in damaged_versions)
    kept = set(locks) if may_need_any else _needed_locks(locks, set(idle), uses)
    for use in uses:
        needed |= _wheels(use.document) if use.document else set()
    for name in kept:
        needed |= _wheels(locks[name])
    idle_jobs = {n: file for n, file in store.idle_named(SIDE_JOBS, grace).items() if n not in needed_jobs}
    idle_answers = store.idle_named(ANSWERS, grace)
    for documents, idle_ones in ((jobs, idle_jobs), (answers, idle_answers)):
        for name, document in documents.items():
            if name not in idle_ones:
                needed |= _outputs(document)
    # Oldest generation first: at no moment may an older one be in force.
    unneeded = [idle[name] for name in sorted(idle, key=split_name) if name not in kept]
    return [*unneeded, *idle_jobs.values(), *idle_answers.values(), *store.garbage(needed, grace)]


def _needed_locks(locks: Mapping[str, Any], idle: set[str], uses: list[LockUse]) -> set[str]:
    """Names of the locks that something needs, that were used lately, or that are in force for their key."""
    exact_uses = {(use.key, use.digest) for use in uses if use.digest}
    keys_in_use = {use.key for use in uses if not use.digest}
    split = {name: split_name(name) for name in locks}
    kept = {
        name for name, (key, _) in split.items()
        if name not in idle or key in keys_in_use or (key, digest_of(locks[name])) in exact_uses
    }  # fmt: skip
    wanted = {split[name][0] for name in kept} | {use.key for use in uses}
    in_force = {key: name for name, (key, _) in sorted(split.items(), key=lambda item: item[1])}
    return kept | {in_force[key] for key in wanted if key in in_force}


def _documents(
    store: ArtefactStore, kind: str, blobs_of: Callable[[Any], set[str]], damaged: list[CorruptError] | None
) -> dict[str, Any]:
    """The documents of a kind. One that does not say which blobs it needs is a CorruptError, see `find_garbage`."""
    documents = store.named(kind, damaged)
    for name, document in documents.items():
        try:
            blobs_of(document)
        except (AttributeError, KeyError, TypeError):
            path = f"{store.root_url}/{kind}/{name}.json"
            error = CorruptError(f"{path}: does not hold what belongs there; delete it, it will be written again")
            if damaged is None:
                raise error from None
            damaged.append(error)
    return documents


def _wheels(lock: Mapping[str, Any]) -> set[str]:
    return {package["digest"] for package in lock["packages"]}


def _outputs(document: Mapping[str, Any]) -> set[str]:
    return {blob["digest"] for blob in document["outputs"].values()}
