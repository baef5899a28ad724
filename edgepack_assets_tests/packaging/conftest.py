"""What tests of packages share: the packages of a tiny component, with one wheel in its lock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.environment import Environment, environment_for
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import Lock, lock_for
from edgepack_assets_tests.environments.wheels import Index, wheel
from edgepack_assets_tests.packaging import tiny

HELPER = wheel("echo_helper", "1.5", files={"echo_helper.py": "def twice(x):\n    return x + x\n"})


@dataclass(frozen=True)
class Built:
    """A lock, its store and environment, and the packages made with it (version 7)."""

    lock: Lock
    store: ArtefactStore
    environment: Environment
    settings: RuntimeSettings
    config: Path
    deployment: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("tiny")
    store = ArtefactStore(str(folder / "artefacts"), folder / "cache")
    with Index() as index, pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_CACHE_DIR", str(folder / "uv-cache"))
        patch.setenv("NO_PROXY", "127.0.0.1")
        index.add(HELPER)
        settings = RuntimeSettings(environments=folder / "environments", index_url=index.url, time_limit=60.0)
        lock, _ = lock_for(["echo-helper"], find_python(None)[0], store, settings)
        environment = environment_for(lock, store, settings)
    config = tiny.build_config(folder / "work", lock)
    deployment = tiny.build_deployment(config, lock, store, 7, folder / "work")
    return Built(lock, store, environment, settings, config, deployment)
