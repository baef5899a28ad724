"""What a run that is done as a job does when something goes wrong, is cancelled, retried or taken up again."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.compute.base import JobPhase
from edgepack_assets.config.digest import config_digest
from edgepack_assets.config.loader import CONFIG_VARIABLE, load_settings
from edgepack_assets.definitions import build_defs
from edgepack_assets.defs.asset_names import JOB
from edgepack_assets.defs.command_runs.display import RunDisplay
from edgepack_assets.defs.command_runs.runs import PackageRequest, run_requests
from edgepack_assets.defs.remote import remote_run
from edgepack_assets.defs.remote.dagster_internals import execute_run_of
from edgepack_assets.defs.remote.executor import Remote
from edgepack_assets.defs.remote.worker import JOB_TAG
from edgepack_assets.defs.sensors.run_outcomes import outcome_of
from edgepack_assets.new_models.run_requests import RunOutcome
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets_tests.defs.assets.staleness import plant_in, why_stale
from edgepack_assets_tests.defs.remote import cheap_assets as cheap
from edgepack_assets_tests.defs.remote import process_jobs
from edgepack_assets_tests.defs.remote.conftest import Place
from edgepack_assets_tests.defs.remote.process_jobs import ProcessJobs

pytestmark = pytest.mark.e2e  # whole runs, in processes of their own

FAILED, CANCELED, SUCCESS = (dg.DagsterRunStatus[name] for name in ("FAILURE", "CANCELED", "SUCCESS"))


def store_of(place: Place) -> ArtefactStore:
    return ArtefactStore(str(place.folder / "artefacts"), place.folder / "cache")


def when(condition: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Do something from another thread as soon as a condition holds."""

    def work() -> None:
        deadline = time.monotonic() + 120
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def has_started(place: Place, step: str = "payload_data") -> bool:
    runs = place.instance.get_runs(limit=1)
    return bool(runs) and any(event.step_key == step for event in place.events(runs[0], dg.DagsterEventType.STEP_START))


def test_a_cancelled_run_ends_its_job(place: Place) -> None:
    def cancel() -> None:
        place.instance.report_run_canceling(place.instance.get_runs(limit=1)[0])
        os.kill(os.getpid(), signal.SIGINT)

    canceller = when(lambda: has_started(place), cancel)
    run = place.run(cheap.SLOW)
    canceller.join()
    [job] = place.jobs.jobs
    assert run.status is CANCELED
    when(lambda: not place.jobs.is_alive(job), lambda: None).join()  # it has said that it ends
    status = place.jobs.status(job)
    assert status is not None
    assert status.phase is JobPhase.CANCELLED
    assert place.left_messages() == []
    # Nothing is materialized by implication.
    assert not place.instance.fetch_materializations(dg.AssetKey("payload_data"), limit=1).records


def test_a_process_that_dies_is_a_failure_of_infrastructure(place: Place) -> None:
    run = place.run(cheap.DIES)
    assert run.status is FAILED
    assert outcome_of(place.instance, run) is RunOutcome.INFRASTRUCTURE_FAILURE
    failures = place.failures(run)
    assert list(failures) == ["payload_data"]
    assert "ended before its work was done: ExecutionFailed: exit code" in failures["payload_data"]
    assert place.left_messages() == []


def test_a_node_that_is_taken_away_is_a_failure_of_infrastructure(place: Place) -> None:
    preemption = when(lambda: has_started(place), lambda: place.jobs.preempt(place.jobs.jobs[0]))
    run = place.run(cheap.SLOW)
    preemption.join()
    assert outcome_of(place.instance, run) is RunOutcome.INFRASTRUCTURE_FAILURE
    assert "PreemptionError" in place.failures(run)["payload_data"]


@pytest.mark.parametrize(
    ("fault", "options", "reason", "outcome"),
    [
        (process_jobs.NEVER_STARTS, {"start_time_limit": 0.5}, "compute.start_time_limit",
         RunOutcome.INFRASTRUCTURE_FAILURE),
        (process_jobs.REFUSES, {}, "AzureML Compute Operator is missing", RunOutcome.MODEL_FAILURE),
    ],
)  # fmt: skip
def test_a_job_that_does_not_begin_fails_the_first_step(
    place: Place, fault: str, options: dict[str, float], reason: str, outcome: RunOutcome
) -> None:
    place.options = options
    place.jobs.set_faults(fault)
    run = place.run(cheap.GOOD)
    assert run.status is FAILED
    [sentence] = place.failures(run).values()
    assert reason in sentence
    assert outcome_of(place.instance, run) is outcome
    assert all((place.folder / "jobs" / job / "cancelled").exists() for job in place.jobs.jobs)
    assert place.left_messages() == []


def test_an_inner_failure_before_any_step_is_told(make_place: Callable[..., Place]) -> None:
    place = make_place(description=cheap.NO_RESOURCE)
    run = place.run(cheap.GOOD)
    assert outcome_of(place.instance, run) is RunOutcome.INFRASTRUCTURE_FAILURE
    [sentence] = place.failures(run).values()
    assert "failed before any step did: " in sentence
    assert "the resource cannot be made" in sentence


def test_another_version_in_the_job_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_run, "software", lambda: {"edgepack-assets": "0.0.1", "dagster": "1.0"})
    run = place.run(cheap.GOOD)
    assert run.status is FAILED
    [sentence] = place.failures(run).values()
    assert "in place of 0.0.1" in sentence
    assert "compute.environment_image" in sentence
    assert not place.events(run, dg.DagsterEventType.STEP_START)


def test_what_is_secret_stays_in_the_store_and_what_is_the_nodes_out_of_the_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an event of 200 kB arrives whole."""
    document = yaml.safe_load(place.config.read_text())
    document["runtime"] = {"index_url": "https://user:${INDEX_PASSWORD}@index.example/simple"}
    place.config.write_text(yaml.safe_dump(document))
    monkeypatch.setenv("INDEX_PASSWORD", "canary-password")
    place.jobs.set_faults(process_jobs.LATE_END)
    reason = "canary-reason of the operator"
    run = place.run(
        cheap.LARGE, run_config={"ops": {"deployment_package": {"config": {"override_gates_reason": reason}}}}
    )
    assert run.status is SUCCESS
    logged = [entry.user_message for entry in place.instance.all_logs(run.run_id) if entry.dagster_event is None]
    assert f"override: {reason}" in logged
    assert "x" * 200_000 in logged
    [job] = (place.folder / "jobs").glob("edgepack-*")
    assert "canary" not in (job / "request.json").read_text()
    everything = [path for path in job.rglob("*") if path.is_file()]
    assert not [path for path in everything if b"canary-password" in path.read_bytes()]
    assert "canary-identity" not in "\n".join(logged)
    assert place.left_messages() == []
    # The job ran the code that runs here, from the wheel that went along, in a home of its own.
    [running] = [line for line in logged if line.startswith("running ")]
    assert "/edgepack-code-" in running
    assert running.endswith(f"at home in {job / 'home'}")
    assert run.run_id in job.name
    assert f"https://ml.azure.com/runs/{job.name}" in str(place.events(run, dg.DagsterEventType.ENGINE_EVENT))
    [ended] = [run.tags[name] for name in run.tags if name == JOB_TAG]
    assert ended == job.name


def test_a_run_can_be_done_here(place: Place) -> None:
    run = place.run(cheap.GOOD, run_config={"execution": {"config": {"where": "local"}}})
    assert run.status is SUCCESS
    assert place.jobs.jobs == []


def test_only_what_is_left_is_run_again_from_failure(place: Place) -> None:
    failed = place.run(cheap.BAD_MODEL)
    assert outcome_of(place.instance, failed) is RunOutcome.MODEL_FAILURE
    store_of(place).put_named("mended", "press", [1])
    again = _again_from_failure(place, failed)
    assert again.status is SUCCESS, place.failures(again) or place.notes(again)
    started = [event.step_key for event in place.events(again, dg.DagsterEventType.STEP_START)]
    assert "payload_data" not in started
    assert len(started) == 5


def _again_from_failure(place: Place, failed: dg.DagsterRun) -> dg.DagsterRun:
    # What the UI does: a new run with the steps that failed or were not begun, and the parent's knowledge.
    from dagster._core.execution.api import create_execution_plan, execute_run
    from dagster._core.execution.plan.state import KnownExecutionState

    job = place.job()
    done = {event.step_key for event in place.events(failed, dg.DagsterEventType.STEP_SUCCESS)}
    steps = sorted(set(failed_steps(failed)) - done)
    known = KnownExecutionState.build_for_reexecution(place.instance, failed).update_for_step_selection(steps)
    part = InMemoryJob(job).get_subset(asset_selection=failed.asset_selection)
    plan = create_execution_plan(part, {}, step_keys_to_execute=steps, known_state=known)
    run = place.instance.create_run_for_job(
        job_def=part.get_definition(), execution_plan=plan, tags=dict(failed.tags),
        parent_run_id=failed.run_id, root_run_id=failed.run_id, asset_selection=failed.asset_selection,
    )  # fmt: skip
    execute_run(InMemoryJob(job), run, place.instance)
    ended = place.instance.get_run_by_id(run.run_id)
    assert ended is not None
    return ended


def failed_steps(run: dg.DagsterRun) -> list[str]:
    assert run.asset_selection is not None
    return [key.to_python_identifier() for key in run.asset_selection]


ORCHESTRATOR = """
import sys, dagster as dg
from pathlib import Path
from edgepack_assets.defs.asset_names import ASSETS, JOB
from edgepack_assets.defs.remote.dagster_internals import execute_run_of
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets_tests.defs.assets.staleness import plant_in, why_stale
from edgepack_assets_tests.defs.remote.process_jobs import ProcessJobs
from edgepack_assets_tests.defs.remote import cheap_assets as cheap
folder, run_id = Path(sys.argv[1]), sys.argv[2]
with dg.DagsterInstance.from_config(str(folder)) as instance:
    job = cheap.load(folder / "edgepack.yaml", cheap.remote(folder / "jobs")).resolve_job_def(JOB)
    execute_run_of(job, instance, ModelKey("press", cheap.SLOW), ASSETS, {}, run_id)
"""


def _killed_in_the_middle(place: Place) -> dg.DagsterRun:
    """A run whose orchestrator was killed while its job worked."""
    place.add(cheap.SLOW)
    run_id = str(uuid.uuid4())
    with (place.folder / "orchestrator.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", ORCHESTRATOR, str(place.folder), run_id], stdout=subprocess.DEVNULL, stderr=log
        )
    when(lambda: has_started(place) or process.poll() is not None, process.kill).join()
    process.wait()
    run = place.instance.get_run_by_id(run_id)
    assert run is not None, (place.folder / "orchestrator.log").read_text()
    assert not run.is_finished
    return run


def test_an_orchestrator_that_is_started_again_goes_on_with_the_job(place: Place) -> None:
    run = _killed_in_the_middle(place)
    [job] = place.jobs.jobs
    store_of(place).put_named("go", "press", [1])
    while place.jobs.is_alive(job):  # the job ends while nobody looks
        time.sleep(0.1)
    taken_over = time.time()
    for _ in execute_run_iterator(InMemoryJob(place.job()), run, place.instance, resume_from_failure=True):
        pass
    ended = place.instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status is SUCCESS
    assert place.jobs.jobs == [job]
    for kind in (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS):
        steps = [event.step_key for event in place.events(ended, kind)]
        assert len(steps) == len(set(steps)) == 6
    told = [entry for entry in place.instance.all_logs(run.run_id) if entry.step_key]
    assert max(entry.timestamp for entry in told) < taken_over, "when it happened, not when it was read"
    assert len(place.instance.fetch_materializations(dg.AssetKey("payload_data"), limit=10).records) == 1
    assert place.left_messages() == []


def test_the_job_of_a_run_that_was_lost_is_cancelled_before_a_new_one(place: Place) -> None:
    lost = _killed_in_the_middle(place)
    [job] = place.jobs.jobs
    assert place.jobs.is_alive(job)
    store = store_of(place)
    released = when(lambda: not place.jobs.is_alive(job), lambda: store.put_named("go", "press", [1]))
    run = place.run(cheap.SLOW)
    released.join()
    assert run.status is SUCCESS
    assert f"Cancelled the job {job}" in place.notes(run)
    told = place.instance.get_run_by_id(lost.run_id)
    assert told is not None
    assert told.status is FAILED, "no run monitoring was there to say so"
    assert len(place.jobs.jobs) == 2
    assert all(job in path.parts for path in place.left_messages())


def test_the_command_packages_by_a_job(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (cheap.GOOD, cheap.BAD_MODEL):
        place.add(version)
    lines: list[str] = []
    requests = [PackageRequest(ModelKey("press", version)) for version in (cheap.GOOD, cheap.BAD_MODEL)]
    results = run_requests(
        requests,
        lambda console: cheap.load(place.config, place.remote, console),
        place.folder,
        RunDisplay(lines.append),
    )
    good, bad = results
    assert good.succeeded, good
    assert good.package["digest"]
    assert bad.outcome is RunOutcome.MODEL_FAILURE
    assert bad.reasons == ("config_package of press:2: it holds no model file",)
    done = [line.split()[1] for line in lines if line.startswith("press:1 ")]
    assert sorted(done) == sorted(["payload_data", "config_package", "prepped_data", "validation_results", "metrics",
                                   "deployment_package"])  # fmt: skip
    assert "it holds no model file" in bad.log.read_text()


def test_the_projects_own_definitions_run_in_a_job(
    tmp_path: Path, prepared_plant: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plant_in(tmp_path / "plant", prepared_plant) as plant:
        monkeypatch.setenv(CONFIG_VARIABLE, str(plant.config))
        jobs = ProcessJobs(tmp_path / "jobs")  # no edgepack.yaml above it
        remote = Remote(service=lambda *_: jobs, timing=cheap.TIMING)
        plant.configure(description="as in a job")
        document = yaml.safe_load(plant.config.read_text())
        plant.config.write_text(yaml.safe_dump({**document, "run": {"output_folders": [str(tmp_path / "outputs")]}}))
        plant.record("press", 7.0)
        raw = plant.registry.versions(Kind.DATA, "press_raw")[-1]
        copy = tmp_path / "outputs/payload.jsonl.gz"
        config = {"ops": {"payload_data": {"config": {"payload_path": "payload.jsonl.gz"}}}}
        # The job of a launch from the asset graph, and of `dagster asset materialize`.
        job = build_defs(plant.config, remote=remote).resolve_implicit_global_asset_job_def()
        key, run_id = ModelKey("press", 1), str(uuid.uuid4())
        run = execute_run_of(job, plant.instance, key, ["payload_data"], config, run_id)
        assert run.status is SUCCESS, plant.instance.all_logs(run_id)[-2:]
        [record] = plant.instance.fetch_materializations(dg.AssetKey("payload_data"), limit=1).records
        made = record.asset_materialization
        assert made is not None
        assert record.event_log_entry.run_id == run_id
        assert made.metadata["raw_data"].value == f"press_raw:{raw.number}"
        # Another folder, another file, the same configuration.
        assert made.metadata["config_digest"].value == config_digest(load_settings(plant.config))
        assert why_stale(plant.instance, plant.config, "payload_data", "press:1") == []
        assert b"7.0" in gzip.decompress(copy.read_bytes())
        assert len(jobs.jobs) == 1


def test_the_jobs_name_is_that_of_run_and_attempt() -> None:
    run_id = str(uuid.uuid4())
    assert remote_run.run_id_of(remote_run.job_name(run_id, "3")) == run_id
    assert remote_run.job_name(run_id, "3") != remote_run.job_name(run_id, "1") == remote_run.job_name(run_id, "x y")
    assert JOB == "package_model"
