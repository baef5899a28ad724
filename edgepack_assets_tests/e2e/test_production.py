"""docs/dagster.production.yaml as it stands: a `dagster dev` whose runs are in PostgreSQL and their logs in Azure."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.storage.compute_log_manager import ComputeIOType

from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.e2e import postgres
from edgepack_assets_tests.e2e.conftest import PROJECT
from edgepack_assets_tests.e2e.dev import Dev
from edgepack_assets_tests.needs import find_postgres

PRODUCTION = PROJECT / "docs" / "dagster.production.yaml"
CODE = """
import sys
import dagster as dg

@dg.op
def tell():
    print("told to stdout")
    print("told to stderr", file=sys.stderr)

@dg.job
def telling():
    tell()

@dg.sensor(job=telling, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=1)
def once():
    yield dg.RunRequest(run_key="once")

defs = dg.Definitions(jobs=[telling], sensors=[once])
"""


@pytest.fixture
def password() -> str:
    return f"canary/{uuid.uuid4().hex}@&"  # a password may hold what a URL may not


@pytest.fixture
def production(azure: LoopbackAzure, password: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment that the file asks for, with the servers it names."""
    programs = find_postgres()
    assert programs is not None
    certificate, key = azure.folder / "server.pem", azure.folder / "server.key"
    with postgres.running(programs, password, certificate, key) as variables:
        container = f"logs-{uuid.uuid4().hex}"
        azure.storage.make_container(container)
        variables |= {"EDGEPACK_LOGS_ACCOUNT": azure.storage.account, "EDGEPACK_LOGS_CONTAINER": container}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield


def test_runs_are_in_postgres_and_their_logs_in_azure(
    production: None, azure: LoopbackAzure, password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere, scratch = (tmp_path / name for name in ("home", "elsewhere", "scratch"))
    for folder in (home, elsewhere, scratch):
        folder.mkdir()
    for folder in (home, elsewhere):
        shutil.copyfile(PRODUCTION, folder / "dagster.yaml")
    (tmp_path / "telling.py").write_text(CODE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "EDGEPACK_C"))}
    environment |= {"DAGSTER_HOME": str(home), "TMPDIR": str(scratch)}
    dev = Dev(tmp_path, environment, "-f", "telling.py", command=("dagster", "dev"))
    try:
        dev.wait_until("the run", lambda: bool(runs := dev.runs()) and all(run.is_finished for run in runs))
        [run] = dev.runs()
        assert run.is_success, dev.log.read_text()[-4000:]
    finally:
        dev.stop()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for secret in (azure.principal.secret, password):
                assert secret.encode() not in data, path
    # What another machine sees: it has the configuration and the servers, and none of these files.
    shutil.rmtree(home)
    shutil.rmtree(scratch)
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr("tempfile.tempdir", None)
    with dg.DagsterInstance.from_config(str(elsewhere)) as instance:
        [found] = instance.get_runs()
        assert (found.run_id, found.status) == (run.run_id, dg.DagsterRunStatus.SUCCESS)
        [captured] = [
            record.event_log_entry.dagster_event.logs_captured_data
            for record in instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED).records
        ]
        key = [run.run_id, "compute_logs", captured.file_key]
        logs = instance.compute_log_manager
        assert type(logs).__module__.startswith("dagster_azure")
        assert logs.is_capture_complete(key)
        told = logs.get_log_data(key)
        assert told.stdout.decode().strip() == "told to stdout"
        assert b"told to stderr" in told.stderr
        assert logs.cloud_storage_has_logs(key, ComputeIOType.STDOUT)  # type: ignore[attr-defined]


def test_it_differs_from_the_default_in_its_servers_alone() -> None:
    production, default = (yaml.safe_load(path.read_text()) for path in (PRODUCTION, PROJECT / "dagster.yaml"))
    assert {key: value for key, value in production.items() if key not in ("storage", "compute_logs")} == default
