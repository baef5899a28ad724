"""What of the artefact store is garbage: what no manifest, registered package or kept environment needs.

A lock is needed with all its wheels, so that a package which is registered can be built again from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack_assets.artefact_store import ArtefactStore, Garbage
from edgepack_assets.registry.base import Kind, Registry
from edgepack_assets.runtime.lock import LOCKS

LOCK_TAG = "lock_key"
"""Tag of a registered package: the key of its lock."""


def find_garbage(store: ArtefactStore, registry: Registry, environments: Path, grace: float) -> list[Garbage]:
    """Locks and blobs that nothing needs and nobody used for `grace` seconds; locks before their wheels.

    `environments` is the folder of kept environments, each named `<lock key>-...`."""
    locks = store.named(LOCKS)
    idle = store.idle_named(LOCKS, grace)
    keys = _keys_of_environments(environments) | _keys_of_packages(registry)
    needed: set[str] = set()
    for artefact in store.manifests():
        needed.update(blob.digest for blob in artefact.blobs())
        if "lock" in artefact.parts:
            lock = store.read_json(artefact.parts["lock"])
            keys.add(lock["key"])
            needed.update(_wheels(lock))
    unneeded = {key: item for key, item in idle.items() if key not in keys}
    for key, lock in locks.items():
        if key not in unneeded:
            needed.update(_wheels(lock))
    return [*unneeded.values(), *store.garbage(needed, grace)]


def _wheels(lock: Mapping[str, Any]) -> set[str]:
    return {package["digest"] for package in lock["packages"]}


def _keys_of_environments(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {entry.name.partition("-")[0] for entry in folder.iterdir() if entry.is_dir()}


def _keys_of_packages(registry: Registry) -> set[str]:
    return {
        version.tags[LOCK_TAG]
        for name in registry.names(Kind.MODEL)
        for version in registry.versions(Kind.MODEL, name)
        if LOCK_TAG in version.tags
    }
