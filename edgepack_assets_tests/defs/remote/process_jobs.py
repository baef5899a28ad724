"""A job service whose jobs are processes of this machine, each with a home, temporary folder and cache of its own.

A job's state lies in a folder, so that another process, such as an orchestrator that was started again, finds it. What
goes wrong is told by `faults`: words in the file `faults` of the service's folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from edgepack_assets.compute.base import JobPhase, JobRequest, JobStatus, Log
from edgepack_assets.errors import EdgepackError, TransientError

NEVER_STARTS, VANISHES, NO_ANSWER, REFUSES, LATE_END = "never starts", "vanishes", "no answer", "refuses", "late end"
_PROJECT = Path(__file__).parents[3]


class ProcessJobs:
    """Implements `JobService`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def set_faults(self, *faults: str) -> None:
        (self.folder / "faults").write_text("\n".join(faults))

    def has(self, fault: str) -> bool:
        file = self.folder / "faults"
        return file.is_file() and fault in file.read_text().splitlines()

    @property
    def jobs(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir())

    def prepare(self, log: Log) -> None:
        if self.has(REFUSES):
            raise EdgepackError("the cluster cannot be created: the role AzureML Compute Operator is missing")
        log("the cluster is there")

    def start(self, request: JobRequest, log: Log) -> JobStatus:
        job = self.folder / request.name
        values = {name: str(value) for name, value in asdict(request).items() if name != "code_folder"}
        fingerprint = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        if job.exists():
            if (job / "fingerprint").read_text() != fingerprint:
                raise EdgepackError(f"there is another job {request.name}")
            return self._status(job)
        for name in ("home", "tmp", "code"):
            (job / name).mkdir(parents=True)
        shutil.copytree(request.code_folder, job / "code", dirs_exist_ok=True)
        (job / "fingerprint").write_text(fingerprint)
        (job / "request.json").write_text(json.dumps(values, indent=1))
        if not self.has(NEVER_STARTS):
            self._run(job, request)
        return self._status(job)

    def _run(self, job: Path, request: JobRequest) -> None:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOME": str(job / "home"), "LANG": "C.UTF-8",
            "TMPDIR": str(job / "tmp"), "XDG_CACHE_HOME": str(job / "home/.cache"),
            # of the node, and nobody's business in model code
            "MSI_ENDPOINT": "http://127.0.0.1:9/canary-identity", "MSI_SECRET": "canary-identity",
            "IDENTITY_ENDPOINT": "http://127.0.0.1:9/canary-identity", "IDENTITY_HEADER": "canary-identity",
            "AZUREML_RUN_TOKEN": "canary-identity", "DEFAULT_IDENTITY_CLIENT_ID": "clientid",
            "PYTHONPATH": str(_PROJECT), **request.environment_variables,
        }  # fmt: skip
        # The shell writes how the command ended, whoever is looking then.
        script = f"({request.command}) > ../log 2>&1; echo $? > ../exit.part; mv ../exit.part ../exit"
        process = subprocess.Popen(
            ["/bin/sh", "-c", script], cwd=job / "code", env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        (job / "pid").write_text(str(process.pid))
        _CHILDREN.append(process)

    def status(self, name: str) -> JobStatus | None:
        if self.has(NO_ANSWER):
            raise TransientError("the service is busy")
        job = self.folder / name
        return self._status(job) if job.exists() and not self.has(VANISHES) else None

    def _status(self, job: Path) -> JobStatus:
        for process in _CHILDREN:
            process.poll()
        details = {"cluster": "presses", "studio": f"https://ml.azure.com/runs/{job.name}"}
        if (job / "cancelled").exists():
            is_alive = (job / "pid").exists() and self.is_alive(job.name)
            phase, word = (JobPhase.RUNNING, "CancelRequested") if is_alive else (JobPhase.CANCELLED, "Canceled")
            return JobStatus(phase, word, details=details)
        if (job / "preempted").exists():
            return JobStatus(JobPhase.FAILED, "Failed", "PreemptionError: the node was taken away", True, details)
        if not (job / "pid").exists():
            return JobStatus(JobPhase.WAITING, "Queued", details=details)
        if (job / "exit").exists() and not self.has(LATE_END):
            code = (job / "exit").read_text().strip()
            phase, word = (JobPhase.SUCCEEDED, "Completed") if code == "0" else (JobPhase.FAILED, "Failed")
            return JobStatus(
                phase, word, f"ExecutionFailed: exit code {code}" if code != "0" else None, details=details
            )
        return JobStatus(JobPhase.RUNNING, "Running", details={**details, "node": "node-7"})

    def cancel(self, name: str) -> None:
        job = self.folder / name
        if job.exists() and not (job / "exit").exists():
            (job / "cancelled").write_text("")
            self.kill(name, signal.SIGTERM)

    def preempt(self, name: str) -> None:
        (self.folder / name / "preempted").write_text("")
        self.kill(name, signal.SIGKILL)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        if (pid := self.folder / name / "pid").exists():
            with suppress(ProcessLookupError):
                os.killpg(int(pid.read_text()), number)

    def is_alive(self, name: str) -> bool:
        pid = int((self.folder / name / "pid").read_text())
        for process in _CHILDREN:
            process.poll()
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def log_tail(self, name: str, line_count: int) -> str:
        log = self.folder / name / "log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-line_count:]) if log.exists() else ""

    def end_all(self) -> None:
        for name in self.jobs:
            self.kill(name)


_CHILDREN: list[subprocess.Popen[bytes]] = []
