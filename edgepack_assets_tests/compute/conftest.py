"""A service of jobs on the loopback Azure, and what a run asks of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.azure import calls
from edgepack_assets.azure.errors import COMPUTE_OPERATOR
from edgepack_assets.compute.azure_ml import AzureMlJobs
from edgepack_assets.compute.base import JobRequest
from edgepack_assets.config.compute_settings import ComputeSettings
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings
from edgepack_assets_tests.azure.loopback import LoopbackAzure


class Plant:
    """The workspace of the loopback Azure, with a service of jobs that is made anew by each call, as by a new process.
    `said` is what the service logs."""

    def __init__(self, azure: LoopbackAzure, folder: Path) -> None:
        self.azure = azure
        self.folder = folder
        self.said: list[str] = []

    @property
    def workspace(self) -> AzureMLRegistrySettings:
        return AzureMLRegistrySettings.model_validate({**self.azure.registry_section(), "time_limit": 20})

    def compute(self, **keys: Any) -> ComputeSettings:
        # An image of its own: no list of what is installed here is sent along.
        given = {"cluster_name": "edge-cpu", "cluster_size": "Standard_DS3_v2", "environment_image": "plant/edge:1"}
        return ComputeSettings.model_validate({"type": "azure_ml", "experiment_name": "press", **given, **keys})

    def jobs(self, **keys: Any) -> AzureMlJobs:
        return AzureMlJobs(self.compute(**keys), self.workspace)

    def ready(self, **keys: Any) -> AzureMlJobs:
        """A service whose cluster and environment are there."""
        self.azure.azure_ml.compute.add_cluster("edge-cpu")
        jobs = self.jobs(**keys)
        jobs.prepare(self.log)
        self.said.clear()
        return jobs

    def log(self, text: str) -> None:
        self.said.append(text)

    def request(
        self, command: str, name: str = "press-1", code: Mapping[str, str] | None = None, **fields: Any
    ) -> JobRequest:
        folder = self.folder / "code"
        for path, text in {"run.txt": "what runs", **(code or {})}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        given: dict[str, Any] = {"environment_variables": {}, "tags": {}, "display_name": "press:1"}
        return JobRequest(name, command, folder, **{**given, "time_limit": timedelta(hours=1), **fields})

    def bodies(self, name: str = "press-1") -> dict[str, Any]:
        """What the service was given for a job."""
        return self.azure.jobs.jobs[name].properties

    def asked(self, pattern: str) -> list[str]:
        return [asked for asked, _ in self.azure.proxy.seen if pattern in asked]


@pytest.fixture
def plant(azure: LoopbackAzure, tmp_path: Path) -> Plant:
    azure.principal.roles.add(COMPUTE_OPERATOR)
    return Plant(azure, tmp_path)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Pauses between attempts take a thousandth of their time, and the clock that limits are measured by moves on as
    if they had been waited. The result says how many seconds they were."""
    pauses: list[float] = []
    lock = threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            pauses.append(seconds)
        time.sleep(seconds / 1000)

    monkeypatch.setattr(calls, "now", lambda: time.monotonic() + sum(pauses))
    monkeypatch.setattr(calls, "sleep", sleep)
    return lambda: sum(pauses)
