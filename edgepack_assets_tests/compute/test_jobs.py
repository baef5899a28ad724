"""Jobs of Azure ML with the real client: what is sent, what runs, what comes back, and what goes wrong."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from edgepack_assets.compute.azure_ml.job_status import is_infrastructure
from edgepack_assets.compute.base import JobPhase
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets_tests.azure.faults import changed, lost_answer, status
from edgepack_assets_tests.azure.http import Response
from edgepack_assets_tests.azure.jobs import Job
from edgepack_assets_tests.compute.conftest import Plant

JOB = r"GET management.*/jobs/press-1\?"
PUT_JOB = r"PUT management.*/jobs/press-1\?"


def test_a_run_becomes_one_job_with_its_code_and_its_log(plant: Plant) -> None:
    jobs = plant.jobs(build_reference="build 7", deploy_environment="prod")
    jobs.prepare(plant.log)
    request = plant.request(
        'cat run.txt inside/more.txt; echo; echo "$GREETING"; ls -A "$HOME" "$TMPDIR"; pwd',
        code={"inside/more.txt": " and more"},
        environment_variables={"GREETING": "hello there"},
        tags={"edgepack/run_id": "0123"},
        time_limit=timedelta(hours=2),
    )
    started = jobs.start(request, plant.log)
    assert started.phase is JobPhase.WAITING
    assert plant.said[-1] == "started job press-1 on the compute cluster edge-cpu"
    plant.azure.jobs.wait("press-1")
    ended = jobs.status("press-1")
    assert ended is not None
    assert (ended.phase, ended.service_status, ended.error) == (JobPhase.SUCCEEDED, "Completed", None)
    assert ended.phase.is_over
    lines = jobs.log_tail("press-1", 50).splitlines()
    folder = next(Path(line).parent for line in lines if line.endswith("/press-1/code"))
    assert lines == ["what runs and more", "hello there", f"{folder}/home:", "", f"{folder}/tmp:", f"{folder}/code"]
    assert jobs.log_tail("press-1", 1) == f"{folder}/code"
    facts = ended.details
    assert facts["cluster"] == "edge-cpu"
    assert facts["nodes"] == "Standard_DS3_v2, dedicated"
    assert facts["studio"].startswith("https://ml.azure.com/runs/press-1")
    assert facts["created"] < facts["started"] < facts["ended"]
    assert facts["environment"].startswith("edgepack:")


def test_what_is_sent_is_what_the_service_documents(plant: Plant) -> None:
    keys = {"identity": {"client_id": "6a1c"}, "docker_args": ["--cap-add=SYS_ADMIN", "--security-opt=seccomp=x"]}
    jobs = plant.ready(**keys, build_reference="build 7", display_name="Press line 4")
    jobs.start(plant.request("true", tags={"asset": "press"}, time_limit=timedelta(minutes=90)), plant.log)
    body = dict(plant.bodies())
    assert body["jobType"] == "Command"
    assert body["command"] == "true"
    assert (body["displayName"], body["experimentName"]) == ("Press line 4", "press")
    assert body["computeId"].endswith("/workspaces/plant-ws/computes/edge-cpu")
    assert "/environments/edgepack/versions/" in body["environmentId"]
    assert body["limits"] == {"jobLimitsType": "Command", "timeout": "PT1H30M"}
    assert body["resources"]["instanceCount"] == 1
    assert body["resources"]["dockerArgsList"] == keys["docker_args"]
    assert "dockerArgs" not in body["resources"]
    assert body["identity"] == {"identityType": "Managed", "clientId": "6a1c"}
    assert body["environmentVariables"] == {"AZURE_CLIENT_ID": "6a1c"}
    assert body["tags"] == {"asset": "press", "build_reference": "build 7"}
    own = {key for key in body["properties"] if not key.startswith("azureml.ComputeTarget")}
    assert own == {"edgepack.fingerprint", "azureml.git.dirty"}, "nothing of the repository that Dagster runs in"
    assert body["properties"]["azureml.git.dirty"] == "unknown"


def test_after_a_restart_the_job_is_found_and_nothing_is_started_again(plant: Plant) -> None:
    request = plant.request("sleep 60")
    plant.ready().start(request, plant.log)
    plant.azure.jobs.wait("press-1", "Running")
    again = plant.jobs().start(request, plant.log)
    assert again.phase is JobPhase.RUNNING
    assert "job press-1 was started before: its status is Running" in plant.said
    assert len(plant.asked("startPendingUpload")) == 1
    assert len([asked for asked in plant.asked("/jobs/") if asked.startswith("PUT")]) == 1


@pytest.mark.parametrize("other", ["command", "code", "variables", "foreign"])
def test_a_job_of_that_name_that_another_request_started_is_refused(plant: Plant, other: str) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("sleep 60"), plant.log)
    changes = {
        "command": plant.request("sleep 61"),
        "variables": plant.request("sleep 60", environment_variables={"A": "1"}),
    }
    if other == "foreign":
        del plant.azure.jobs.jobs["press-1"].properties["properties"]["edgepack.fingerprint"]
    request = changes.get(other) or plant.request("sleep 60", code={"run.txt": "other"} if other == "code" else None)
    words = "not of this project" if other == "foreign" else "another command, code or variables"
    with pytest.raises(EdgepackError, match=f"there is a job press-1 already, and .*{words}.*: start a new run"):
        jobs.start(request, plant.log)


def test_labels_and_order_make_no_other_request(plant: Plant) -> None:
    jobs = plant.ready()
    first = plant.request("sleep 60", environment_variables={"A": "1", "B": "2"}, tags={"x": "1"})
    jobs.start(first, plant.log)
    second = plant.request("sleep 60", environment_variables={"B": "2", "A": "1"}, display_name="other")
    assert not jobs.start(second, plant.log).phase.is_over


def test_an_answer_that_was_lost_starts_no_second_job(plant: Plant, hurry: Callable[[], float]) -> None:
    jobs = plant.ready()
    plant.azure.faults.add(PUT_JOB, lost_answer)
    assert jobs.start(plant.request("echo once; sleep 60"), plant.log).phase is not JobPhase.FAILED
    assert len([asked for asked in plant.asked("/jobs/press-1") if asked.startswith("PUT")]) == 2
    assert "job press-1 was started before" in plant.said
    assert hurry() > 0


def test_two_who_start_the_same_run_have_one_job(plant: Plant) -> None:
    """The second one's first look comes before the first one's job is known."""
    request = plant.request("sleep 60")
    jobs = plant.ready()
    jobs.start(request, plant.log)
    plant.azure.faults.add(JOB, status(404, "UserError", "Requested resource could not be found"))
    jobs.start(request, plant.log)
    assert plant.said[-1] == "job press-1 was started before"


def test_a_job_is_cancelled_and_its_processes_end(plant: Plant) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("echo $$; exec sleep 600"), plant.log)
    running = plant.azure.jobs.wait("press-1", "Running")
    now = jobs.status("press-1")
    assert now is not None
    assert (now.phase, now.service_status) == (JobPhase.RUNNING, "Running")
    assert now.details["node"].startswith("tvmps_")
    jobs.cancel("press-1")
    jobs.cancel("press-1")
    plant.azure.jobs.wait("press-1")
    ended = jobs.status("press-1")
    assert ended is not None
    assert (ended.phase, ended.is_infrastructure) == (JobPhase.CANCELLED, False)
    assert ended.details["node"] == now.details["node"]
    assert running.process is not None
    with pytest.raises(ProcessLookupError):
        os.kill(running.process.pid, 0)
    jobs.cancel("press-1")
    jobs.cancel("there is none")


def test_cancelling_a_job_that_ends_meanwhile_is_no_error(plant: Plant) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("true"), plant.log)
    plant.azure.jobs.wait("press-1")
    plant.azure.faults.add(JOB, changed(lambda body: body.replace(b'"Completed"', b'"Running"')))
    jobs.cancel("press-1")
    assert plant.asked("/jobs/press-1/cancel")


def test_a_cancellation_that_the_service_refuses_is_told(plant: Plant) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("sleep 60"), plant.log)
    plant.azure.jobs.wait("press-1", "Running")
    plant.azure.faults.add("/cancel", status(400, "UserError", "not now"))
    with pytest.raises(EdgepackError, match=r"cancelling job press-1 .*not now"):
        jobs.cancel("press-1")


def test_a_job_whose_command_fails_says_so_and_is_no_fault_of_the_machines(plant: Plant) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("echo no such model >&2; exit 3"), plant.log)
    plant.azure.jobs.wait("press-1")
    ended = jobs.status("press-1")
    assert ended is not None
    assert (ended.phase, ended.is_infrastructure) == (JobPhase.FAILED, False)
    assert ended.error == "UserError: Execution failed. User process '/bin/bash' exited with status code 3."
    assert jobs.log_tail("press-1", 10) == "no such model"


def test_a_preempted_node_is_a_fault_of_the_machines(plant: Plant) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("sleep 600"), plant.log)
    plant.azure.jobs.wait("press-1", "Running")
    plant.azure.jobs.preempt("press-1")
    plant.azure.jobs.wait("press-1")
    ended = jobs.status("press-1")
    assert ended is not None
    assert (ended.phase, ended.is_infrastructure) == (JobPhase.FAILED, True)
    assert "preempted" in str(ended.error)


def test_a_job_that_died_without_a_reason_says_that(plant: Plant) -> None:
    jobs = plant.ready()
    plant.azure.jobs.loses_error = True
    jobs.start(plant.request("sleep 600"), plant.log)
    plant.azure.jobs.wait("press-1", "Running")
    plant.azure.jobs.die("press-1")
    plant.azure.jobs.wait("press-1")
    ended = jobs.status("press-1")
    assert ended is not None
    assert ended.phase is JobPhase.FAILED
    assert ended.error == "Azure ML says nothing of why the job failed; its log may"


def test_a_job_that_stops_answering_is_not_over_and_may_answer_again(plant: Plant) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("sleep 600"), plant.log)
    plant.azure.jobs.wait("press-1", "Running")
    plant.azure.jobs.stop_answering("press-1")
    silent = jobs.status("press-1")
    assert silent is not None
    assert (silent.phase, silent.is_infrastructure) == (JobPhase.NOT_RESPONDING, True)
    assert not silent.phase.is_over
    plant.azure.jobs.answer_again("press-1")
    again = jobs.status("press-1")
    assert again is not None
    assert again.phase is JobPhase.RUNNING


def test_a_job_in_the_queue_says_what_it_waits_for_and_can_be_cancelled(plant: Plant) -> None:
    jobs = plant.ready()
    quota = [{"error": {"code": "ClusterCoreQuotaReached", "message": "Operation results in exceeding quota limits"}}]
    plant.azure.azure_ml.compute.add_cluster("edge-cpu", errors=quota)
    plant.azure.jobs.holds_queue = True
    jobs.start(plant.request("true"), plant.log)
    plant.azure.jobs.wait("press-1", "Queued")
    waiting = jobs.status("press-1")
    assert waiting is not None
    assert waiting.phase is JobPhase.WAITING
    assert "AllocationState resizing" in waiting.details["queue"]
    assert "exceeding quota limits" in waiting.details["cluster reports"]
    assert jobs.log_tail("press-1", 10) == ""
    jobs.cancel("press-1")
    plant.azure.jobs.wait("press-1")
    ended = jobs.status("press-1")
    assert ended is not None
    assert ended.phase is JobPhase.CANCELLED


def test_a_job_that_is_over_late_runs_until_then(plant: Plant) -> None:
    jobs = plant.ready()
    plant.azure.jobs.holds_end = True
    jobs.start(plant.request("echo done"), plant.log)
    plant.azure.jobs.wait("press-1", "Running")
    for _ in range(100):
        if jobs.log_tail("press-1", 1) == "done":
            break
        time.sleep(0.05)
    now = jobs.status("press-1")
    assert now is not None
    assert now.phase is JobPhase.RUNNING
    plant.azure.jobs.holds_end = False
    plant.azure.jobs.wait("press-1", "Completed")


def test_too_many_requests_are_waited_for_and_in_the_end_told(plant: Plant, hurry: Callable[[], float]) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("sleep 60"), plant.log)
    plant.azure.faults.add(JOB, status(429, "TooManyRequests", "slow down", Retry_After="3"), times=2)
    assert jobs.status("press-1") is not None
    assert hurry() == pytest.approx(6)
    plant.azure.faults.add(JOB, status(429, "TooManyRequests", "slow down"), times=1000)
    with pytest.raises(TransientError, match=r"reading job press-1 .*429"):
        jobs.status("press-1")


def test_an_environment_that_cannot_be_built_is_told_with_the_end_of_its_log(plant: Plant, tmp_path: Path) -> None:
    conda = tmp_path / "conda.yml"
    conda.write_text("dependencies: [python=3.11, no-such-package]\n")
    jobs = plant.ready(conda_path=conda)
    lines = ["Solving environment: failed", "ResolvePackageNotFound:", "  - no-such-package"]
    plant.azure.jobs.build_log = [f"step {n}" for n in range(40)] + lines
    jobs.start(plant.request("true"), plant.log)
    plant.azure.jobs.wait("press-1")
    ended = jobs.status("press-1")
    assert ended is not None
    assert (ended.phase, ended.is_infrastructure) == (JobPhase.FAILED, False)
    assert str(ended.error).startswith("Azure ML could not build the environment edgepack:")
    assert ": check compute.conda_path: UserError/ImageBuild: " in str(ended.error)
    assert str(ended.error).endswith("\n".join(["step 39", *lines]))
    assert "step 20\n" not in str(ended.error)
    assert jobs.log_tail("press-1", 1) == "  - no-such-package"


IDENTITY = """
import sys
from edgepack_assets.azure.credential import make_credential
from edgepack_assets.config.registry_settings import AzureCredentialSettings
make_credential(AzureCredentialSettings(type="managed_identity"), 10).get_token("https://storage.azure.com/.default")
print("signed in")
"""


@pytest.mark.parametrize("own", [True, False])
def test_a_job_is_the_identity_of_the_configuration_or_of_its_node(plant: Plant, own: bool) -> None:
    node = plant.azure.jobs.node_identity.client_id
    chosen = "11111111-2222-3333-4444-555555555555"
    plant.azure.identity.add(type(plant.azure.principal)(chosen, set(), managed=True))
    jobs = plant.ready(identity={"client_id": chosen} if own else {})
    jobs.start(plant.request("python run.py", code={"run.py": IDENTITY}), plant.log)
    plant.azure.jobs.wait("press-1")
    assert jobs.log_tail("press-1", 20) == "signed in"
    assert set(plant.azure.identity.asked_for) == {chosen if own else node}


def test_no_secret_of_whoever_starts_it_reaches_a_job(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANT_TOKEN", "canary-of-the-orchestrator")
    jobs = plant.ready()
    jobs.start(plant.request("env; echo password=canary-of-the-job"), plant.log)
    job = plant.azure.jobs.wait("press-1")
    with plant.azure.storage.client("azureml") as client:
        log = client.get_blob_client("ExperimentRun/dcid.press-1/user_logs/std_log.txt").download_blob().readall()
    for secret in (plant.azure.principal.secret, "canary-of-the-orchestrator"):
        assert secret not in json.dumps(job.properties) + log.decode()
    assert b"canary-of-the-job" in log
    assert "canary-of-the-job" not in jobs.log_tail("press-1", 100), "what is passed on is masked"


def test_the_end_of_a_long_log_is_read_and_no_more(plant: Plant) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("seq 1 200000"), plant.log)
    plant.azure.jobs.wait("press-1")
    assert jobs.log_tail("press-1", 3).splitlines() == ["199998", "199999", "200000"]
    lines = jobs.log_tail("press-1", 10**9).splitlines()
    assert 1000 < len(lines) < 20_000
    assert lines == [str(number) for number in range(200_001 - len(lines), 200_001)], "no line is cut"


def test_a_log_is_read_with_our_own_identity_where_the_datastore_holds_no_key(plant: Plant) -> None:
    plant.azure.azure_ml.identity_based = True
    jobs = plant.ready()
    jobs.start(plant.request("echo hello"), plant.log)
    plant.azure.jobs.wait("press-1")
    assert jobs.log_tail("press-1", 3) == "hello"


def test_no_job_no_log_no_status(plant: Plant) -> None:
    jobs = plant.ready()
    assert jobs.status("press-7") is None
    assert jobs.log_tail("press-7", 3) == ""


def test_the_name_of_the_job_is_written_to_the_users_file(plant: Plant, tmp_path: Path) -> None:
    jobs = plant.ready(output_file=tmp_path / "new folder/job.txt")
    for name in ("press-1", "press-2"):
        jobs.start(plant.request("true", name=name), plant.log)
        assert (tmp_path / "new folder/job.txt").read_text() == f"{name}\n"
    (tmp_path / "taken").write_text("a file")
    jobs = plant.jobs(output_file=tmp_path / "taken/job.txt")
    assert jobs.start(plant.request("true"), plant.log).phase is not None
    assert any("compute.output_file" in line for line in plant.said), "the job runs, so this is no error"


@pytest.mark.parametrize("lost", ["compute", "environment"])
def test_what_was_deleted_after_it_was_prepared_is_told(plant: Plant, lost: str) -> None:
    jobs = plant.ready()
    compute = plant.azure.azure_ml.compute
    (compute.computes if lost == "compute" else compute.environments).clear()
    with pytest.raises(EdgepackError, match=rf"starting job press-1 .*The {lost} .*does not exist"):
        jobs.start(plant.request("true"), plant.log)


def test_a_name_that_the_service_refuses_is_told(plant: Plant) -> None:
    with pytest.raises(EdgepackError, match=r"starting job .*not valid"):
        plant.ready().start(plant.request("true", name="a_b!"), plant.log)


def test_a_job_that_runs_too_long_is_ended_by_the_service(plant: Plant) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("sleep 600", time_limit=timedelta(seconds=1)), plant.log)
    plant.azure.jobs.wait("press-1")
    ended = jobs.status("press-1")
    assert ended is not None
    assert ended.phase is JobPhase.CANCELLED


@pytest.mark.parametrize("broken", ["details", "discovery"])
def test_a_history_that_does_not_answer_is_not_taken_for_a_reason(
    plant: Plant, hurry: Callable[[], float], broken: str
) -> None:
    jobs = plant.ready()
    jobs.start(plant.request("exit 1"), plant.log)
    plant.azure.jobs.wait("press-1")
    if broken == "discovery":
        plant.azure.faults.add("/discovery", lambda _: Response(200, b'{"error": {"code": "x"}}'), times=99)
        ended = jobs.status("press-1")
        assert ended is not None
        assert ended.phase is JobPhase.FAILED
        assert "no reason can be read: asking where the workspace's run history is" in str(ended.error)
    else:
        plant.azure.faults.add("/details", status(503), times=1)
        ended = jobs.status("press-1")
        assert ended is not None
        assert "status code 1" in str(ended.error)
        assert hurry() > 0


PHASES = {
    JobPhase.WAITING: ["NotStarted", "Starting", "Provisioning", "Preparing", "Queued", "Paused", "Hibernating"],
    JobPhase.RUNNING: ["Running", "Finalizing", "CancelRequested"],
    JobPhase.SUCCEEDED: ["Completed"],
    JobPhase.FAILED: ["Failed"],
    JobPhase.CANCELLED: ["Canceled"],
    JobPhase.NOT_RESPONDING: ["NotResponding", "Unknown"],
}
"""One status is of a service that is newer than the SDK."""


def test_every_status_of_the_service_has_a_phase_as_the_client_gives_it(plant: Plant) -> None:
    jobs = plant.ready()
    cluster = f"{plant.azure.azure_ml.compute.base}/computes/edge-cpu"
    body = {"jobType": "Command", "command": "true", "properties": {}, "computeId": cluster}
    job = plant.azure.jobs.jobs["press-1"] = Job("press-1", body, "2026-01-01T00:00:00.1234567+00:00")
    for phase, words in PHASES.items():
        for job.status in words:
            found = jobs.status("press-1")
            assert found is not None
            assert (found.phase, found.service_status) == (phase, job.status)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("ServiceError: something", True),
        ("SystemError/NodeLost: the node was lost", True),
        ("UserError/PreemptionError: low priority node preempted", True),
        ("UserError: Execution failed. User process 'python' exited with status code 137.", False),
        ("UserError: Image build failed", False),
        ("UserError: the model's heart beats", False),
    ],
)
def test_which_failures_are_of_the_machines(error: str, expected: bool) -> None:
    assert is_infrastructure(error) is expected
