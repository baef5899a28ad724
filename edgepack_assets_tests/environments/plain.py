"""Fixtures: a package index of our own, a store, and an environment with nothing in it but Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.environment import Environment, environment_for
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import lock_for
from edgepack_assets_tests.environments.wheels import Index

NOWHERE = "http://127.0.0.1:9/simple"
"""An index that nobody serves: port 9 is never open."""


@pytest.fixture(autouse=True)
def no_network_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without proxies, and a uv that has seen nothing yet."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))


@pytest.fixture
def index() -> Iterator[Index]:
    with Index() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(str(tmp_path / "artefacts"), tmp_path / "cache")


@pytest.fixture(scope="session")
def plain_settings(tmp_path_factory: pytest.TempPathFactory) -> RuntimeSettings:
    return RuntimeSettings(environments=tmp_path_factory.mktemp("environments"), index_url=NOWHERE, time_limit=60.0)


@pytest.fixture(scope="session")
def environment(plain_settings: RuntimeSettings, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment of no requirements at all; locking and building it asks no index."""
    folder = tmp_path_factory.mktemp("plain")
    store = ArtefactStore(str(folder / "artefacts"), folder / "cache")
    lock, _ = lock_for([], find_python(None)[0], store, plain_settings)
    return environment_for(lock, store, plain_settings)
