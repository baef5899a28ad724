"""The registries under test and a model to put into them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.azure import calls
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings
from edgepack_assets.registry.azure_ml import AzureMLRegistry, asset_api
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.azure.loopback import LoopbackAzure


@pytest.fixture
def local(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry(tmp_path / "registry")


def azure_ml(azure: LoopbackAzure, kind: str, **settings: Any) -> AzureMLRegistry:
    """A registry object of its own, as another process has one."""
    section = {**azure.registry_section(kind), "time_limit": 20, **settings}
    return AzureMLRegistry(AzureMLRegistrySettings.model_validate(section))


@pytest.fixture
def azure_workspace(azure: LoopbackAzure) -> AzureMLRegistry:
    return azure_ml(azure, "workspace")


@pytest.fixture
def azure_registry(azure: LoopbackAzure) -> AzureMLRegistry:
    return azure_ml(azure, "registry")


class Clock:
    """The clock that remote calls wait by. `pauses` are the seconds that were waited, one after the other; waiting
    takes no time but moves the clock, and time that passes counts too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pauses: list[float] = []
        self._lock = threading.Lock()
        monkeypatch.setattr(calls, "now", lambda: time.monotonic() + sum(self.pauses))
        for module in (calls, asset_api):
            monkeypatch.setattr(module, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        with self._lock:
            self.pauses.append(seconds)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with nested, hidden, empty and oddly named files."""
    folder = tmp_path / "press model"
    for name, content in {
        "MLmodel": b"flavors: {}\n",
        "data/model.pkl": os.urandom(5000),
        "data/empty": b"",
        ".hidden/x": b"1",
        "größe\u202f1.txt": b"2",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "nothing in it").mkdir()
    return folder
