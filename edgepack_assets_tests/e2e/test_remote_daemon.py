"""Runs as jobs under a real daemon with PostgreSQL: the sensor, a backfill, re-execution from failure, and a machine
that is lost in the middle of a job. The assets are cheap; everything between Dagster and the job is real."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.storage.dagster_run import RunsFilter
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.test.utils import execute_dagster_graphql

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.loader import CONFIG_VARIABLE
from edgepack_assets.defs.run_launcher import FOLLOWED
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.azure.certificates import write_certificates
from edgepack_assets_tests.defs.remote import cheap_assets as cheap
from edgepack_assets_tests.defs.remote.process_jobs import ProcessJobs
from edgepack_assets_tests.e2e import postgres
from edgepack_assets_tests.e2e.conftest import PROJECT
from edgepack_assets_tests.needs import find_postgres

pytestmark = [pytest.mark.daemon, pytest.mark.postgres]

MODULE = "edgepack_assets_tests.defs.remote.cheap_daemon_defs"
PATIENCE = 600.0
REEXECUTION = """mutation Again($run: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $run, strategy: FROM_FAILURE}) {
    ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
BACKFILL = """mutation Backfill($key: String!) {
  launchPartitionBackfill(backfillParams: {assetSelection: [{path: ["payload_data"]}], partitionNames: [$key]}) {
    ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


class Site:
    """A folder with a daemon, whose runs are in PostgreSQL and whose jobs outlive it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = LocalRegistry(folder / "registry")
        self.jobs = ProcessJobs(folder / "jobs")
        self.process: subprocess.Popen[bytes] | None = None
        config = yaml.safe_load(cheap.configure(folder).read_text())
        config["sensors"] = {"start": "all", "interval": 1, "attempts": 1}
        (folder / "edgepack.yaml").write_text(yaml.safe_dump(config))
        shipped = yaml.safe_load((PROJECT / "docs" / "dagster.production.yaml").read_text())
        del shipped["compute_logs"]
        shipped["run_monitoring"]["poll_interval_seconds"] = 2
        (folder / "dagster.yaml").write_text(yaml.safe_dump(shipped))
        with self.instance() as instance:  # two processes that make the tables at once get in each other's way
            instance.get_runs()
            instance.all_instigator_state()
            instance.get_dynamic_partitions("models")

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.folder))

    @property
    def store(self) -> ArtefactStore:
        return ArtefactStore(str(self.folder / "artefacts"), self.folder / "cache")

    def add(self, version: int) -> None:
        content = self.folder / "model.bin"
        content.write_bytes(b"x")
        self.registry.register(Kind.MODEL, "press_model", content, {}, version=version)

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-m", MODULE]
        with (self.folder / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=PROJECT, env={**os.environ, "DAGSTER_HOME": str(self.folder)}, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def ask(self, *queries: tuple[str, dict[str, str]]) -> list[Any]:
        """The answers of GraphQL, as the web server of this daemon's workspace gives them. It starts a code server."""
        target = ModuleTarget(MODULE, None, str(PROJECT), None)
        with self.instance() as instance, WorkspaceProcessContext(instance, target) as process:
            answers = [
                execute_dagster_graphql(process.create_request_context(), query, variables)
                for query, variables in queries
            ]
        assert [answer.errors for answer in answers] == [None] * len(answers)
        return [answer.data for answer in answers]

    def lose(self) -> None:
        """SIGKILL to the daemon, its code server and the processes of runs; jobs are elsewhere."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait_until(self, what: str, holds: Callable[[dg.DagsterInstance], bool]) -> None:
        until = time.monotonic() + PATIENCE
        with self.instance() as instance:
            while not holds(instance):
                said = (self.folder / "daemon.log").read_text()[-4000:]
                assert self.process is not None
                assert self.process.poll() is None, said
                assert time.monotonic() < until, f"{what}: not within {PATIENCE} s\n{said}"
                time.sleep(0.3)


def runs(instance: dg.DagsterInstance, version: int, **tags: str) -> list[dg.DagsterRun]:
    return list(instance.get_runs(RunsFilter(tags={"dagster/partition": f"press:{version}", **tags})))


def has_status(*expected: dg.DagsterRunStatus, version: int, **tags: str) -> Callable[[dg.DagsterInstance], bool]:
    return lambda instance: [run.status for run in runs(instance, version, **tags)] == list(expected)


def messages(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    return "\n".join(str(entry.dagster_event.message) for entry in events if entry.dagster_event)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    programs = find_postgres()
    assert programs is not None
    _, certificate, key = write_certificates(tmp_path)
    with postgres.running(programs, "canary", certificate, key) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "edgepack.yaml"))
        made = Site(tmp_path)
        try:
            yield made
        finally:
            made.lose()
            made.jobs.end_all()


def test_jobs_of_a_plant_survive_the_loss_of_its_machine(site: Site) -> None:
    SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
    for version in (cheap.GOOD, cheap.BAD_MODEL, cheap.SLOW):
        site.add(version)
    site.start()
    site.wait_until("the sensor's good run", has_status(SUCCESS, version=cheap.GOOD))
    site.wait_until("the sensor's bad run", has_status(FAILURE, version=cheap.BAD_MODEL))

    # A worker of the machine is lost while the job of the slow one works, and everything else with it.
    def works(instance: dg.DagsterInstance) -> bool:
        found = runs(instance, cheap.SLOW)
        return bool(found) and bool(instance.all_logs(found[0].run_id, of_type=dg.DagsterEventType.STEP_START))

    site.wait_until("the slow job", works)
    site.lose()
    with site.instance() as instance:
        [slow] = runs(instance, cheap.SLOW)
    site.store.put_named("mended", "press", [1])
    site.start()
    site.wait_until("the resumption", lambda instance: "Found the job" in messages(instance, slow))
    site.store.put_named("go", "press", [1])
    site.wait_until("the slow run", has_status(SUCCESS, version=cheap.SLOW))

    with site.instance() as instance:
        [failed] = runs(instance, cheap.BAD_MODEL)
    reexecuted, asked = site.ask((REEXECUTION, {"run": failed.run_id}), (BACKFILL, {"key": f"press:{cheap.GOOD}"}))
    again = reexecuted["launchRunReexecution"]["run"]["runId"]
    backfill = asked["launchPartitionBackfill"]["backfillId"]
    site.wait_until("the re-execution", lambda instance: runs(instance, cheap.BAD_MODEL)[0].is_finished)
    site.wait_until("the backfill", has_status(SUCCESS, version=cheap.GOOD, **{"dagster/backfill": backfill}))

    with site.instance() as instance:
        assert [run.status for run in runs(instance, cheap.BAD_MODEL)] == [SUCCESS, FAILURE]
        assert messages(instance, slow).count(FOLLOWED) == 1
        for asset in ("payload_data", "deployment_package"):
            wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[f"press:{cheap.SLOW}"])
            assert len(instance.fetch_materializations(wanted, limit=5).records) == 1
        started = instance.all_logs(again, of_type=dg.DagsterEventType.STEP_START)
        assert len(started) == 5, "payload_data was there"
        every = [run.run_id for run in instance.get_runs()]
    assert sorted(site.jobs.jobs) == sorted(f"edgepack-{run_id}-1" for run_id in every), "one job for each run"
    assert not [path for path in (site.folder / "artefacts/remote_runs").rglob("*") if path.is_file()]
