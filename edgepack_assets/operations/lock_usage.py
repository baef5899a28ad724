"""Finds what needs each lock: config packages, registered packages and kept environments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.environments.environment import lock_of_environment
from edgepack_assets.environments.lock import Lock
from edgepack_assets.errors import CorruptError
from edgepack_assets.registry.base import DamagedVersion, Kind, RegisteredVersion, Registry
from edgepack_assets.tasks.context import SERVER_LOCK
from edgepack_assets.tasks.conversion import PART as CONVERSION
from edgepack_assets.tasks.packages.tags import LOCK_DIGEST, LOCK_KEY, SERVER_LOCK_DIGEST, SERVER_LOCK_KEY


@dataclass(frozen=True)
class LockUse:
    """Something that needs the lock of this key and digest. `who` names it for the user. Without a digest it may need
    any generation of the key. `document` is the lock itself, if a copy of it is at hand."""

    who: str
    key: str
    digest: str | None
    document: dict[str, Any] | None = None


def lock_uses(  # noqa: PLR0917 - where to look, and what is told
    store: ArtefactStore,
    registry: Registry,
    environments: Path,
    without: Collection[Path] = (),
    damaged: list[CorruptError] | None = None,
    look: Callable[[Artefact], None] = lambda artefact: None,
    damaged_versions: list[DamagedVersion] | None = None,
) -> list[LockUse]:
    """Everything that needs a lock.

    `environments` is the folder of kept environments, each named `<lock key>-...`; those in `without` do not
    count. A manifest, or its lock, that cannot be read raises CorruptError; with a list `damaged` the error is put
    there, and the others follow. `look` is given each artefact of the store: reading them all is most of the work.
    `damaged_versions` gets the damaged versions of models and packages: if the tags of one cannot be read, it is not
    known which lock it needs."""
    uses: list[LockUse] = []
    for artefact in store.manifests(damaged):
        try:
            uses += _uses_of(artefact, store)
            look(artefact)
        except CorruptError as error:
            if damaged is None:
                raise
            damaged.append(error)
    for name in registry.names(Kind.MODEL):
        sound, unusable = registry.versions_and_damaged(Kind.MODEL, name)
        listed: list[RegisteredVersion | DamagedVersion] = [*sound, *unusable]
        for version in listed:
            uses += _of_tags(str(version), version.tags)
        if damaged_versions is not None:
            damaged_versions += unusable
    for folder in sorted(environments.iterdir()) if environments.is_dir() else ():
        if folder.is_dir() and folder not in without:
            lock = lock_of_environment(folder)
            key = folder.name.partition("-")[0]
            uses.append(LockUse(f"environment {folder.name}", key, lock.digest if lock else None))
    return uses


def _of_tags(who: str, tags: Mapping[str, str]) -> list[LockUse]:
    pairs = ((LOCK_KEY, LOCK_DIGEST), (SERVER_LOCK_KEY, SERVER_LOCK_DIGEST))
    return [LockUse(who, tags[key], tags.get(digest)) for key, digest in pairs if key in tags]


def _uses_of(artefact: Artefact, store: ArtefactStore) -> Iterator[LockUse]:
    for part in {"lock", SERVER_LOCK} & artefact.parts.keys():
        document = store.read_json(artefact.parts[part])
        yield LockUse(str(artefact.partition), document["key"], digest_of(document), document)
    if CONVERSION in artefact.parts:
        for used in store.read_json(artefact.parts[CONVERSION])["locks"]:
            lock = used["lock"]
            yield LockUse(str(artefact.partition), lock["key"], digest_of(lock), lock)


def digest_of(document: Any) -> str | None:
    """The digest of a published lock; None if it cannot be read."""
    fields = {name: value for name, value in document.items() if name in Lock.model_fields}
    try:
        return Lock.model_validate(fields).digest
    except ValidationError:
        return None
