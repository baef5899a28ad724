"""A folder with a Dagster instance, an artefact store, and jobs that are processes of this machine."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from edgepack_assets.config.loader import CONFIG_VARIABLE
from edgepack_assets.defs.jobs import ASSETS, JOB
from edgepack_assets.defs.remote.dagster_internals import execute_run_of
from edgepack_assets.defs.remote.executor import Remote
from edgepack_assets.partitions import ModelKey
from edgepack_assets_tests.defs.remote import cheap_assets
from edgepack_assets_tests.defs.remote.process_jobs import ProcessJobs


@dataclass
class Place:
    """`runs_as_jobs` says where the work of this place is done."""

    folder: Path
    instance: dg.DagsterInstance
    runs_as_jobs: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def jobs(self) -> ProcessJobs:
        return ProcessJobs(self.folder / "jobs")

    @property
    def config(self) -> Path:
        return self.folder / "edgepack.yaml"

    @property
    def remote(self) -> Remote | None:
        return cheap_assets.remote(self.folder / "jobs", **self.options) if self.runs_as_jobs else None

    def job(self) -> dg.JobDefinition:
        return cheap_assets.load(self.config, self.remote).resolve_job_def(JOB)

    def add(self, version: int) -> ModelKey:
        self.instance.add_dynamic_partitions("models", [f"press:{version}"])
        return ModelKey("press", version)

    def run(
        self, version: int, assets: Sequence[str] = ASSETS, run_config: Mapping[str, Any] | None = None
    ) -> dg.DagsterRun:
        return execute_run_of(self.job(), self.instance, self.add(version), assets, run_config or {}, str(uuid.uuid4()))

    def events(self, run: dg.DagsterRun, kind: dg.DagsterEventType) -> list[Any]:
        return [entry.dagster_event for entry in self.instance.all_logs(run.run_id, of_type=kind)]

    def failures(self, run: dg.DagsterRun) -> dict[str, str]:
        found = {}
        for event in self.events(run, dg.DagsterEventType.STEP_FAILURE):
            data = event.step_failure_data
            found[event.step_key] = (
                data.user_failure_data and data.user_failure_data.description
            ) or data.error.message
        return found

    def notes(self, run: dg.DagsterRun) -> str:
        return "\n".join(event.message for event in self.events(run, dg.DagsterEventType.ENGINE_EVENT))

    def left_messages(self) -> list[Path]:
        return [path for path in (self.folder / "artefacts/remote_runs").rglob("*") if path.is_file()]


@pytest.fixture
def make_place(tmp_path: Path, empty_storage: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(name: str = "place", runs_as_jobs: bool = True, **entry: Any) -> Place:
        folder = tmp_path / name
        shutil.copytree(empty_storage, folder)
        cheap_assets.configure(folder, **entry)
        (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\npython_logs: {python_log_level: INFO}\n")
        monkeypatch.setenv(CONFIG_VARIABLE, str(folder / "edgepack.yaml"))
        made.append(Place(folder, dg.DagsterInstance.from_config(str(folder)), runs_as_jobs))
        return made[-1]

    yield make
    for each in made:
        each.jobs.end_all()
        each.instance.dispose()


@pytest.fixture
def place(make_place: Callable[..., Place]) -> Place:
    return make_place()
