"""Locks for tests that don't ask how one is resolved: published as ever, without uv and pip, which take half a
second."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
from packaging.utils import parse_wheel_filename

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments import lock as locks
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import Lock, lock_for
from edgepack_assets.environments.wheels import WHEEL, LockedPackage


def locked(
    requirement: str, *wheels: tuple[str, bytes], store: ArtefactStore, settings: RuntimeSettings, python: str = ""
) -> Lock:
    """The lock of `requirement`, as an index gives it that has these wheels alone. They are in the store then."""

    def resolved(*_: object, **__: object) -> Sequence[LockedPackage]:
        packages = []
        for file, data in sorted(wheels):
            store.put_bytes(data, WHEEL)
            name, version, *_ = parse_wheel_filename(file)
            digest: Any = hashlib.sha256(data).hexdigest()
            packages.append(LockedPackage(name=name, version=str(version), file=file, digest=digest, size=len(data)))
        return packages

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "resolve_wheels", resolved)
        return lock_for([requirement], python or find_python(None)[0], store, settings)[0]
