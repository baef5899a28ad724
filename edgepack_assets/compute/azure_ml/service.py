"""Command jobs of Azure ML as a `JobService`.

A job is found again by its name, and known as our own by a fingerprint in its properties: the service answers a second
PUT of a name with an error, also where the first one's answer was lost."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgepack_assets.azure.calls import Backoff, Remote
from edgepack_assets.azure.errors import AbsentError, MissingRoleError, RefusedError, where
from edgepack_assets.compute.azure_ml.cluster import Cluster, Clusters
from edgepack_assets.compute.azure_ml.code import Codes, code_digest
from edgepack_assets.compute.azure_ml.environment import Environments, JobEnvironment, job_environment
from edgepack_assets.compute.azure_ml.job_log import build_log_tail, job_log_tail
from edgepack_assets.compute.azure_ml.job_status import (
    RunHistory,
    error_of,
    is_image_build,
    is_infrastructure,
    phase_of,
    queue_state,
    times_of,
)
from edgepack_assets.compute.base import JobPhase, JobRequest, JobStatus, Log
from edgepack_assets.config.compute_settings import ComputeSettings
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.filesystem.atomic_files import writing
from edgepack_assets.registry.azure_ml.client import Assets
from edgepack_assets.registry.azure_ml.datastores import Places

FINGERPRINT = "edgepack.fingerprint"
"""Property of a job: the digest of what it was started with."""
_BUILD_LOG_LINES = 15
_TAKEN = re.compile(r"(?i)already exists|Immutable|status 409")
_CONFLICT_LIMIT = 60.0
"""Seconds within which a job whose name is taken can be read."""


class AzureMlJobs:
    """Jobs on one cluster of one workspace. `compute` is what `Settings.compute_of` gives, `workspace` what
    `Settings.compute_workspace_of` gives. `plug_ins` are the distributions that go along besides this project."""

    def __init__(
        self, compute: ComputeSettings, workspace: AzureMLRegistrySettings, plug_ins: Sequence[str] = ()
    ) -> None:
        self._compute = compute
        self._plug_ins = tuple(plug_ins)
        self._assets = Assets(Remote(workspace))
        self._places = Places(self._assets)
        self._clusters = Clusters(self._assets, compute)
        self._environments = Environments(self._assets)
        self._codes = Codes(self._assets)
        self._history = RunHistory(self._assets)
        self._environment: JobEnvironment | None = None
        self._cluster: Cluster | None = None
        self._nodes: dict[str, str] = {}

    def prepare(self, log: Log) -> None:
        """Finds the cluster or creates it, finds the environment or registers it. Safe to repeat."""
        environment = self._job_environment()
        self._cluster = self._clusters.obtain(log)
        self._environments.obtain(environment, log)

    def start(self, request: JobRequest, log: Log) -> JobStatus:
        """Starts the job, or finds it if this very request started it before. Raises EdgepackError if another request
        started a job of that name."""
        fingerprint = _fingerprint(request)
        job = self._find(request.name)
        if job is None:
            try:
                job = self._submit(request, fingerprint)
            except RefusedError as error:
                # Also after an answer that was lost, or from a read that did not know the job yet.
                job = self._find_the_same(request.name, error)
                if job is None:
                    raise _refused_job(error, self._job_environment(), self._compute) from None
                self._check_own(job, fingerprint)
                log(f"job {request.name} was started before")
            else:
                log(f"started job {request.name} on the compute cluster {self._compute.cluster_name}")
        else:
            self._check_own(job, fingerprint)
            log(f"job {request.name} was started before: its status is {_status_of(job)}")
        self._write_output_file(request.name, log)
        return self._status(request.name, job)

    def status(self, name: str) -> JobStatus | None:
        """The job's status now; None if there is no such job."""
        job = self._find(name)
        return None if job is None else self._status(name, job)

    def cancel(self, name: str) -> None:
        """Asks the service to end the job. No error if it is over, ends already, or is not there."""
        job = self._find(name)
        if job is None or _is_ending(job):
            return
        client = self._assets.client
        try:
            self._assets.remote.call(f"cancelling job {name}", lambda: client.jobs.begin_cancel(name))
        except AbsentError:
            return
        except RefusedError:
            job = self._find(name)
            if job is not None and not _is_ending(job):
                raise

    def log_tail(self, name: str, line_count: int) -> str:
        """The last lines of the job's own log, or the log of its environment's build; empty if there is none yet."""
        return job_log_tail(self._places, name, line_count)

    # what is sent -----------------------------------------------------------------------------------------

    def _submit(self, request: JobRequest, fingerprint: str) -> Any:
        client, code = self._assets.client, self._codes.obtain(request.code_folder)
        # Each attempt has an object of its own: the SDK changes it, and one that timed out may still be at work.
        return self._assets.remote.call(
            f"starting job {request.name}", lambda: client.jobs.create_or_update(self._job(request, code, fingerprint))
        )

    def _job(self, request: JobRequest, code: str, fingerprint: str) -> Any:
        from azure.ai.ml import command
        from azure.ai.ml.entities import ManagedIdentityConfiguration

        compute = self._compute
        client_id = compute.identity.client_id
        tags = {"build_reference": compute.build_reference, "deploy_environment": compute.deploy_environment}
        return command(
            name=request.name,
            display_name=compute.display_name or request.display_name,
            experiment_name=compute.experiment_name,
            command=request.command,
            code=code,
            environment=self._job_environment().reference,
            environment_variables=self._variables(request),
            compute=str(compute.cluster_name),
            instance_count=1,
            docker_args=list(compute.docker_args) or None,  # the service takes several in one text for one value
            timeout=max(1, round(request.time_limit.total_seconds())),
            identity=ManagedIdentityConfiguration(client_id=client_id) if client_id else None,
            tags={key: value for key, value in {**tags, **request.tags}.items() if value},
            # With a property of git there, the SDK adds none: the folder that Dagster runs in says nothing of the job.
            properties={"azureml.git.dirty": "unknown", FINGERPRINT: fingerprint},
        )

    def _variables(self, request: JobRequest) -> dict[str, str]:
        """The service takes text only. AZURE_CLIENT_ID comes before what the node itself names."""
        own = {"AZURE_CLIENT_ID": self._compute.identity.client_id}
        return {key: str(value) for key, value in {**own, **request.environment_variables}.items() if value is not None}

    def _job_environment(self) -> JobEnvironment:
        if self._environment is None:
            self._environment = job_environment(self._compute, self._plug_ins)
        return self._environment

    def _write_output_file(self, name: str, log: Log) -> None:
        path = self._compute.output_file
        if path is None:
            return
        try:
            with writing(path) as stream:
                stream.write(f"{name}\n".encode())
        except EdgepackError as error:  # the job runs; nothing of it depends on this file
            log(f"compute.output_file: {error}")

    # what is answered -------------------------------------------------------------------------------------

    def _find(self, name: str) -> Any:
        client = self._assets.client
        try:
            return self._assets.remote.call(f"reading job {name}", lambda: client.jobs.get(name))
        except AbsentError:
            return None

    def _find_the_same(self, name: str, refusal: RefusedError) -> Any:
        """The job whose name a refusal says is taken; None if it was refused for another reason. What was written may
        not be read for a while. Raises TransientError if it never can."""
        backoff = Backoff(_CONFLICT_LIMIT)
        while (job := self._find(name)) is None and _TAKEN.search(str(refusal)):
            if not backoff.wait():
                raise TransientError(f"there is a job {name} already, which cannot be read: {refusal}")
        return job

    def _check_own(self, job: Any, fingerprint: str) -> None:
        found = (job.properties or {}).get(FINGERPRINT)
        if found != fingerprint:
            raise EdgepackError(
                f"{where(self._assets.settings)}: there is a job {job.name} already, and "
                + ("it was started with another command, code or variables" if found else "it is not of this project")
                + ": start a new run"
            )

    def _status(self, name: str, job: Any) -> JobStatus:
        status = _status_of(job)
        phase = phase_of(status)
        facts = self._facts(job)
        if phase is JobPhase.WAITING:
            if queue := queue_state(job.tags or {}):
                facts["queue"] = queue
            if status == "Queued" and (errors := self._cluster_errors()):
                facts["cluster reports"] = errors
            return JobStatus(phase, status, details=facts)
        if phase is JobPhase.RUNNING:
            if node := self._node(name):
                facts["node"] = node
            return JobStatus(phase, status, details=facts)
        if phase is JobPhase.NOT_RESPONDING:
            error = f"Azure ML hears nothing from the job's node ({status})"
            return JobStatus(phase, status, error, is_infrastructure=True, details=facts)
        details = self._details(name, phase)
        facts |= times_of(details)
        if name in self._nodes:
            facts["node"] = self._nodes[name]
        if phase is JobPhase.SUCCEEDED:
            return JobStatus(phase, status, details=facts)
        error_text = error_of(details)
        infrastructure = is_infrastructure(error_text or "")
        if phase is JobPhase.FAILED:
            error_text = self._explained(name, error_text)
        return JobStatus(phase, status, error_text, infrastructure, facts)

    def _details(self, name: str, phase: JobPhase) -> Mapping[str, Any]:
        """What the run history says of a job that is over, if it does: the job's end is known without it."""
        try:
            return self._history.details(name)
        except TransientError:
            if phase is JobPhase.FAILED:  # whether another attempt may succeed, only the history says
                raise
        except EdgepackError as error:
            if phase is JobPhase.FAILED:
                return {"error": {"message": f"no reason can be read: {error}"}}
        return {}

    def _explained(self, name: str, error: str | None) -> str:
        if error is None:
            return "Azure ML says nothing of why the job failed; its log may"
        if not is_image_build(error):
            return error
        environment = self._job_environment()
        lines = build_log_tail(self._places, name, _BUILD_LOG_LINES)
        return (
            f"Azure ML could not build the environment {environment.name}:{environment.version}: check "
            f"{environment.source}: {error}" + (f"\nThe end of the build's log:\n{lines}" if lines else "")
        )

    def _facts(self, job: Any) -> dict[str, str]:
        studio = (job.services or {}).get("Studio")
        created: Any = getattr(job.creation_context, "created_at", None)
        facts = {
            "workspace": str(self._assets.settings.workspace_name),
            "cluster": str(self._compute.cluster_name),
            "nodes": self._cluster.nodes if self._cluster is not None else "",
            "experiment": str(job.experiment_name or ""),
            "environment": str(job.environment or "").rpartition("/environments/")[2].replace("/versions/", ":"),
            "studio": str(getattr(studio, "endpoint", None) or ""),
            "created": str(created.isoformat() if hasattr(created, "isoformat") else created or ""),
        }
        return {key: value for key, value in facts.items() if value}

    def _cluster_errors(self) -> str:
        """Why the cluster gives no node, such as a missing quota; the service says so there and not at the job."""
        try:
            cluster = self._clusters.find()
        except (MissingRoleError, RefusedError):
            return ""  # a reason for the log is worth no failure
        return cluster.errors if cluster is not None else "the compute cluster is not there any more"

    def _node(self, name: str) -> str:
        """The node that runs the job, asked for until the service knows it."""
        if name not in self._nodes:
            try:
                node = self._clusters.node_of(name)
            except (AbsentError, RefusedError, MissingRoleError):
                return ""  # a name for the metadata is worth no failure
            if node:
                self._nodes[name] = node
        return self._nodes.get(name, "")


def _is_ending(job: Any) -> bool:
    return phase_of(_status_of(job)).is_over or _status_of(job) in ("CancelRequested", "Finalizing")


def _status_of(job: Any) -> str:
    """The service's own word: the SDK gives those that it knows as an enumeration, and others as text."""
    return str(getattr(job.status, "value", job.status) or "Unknown")


def _refused_job(error: RefusedError, environment: JobEnvironment, compute: ComputeSettings) -> EdgepackError:
    text = str(error)
    if "environment" in text.lower() and environment.version in text:
        return EdgepackError(f"the environment {environment.name}:{environment.version} is not there: {text}")
    if compute.docker_args and "docker" in text.lower():
        return EdgepackError(f"check compute.docker_args: {text}")
    return error


def _fingerprint(request: JobRequest) -> str:
    """The digest of what the job does: its command, code and variables. Labels are no part of it."""
    code = code_digest(request.code_folder)
    said = [request.name, request.command, sorted(request.environment_variables.items()), code]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
