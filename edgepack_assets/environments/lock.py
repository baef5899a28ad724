"""Full locks: every package of a component's environment, exact version, wheel and sha256.

A lock is resolved once per (requirements, Python, platform, index), published put-if-absent in the artefact store,
and its wheels are kept there as blobs. Nothing is resolved again while the requirements don't change, unless a user
asks for it: that publishes the next generation under the same key, and the newest one is in force. Generations are
documents of their own, `<key>`, `<key>.2`, `<key>.3`, ..., so that publishing is put-if-absent on any storage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from edgepack_assets.artefacts.artefact import Blob, canonical_json
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.numpy_compatibility import too_old_for_numpy
from edgepack_assets.environments.resolver import fetch_missing, resolve_wheels
from edgepack_assets.environments.wheels import PLATFORM, LockedPackage
from edgepack_assets.errors import CorruptError, EnvironmentBuildError, without_credentials

LOCKS = "locks"
"""Kind of the store's documents that hold locks."""
_FORMAT = 1


class Lock(BaseModel):
    """Everything that is installed in a component's environment. `key` identifies what was asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    python: str
    platform: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    """Bounds on packages that the requirements need, beside them."""
    packages: tuple[LockedPackage, ...]

    @model_serializer(mode="wrap")
    def _without_empty_constraints(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The bytes of a lock end in packages, and those of one without constraints must stay what they were.
        document: dict[str, Any] = serialize(self)
        if not self.constraints:
            document.pop("constraints", None)
        return document

    @property
    def digest(self) -> str:
        """sha256 over Python, platform and the exact wheels: equal for equal environments."""
        wheels = [[package.file, package.digest] for package in self.packages]
        return hashlib.sha256(canonical_json([self.python, self.platform, wheels])).hexdigest()

    @property
    def names(self) -> frozenset[str]:
        """Canonical names of all packages."""
        return frozenset(package.name for package in self.packages)

    def as_requirements(self, hashes: bool = False) -> str:
        """A requirements.txt that pins everything, optionally with pip's `--hash`."""
        lines = (
            f"{package.name}=={package.version}" + (f" --hash=sha256:{package.digest}" if hashes else "")
            for package in self.packages
        )
        return "\n".join(lines) + "\n"


class _Document(Lock):
    """A lock as it is published. The time is no part of the lock itself, whose bytes end up in packages."""

    resolved: datetime | None = None


@dataclass(frozen=True)
class _LockRequest:
    """The input of a resolution."""

    key: str
    requirements: list[str]
    constraints: list[str]
    python: str


@dataclass(frozen=True)
class Generation:
    """A published lock: the number of the resolution of its key, from 1 up, and its time (UTC; None if not known)."""

    lock: Lock
    number: int
    resolved: datetime | None

    @property
    def resolved_text(self) -> str:
        """When it was resolved, to the minute."""
        return f"{self.resolved.astimezone(UTC):%Y-%m-%d %H:%M}Z" if self.resolved else "unknown"


def lock_key(
    requirements: Sequence[str], python: str, settings: RuntimeSettings, constraints: Sequence[str] = ()
) -> str:
    """The key of a published lock: a digest of requirements, constraints, Python, platform and index.

    Raises EnvironmentBuildError on a line that is not a requirement."""
    indexes = [without_credentials(url) for url in (settings.index_url or "", *settings.extra_index_urls)]
    asked = [_FORMAT, _normalised(requirements), python, PLATFORM, indexes]
    if constraints:  # without any, the key stays that of earlier versions
        asked.append(_normalised(constraints))
    return hashlib.sha256(canonical_json(asked)).hexdigest()


def lock_for(
    requirements: Sequence[str], python: str, store: ArtefactStore, settings: RuntimeSettings
) -> tuple[Lock, bool]:
    """(lock, whether it was there already) for these requirements, its wheels in the store.

    Raises EnvironmentBuildError if the requirements cannot be resolved for the edge, or the index cannot be asked.
    """
    generation, kept = generation_for(requirements, python, store, settings)
    return generation.lock, kept


def generation_for(
    requirements: Sequence[str],
    python: str,
    store: ArtefactStore,
    settings: RuntimeSettings,
    constraints: Sequence[str] = (),
    *,
    tell: Callable[[str], object] = lambda _: None,
) -> tuple[Generation, bool]:
    """As `lock_for`, with the generation in force. `constraints` bound the versions of dependencies. `tell` gets a
    line before what takes long."""
    key = lock_key(requirements, python, settings, constraints)
    known = newest_generation(key, store)
    if known is not None:
        _refuse_other(known.lock, key, python)
        if not too_old_for_numpy(known.lock.packages, [*requirements, *constraints]):
            fetch_missing(known.lock.packages, store, python, settings)
            return known, True
    # Locks from before NumPy 2 was excluded for old libraries fail on import: the next generation replaces them.
    request = _LockRequest(key, _normalised(requirements), _normalised(constraints), python)
    tell(f"resolving {', '.join(request.requirements)} for Python {python}, and downloading the wheels")
    lock = _resolved(request, store, settings)
    return _publish(known.number + 1 if known else 1, lock, store), False


def refresh_lock(lock: Lock, store: ArtefactStore, settings: RuntimeSettings) -> tuple[Generation, Generation]:
    """Resolve the requirements of `lock` again: (the generation before, the one in force now).

    They are equal if the index offers nothing else. Of several refreshes at the same time one publishes, and all return
    its generation. Raises EnvironmentBuildError, also if another index is configured by now."""
    request = _LockRequest(lock.key, list(lock.requirements), list(lock.constraints), lock.python)
    if lock_key(request.requirements, request.python, settings, request.constraints) != lock.key:
        raise EnvironmentBuildError(
            f"the lock {lock.key[:12]} was made with other indexes than runtime.index_url and extra_index_urls name "
            "today: materialize config_package, which makes a lock of its own with these"
        )
    before, _ = generation_for(request.requirements, request.python, store, settings, request.constraints)
    resolved = _resolved(request, store, settings, anew=True)
    if resolved == before.lock:
        return before, before
    return before, _publish(before.number + 1, resolved, store)


def newest_generation(key: str, store: ArtefactStore) -> Generation | None:
    """The lock in force under `key`. Raises CorruptError if it is not one."""
    names = (split_name(name) for name in store.names(LOCKS, key))
    for number in sorted((number for name, number in names if name == key and number), reverse=True):
        document = store.get_named(LOCKS, _name(key, number))
        if document is not None:  # else it was removed as garbage meanwhile
            return read_generation(_name(key, number), document)
    return None


def read_lock(blob: Blob, store: ArtefactStore) -> Lock:
    """The lock that a config package has as one of its parts. Raises CorruptError."""
    try:
        return Lock.model_validate(store.read_json(blob))
    except ValidationError as error:
        raise CorruptError(
            f"the blob {blob.digest[:12]} is no lock that this release reads ({_first_of(error)}): materialize "
            "config_package again"
        ) from None


def generations(store: ArtefactStore, damaged: list[CorruptError] | None = None) -> list[Generation]:
    """Every published lock, by key and number. Listing does not count as using.

    Raises CorruptError for one that is damaged; with a list `damaged` the error is put there, and the others follow."""
    every = []
    for name, document in store.named(LOCKS, damaged).items():
        try:
            every.append(read_generation(name, document))
        except CorruptError as error:
            if damaged is None:
                raise
            damaged.append(error)
    return sorted(every, key=lambda generation: (generation.lock.key, generation.number))


def split_name(name: str) -> tuple[str, int]:
    """(key, number) of a published lock's name; number 0 if the name is not that of a generation."""
    key, dot, number = name.partition(".")
    if not dot:
        return key, 1
    return key, int(number) if number.isdecimal() and int(number) > 1 and str(int(number)) == number else 0


def read_generation(name: str, document: Any) -> Generation:
    """The lock of a document that was published under `name`. Raises CorruptError if it is none, or of another key."""
    key, number = split_name(name)
    try:
        published = _Document.model_validate(document)
    except ValidationError as error:
        raise CorruptError(
            f"the lock {name} is not valid, delete it: it will be resolved again ({_first_of(error)})"
        ) from None
    lock = Lock.model_validate(published.model_dump(exclude={"resolved"}))
    if lock.key != key or number == 0:
        raise CorruptError(f"the lock {name} is that of {lock.key}, delete it: it will be resolved again")
    return Generation(lock, number, published.resolved)


def _first_of(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}"


def fetch_wheels(lock: Lock, store: ArtefactStore, folder: Path) -> None:
    """Put every wheel of the lock into `folder` under its file name, verified. Raises CorruptError."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in lock.packages:
        try:
            (folder / package.file).symlink_to(store.fetch(package.blob))
        except CorruptError as error:
            raise CorruptError(f"the wheel {package.file}: {error}") from None


def changes(before: Lock, after: Lock) -> list[dict[str, str]]:
    """The differences between two locks: rows of package, before, after ("" where there is none)."""
    old, new = (_wheels_by_name(lock.packages) for lock in (before, after))
    return [
        {"package": name, "before": _version_or_file(name, old, new), "after": _version_or_file(name, new, old)}
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _wheels_by_name(packages: Iterable[LockedPackage]) -> dict[str, LockedPackage]:
    return {package.name: package for package in packages}


def _version_or_file(name: str, ours: Mapping[str, LockedPackage], theirs: Mapping[str, LockedPackage]) -> str:
    """The version of a package, or its file where both locks have the same version."""
    if name not in ours:
        return ""
    same = name in theirs and theirs[name].version == ours[name].version
    return f"{ours[name].file} ({ours[name].digest[:12]})" if same else ours[name].version


def _name(key: str, number: int) -> str:
    return key if number == 1 else f"{key}.{number}"


def _resolved(request: _LockRequest, store: ArtefactStore, settings: RuntimeSettings, anew: bool = False) -> Lock:
    packages = resolve_wheels(
        request.requirements, request.python, store, settings, constraints=request.constraints, anew=anew
    )
    return Lock(
        key=request.key, python=request.python, platform=PLATFORM, requirements=tuple(request.requirements),
        constraints=tuple(request.constraints), packages=tuple(packages),
    )  # fmt: skip


def _publish(number: int, lock: Lock, store: ArtefactStore) -> Generation:
    """Publish a lock under this number. Returns the generation that has it: ours, or another process's."""
    document = _Document(**dict(lock), resolved=datetime.now(UTC).replace(microsecond=0))
    name = _name(lock.key, number)
    generation = read_generation(name, store.put_named(LOCKS, name, document.model_dump(mode="json")))
    _refuse_other(generation.lock, lock.key, lock.python)
    return generation


def _refuse_other(lock: Lock, key: str, python: str) -> None:
    if (lock.key, lock.python, lock.platform) != (key, python, PLATFORM):
        raise CorruptError(
            f"the lock {key} is for Python {lock.python} on {lock.platform} (key {lock.key}), "
            f"not for Python {python} on {PLATFORM}; delete it: it will be resolved again"
        )


def _normalised(requirements: Sequence[str]) -> list[str]:
    """One spelling per requirement: canonical name, sorted specifiers, no line twice."""
    lines = set()
    for line in requirements:
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise EnvironmentBuildError(
                f"{without_credentials(repr(line))} is not a requirement such as scikit-learn==1.5.2 "
                f"({without_credentials(str(error))})"
            ) from None
        if requirement.url is not None:
            raise EnvironmentBuildError(
                f"the requirement {without_credentials(line)!r} names a URL, but a component is made of wheels that "
                "an index holds: ask for a version, and name the index under runtime.extra_index_urls in edgepack.yaml"
            )
        requirement.name = canonicalize_name(requirement.name)
        lines.add(str(requirement))
    return sorted(lines)
