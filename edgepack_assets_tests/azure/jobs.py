"""Azure ML's command jobs: processes of this machine, each in folders of its own, with logs in blob storage.

A job's process has an empty home and an empty folder for temporary files, the managed identity of its node, and nothing
of the environment of whoever started it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgepack_assets_tests.azure.compute import Compute
from edgepack_assets_tests.azure.http import Request, Response, answer, arm_error
from edgepack_assets_tests.azure.identity import IMDS, Identity, Principal

ARTIFACTS = "azureml"
"""The container behind the datastore workspaceartifactstore."""
STD_LOG = "user_logs/std_log.txt"
BUILD_LOG = "azureml-logs/20_image_build_log.txt"
_OVER = ("Completed", "Failed", "Canceled")
_STEP = 0.05
"""Seconds between two looks of a job's thread."""
_GRACE = 5.0
"""Seconds that a process has after it is asked to end."""


@dataclass
class Job:
    """One job as it is kept. `shown` is the status that is told in place of the true one."""

    name: str
    properties: dict[str, Any]
    created: str
    status: str = "Starting"
    shown: str = ""
    error: dict[str, Any] | None = None
    started: str = ""
    ended: str = ""
    exit_code: int | None = None
    process: subprocess.Popen[bytes] | None = None
    ending: str = ""
    """Why its process is ended: cancelled, preempted, killed, late."""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        return str(self.properties["computeId"]).rpartition("/")[2]


class Jobs:
    """The state and its handlers. What a test may set, until `reset`:

    `holds_queue`: jobs wait for ever. `build_log`: the lines with which the environment's build fails. `holds_end`: the
    process is over and the job is not. `loses_error`: run details say nothing of why a job failed."""

    def __init__(self, compute: Compute, identity: Identity, folder: Path, environ: Callable[[], Mapping[str, str]]):
        self.compute = compute
        self.jobs: dict[str, Job] = {}
        self.node_identity = Principal(
            str(uuid.uuid4()), {"AzureML Data Scientist", "Storage Blob Data Contributor"}, managed=True
        )
        self._identity = identity
        self._folder = folder
        self._environ = environ
        self._lock = compute.lock
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        compute.running_on = self.running_on
        self._set_defaults()

    def _set_defaults(self) -> None:
        self.holds_queue = False
        self.build_log: list[str] = []
        self.holds_end = False
        self.loses_error = False

    def reset(self) -> None:
        """No jobs; those that run are killed."""
        self._ended.set()
        for job in list(self.jobs.values()):
            self._kill(job, signal.SIGKILL)
        for thread in self._threads:
            thread.join(30)
        self._threads.clear()
        self._forget_files()
        self.jobs.clear()
        self._ended = threading.Event()
        self._set_defaults()

    def _forget_files(self) -> None:
        """A name may come again in the next test."""
        if self.jobs:
            with self.compute.storage.client(ARTIFACTS) as client:
                for blob in list(client.list_blobs(name_starts_with="ExperimentRun/")):
                    client.delete_blob(blob.name)

    def running_on(self, cluster: str) -> list[str]:
        """The jobs that have a node of the cluster."""
        return [job.name for job in self.jobs.values() if job.cluster == cluster and job.started and not job.ended]

    def wait(self, name: str, *statuses: str, seconds: float = 60) -> Job:
        """The job, when it has one of the statuses (by default: when it is over)."""
        end = time.monotonic() + seconds
        while self.jobs[name].status not in (statuses or _OVER):
            if time.monotonic() > end:
                raise AssertionError(f"job {name} is {self.jobs[name].status} after {seconds} s")
            time.sleep(_STEP)
        return self.jobs[name]

    # what goes wrong --------------------------------------------------------------------------------------

    def preempt(self, name: str) -> None:
        """The node of a low-priority job is taken away."""
        self.jobs[name].ending = "preempted"

    def die(self, name: str) -> None:
        """The job's process is killed, as for want of memory."""
        self._kill(self.jobs[name], signal.SIGKILL)

    def stop_answering(self, name: str) -> None:
        """The node's heartbeat is lost; its process runs on."""
        self.jobs[name].shown = "NotResponding"

    def answer_again(self, name: str) -> None:
        """The heartbeat is back."""
        self.jobs[name].shown = ""

    # requests ---------------------------------------------------------------------------------------------

    def handle(self, request: Request, rest: list[str]) -> Response:
        """`jobs[/NAME[/cancel]]`"""
        with self._lock:
            if not rest:
                return answer(200, {"value": [self._body(job) for job in self.jobs.values()]})
            name = rest[0]
            if request.method == "PUT":
                return self._put(request, name)
            job = self.jobs.get(name)
            if job is None:
                message = f"Requested resource of type Job could not be found: {name}"
                return arm_error(404, "UserError", message, inner="NotFoundError")
            if rest[1:] == ["cancel"]:
                return self._cancel(job)
            return answer(200, self._body(job))

    def details(self, name: str) -> Response:
        """The run history's details of a job."""
        with self._lock:
            job = self.jobs.get(name)
            if job is None:
                return arm_error(404, "UserError", f"Run {name} was not found", inner="NotFoundError")
            host = self.compute.storage.host
            return answer(
                200,
                {
                    "runId": name, "target": job.cluster, "status": job.shown or job.status,
                    "startTimeUtc": job.started or None, "endTimeUtc": job.ended or None, "services": {},
                    "error": None if job.error is None or self.loses_error else {"error": job.error},
                    "warnings": None, "properties": job.properties["properties"], "inputDatasets": [],
                    "logFiles": {STD_LOG: f"https://{host}/{ARTIFACTS}/ExperimentRun/dcid.{name}/{STD_LOG}"},
                },
            )  # fmt: skip

    def _put(self, request: Request, name: str) -> Response:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}", name):
            return arm_error(400, "UserError", f"The job name {name!r} is not valid", inner="BadArgument")
        if name in self.jobs:
            return arm_error(
                400,
                "UserError",
                "A job with this name already exists. If you are trying to create a new job, use a different name. If "
                "you are trying to update an existing job, the existing job's codeId cannot be changed. Only "
                "description, tags, displayName, properties, and isArchived can be updated.",
                inner="Immutable",
            )
        properties = request.json["properties"]
        assert properties["jobType"] == "Command", properties
        for kind, key, known in (
            ("compute", "computeId", self.compute.computes),
            ("environment", "environmentId", {f"{n}/versions/{v}" for n, v in self.compute.environments}),
            ("code", "codeId", self.compute.codes),
        ):
            found = str(properties.get(key) or "").partition(f"/{kind}s/")[2]
            if found not in known:
                return arm_error(400, "UserError", f"The {kind} {properties.get(key)!r} does not exist")
        if any(not isinstance(value, str) for value in (properties.get("environmentVariables") or {}).values()):
            return arm_error(400, "ValidationError", "environmentVariables must be strings")
        properties["properties"] = {**(properties.get("properties") or {}), "azureml.ComputeTargetType": "amlctrain"}
        job = Job(name, properties, _now(), tags=dict(properties.get("tags") or {}))
        self.jobs[name] = job
        thread = threading.Thread(target=self._work, args=(job, self._ended), name=f"job-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return answer(201, self._body(job))

    def _cancel(self, job: Job) -> Response:
        if job.status in (*_OVER, "Finalizing"):
            return arm_error(400, "UserError", f"The job {job.name} is {job.status} and cannot be cancelled")
        job.ending = "cancelled"
        job.status = "CancelRequested"
        return Response(200)

    def _body(self, job: Job) -> dict[str, Any]:
        url = f"https://ml.azure.com/runs/{job.name}?wsid={self.compute.base}"
        return {
            "id": f"{self.compute.base}/jobs/{job.name}",
            "name": job.name,
            "type": "Microsoft.MachineLearningServices/workspaces/jobs",
            "properties": {
                "description": None, "isArchived": False, "inputs": {}, **job.properties, "tags": job.tags,
                "status": job.shown or job.status,
                "services": {
                    "Tracking": {"jobServiceType": "Tracking", "port": None, "endpoint": "azureml://eu"},
                    "Studio": {"jobServiceType": "Studio", "port": None, "endpoint": url},
                },
                "outputs": {
                    "default": {
                        "jobOutputType": "uri_folder", "mode": "ReadWriteMount",
                        "uri": f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{job.name}",
                    }
                },
            },
            "systemData": {"createdAt": job.created, "createdBy": "plant", "createdByType": "Application"},
        }  # fmt: skip

    # a job's life -----------------------------------------------------------------------------------------

    def _work(self, job: Job, ended: threading.Event) -> None:
        folder = self._folder / "jobs" / job.name
        try:
            if not self._wait_for_node(job, ended):
                return
            if self.build_log:
                self._blob(job, BUILD_LOG, "\n".join(self.build_log).encode())
                message = "Image build failed. For more details, check log file azureml-logs/20_image_build_log.txt."
                self._end(
                    job, "Failed", {"code": "UserError", "message": message, "innerError": {"code": "ImageBuild"}}
                )
                return
            self._run(job, folder, ended)
        except Exception as error:  # noqa: BLE001 - told as the service's own fault, which a test sees
            self._end(job, "Failed", {"code": "ServiceError", "message": f"the loopback: {error!r}"})
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _wait_for_node(self, job: Job, ended: threading.Event) -> bool:
        while not ended.is_set():
            if job.ending:
                self._end(job, "Canceled")
                return False
            with self._lock:
                kept = self.compute.computes[job.cluster]["properties"]["properties"]
                room = int(kept["scaleSettings"]["maxNodeCount"]) - len(self.running_on(job.cluster))
                if room > 0 and not self.holds_queue:
                    job.tags.pop("_aml_system_ComputeTargetStatus", None)
                    job.status, job.started = "Preparing", _now()
                    return True
                job.status = "Queued"
                job.tags["_aml_system_ComputeTargetStatus"] = (
                    '{"AllocationState":"resizing","PreparingNodeCount":0,"RunningNodeCount":0,"CurrentNodeCount":0}'
                )
            time.sleep(_STEP)
        return False

    def _run(self, job: Job, folder: Path, ended: threading.Event) -> None:
        code = folder / "code"
        for name in ("home", "tmp", "code"):
            (folder / name).mkdir(parents=True)
        self._download(job.properties["codeId"], code)
        log = folder / "std_log.txt"
        with log.open("wb") as stream:
            job.process = subprocess.Popen(
                ["/bin/bash", "-c", job.properties["command"]],
                cwd=code, env=self._variables(job, folder), stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        if not job.ending:
            job.status = "Running"
        limit = _seconds((job.properties.get("limits") or {}).get("timeout"))
        began, asked, told = time.monotonic(), 0.0, 0
        while job.process.poll() is None:
            now = time.monotonic()
            if ended.is_set():
                self._kill(job, signal.SIGKILL)
            if limit and now > began + limit and not job.ending:
                job.ending = "late"
            if job.ending == "preempted" or (asked and now > asked + _GRACE):
                self._kill(job, signal.SIGKILL)
            elif job.ending and not asked:
                asked = now
                self._kill(job, signal.SIGTERM)
            told = self._tell(job, log, told)
            time.sleep(_STEP)
        self._kill(job, signal.SIGKILL)  # what it left behind; a node is wiped
        self._tell(job, log, told)
        job.exit_code = job.process.returncode
        while self.holds_end and not ended.is_set() and not job.ending:
            time.sleep(_STEP)
        self._judge(job)

    def _judge(self, job: Job) -> None:
        if job.ending == "preempted":
            message = "The low priority node was preempted."
            self._end(job, "Failed", {"code": "ServiceError", "message": message, "innerError": {"code": "Preemption"}})
        elif job.ending:
            self._end(job, "Canceled")
        elif job.exit_code == 0:
            self._end(job, "Completed")
        else:
            message = f"Execution failed. User process '/bin/bash' exited with status code {job.exit_code}."
            self._end(job, "Failed", {"code": "UserError", "message": message, "innerError": None})

    def _end(self, job: Job, status: str, error: dict[str, Any] | None = None) -> None:
        with self._lock:
            job.error, job.ended, job.status = error, _now(), status

    def _variables(self, job: Job, folder: Path) -> dict[str, str]:
        """What the node gives a job, and what the job brings; nothing of whoever started it."""
        self._identity.add(self.node_identity)
        return {
            **self._environ(),
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "AZUREML_RUN_ID": job.name,
            "MSI_ENDPOINT": f"http://{IMDS}/MSI/auth",
            "MSI_SECRET": "canary-msi-secret",
            "DEFAULT_IDENTITY_CLIENT_ID": self.node_identity.client_id,
            **(job.properties.get("environmentVariables") or {}),
        }

    def _download(self, code_id: str, folder: Path) -> None:
        container, inside = self.compute.code_place(code_id)
        with self.compute.storage.client(container) as client:
            for blob in client.list_blobs(name_starts_with=f"{inside}/"):
                path = folder / str(blob.name)[len(inside) + 1 :]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(client.get_blob_client(blob.name).download_blob().readall())

    def _tell(self, job: Job, log: Path, told: int) -> int:
        with log.open("rb") as stream:
            stream.seek(told)
            new = stream.read()
        if new:
            self._blob(job, STD_LOG, new)
        return told + len(new)

    def _blob(self, job: Job, name: str, data: bytes) -> None:
        """Logs are append blobs."""
        with self.compute.storage.client(ARTIFACTS) as client:
            blob = client.get_blob_client(f"ExperimentRun/dcid.{job.name}/{name}")
            if not blob.exists():
                blob.create_append_blob()
            blob.append_block(data)

    @staticmethod
    def _kill(job: Job, number: int) -> None:
        if job.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(job.process.pid, number)


def _seconds(duration: str | None) -> float:
    match = re.fullmatch(r"P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?", duration or "")
    parts = match.groups() if match else ()
    return sum(float(part or 0) * unit for part, unit in zip(parts, (86400, 3600, 60, 1), strict=False))


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}7+00:00"
