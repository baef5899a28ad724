"""Jobs in the sandbox that have an environment of their own, beside the component's: what converts a model, say.

What a job gave is kept in the artefact store under a key made of everything that it depends on: the job's code and
arguments, the bytes of its inputs, and the exact wheels of its environment. So the same job is done once, also where
several processes of a machine ask for it at the same time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from edgepack_assets.artefacts.artefact import Blob, canonical_json
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import Lock, generation_for
from edgepack_assets.errors import ComponentError, CorruptError, EnvironmentBuildError, ModelError
from edgepack_assets.filesystem.atomic_files import disk_errors, file_digest
from edgepack_assets.model_types.conversion import SideJob, SideResult
from edgepack_assets.model_types.records import Payload
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import files_of
from edgepack_assets.sandbox.child_death import ChildDiedError
from edgepack_assets.sandbox.jobs import CallJob
from edgepack_assets.sandbox.sandbox import TaskFailedError
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.payload_data import make_payload, open_payload

KIND = "side-jobs"
"""Kind of the store's documents that say what a job gave."""
_FORMAT = 1
_FILE = "application/octet-stream"


class Outcome(BaseModel):
    """What a job gave, as it is published."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    lock: str
    """The digest of its environment's lock."""
    returned: Any
    outputs: dict[str, Blob]


class SideJobRunner:
    """Does side jobs for a partition. `locks`: requirements -> lock, for those that must have one already made.

    `work` is a folder for what the jobs give. `used` holds each lock that was taken, by its requirements."""

    def __init__(
        self,
        key: ModelKey,
        context: TaskContext,
        work: Path,
        locks: Mapping[tuple[str, ...], Lock] | None = None,
    ) -> None:
        self._key, self._context, self._work = key, context, work
        self._jobs = 0
        self.used: dict[tuple[str, ...], Lock] = dict(locks or {})
        self.done: list[str] = []
        """Keys of the store's documents of the jobs that were asked for."""
        self.representative: dict[str, Any] | None = None
        """Name, version and digest of the raw data from which `payload` was made, if it was."""

    def versions(self, requirements: tuple[str, ...]) -> Mapping[str, str]:
        """See SideJobs."""
        return {package.name: package.version for package in self._lock(requirements).packages}

    def run(self, subject: str, job: SideJob) -> SideResult:
        """See SideJobs."""
        lock = self._lock(job.requirements)
        key = _key(job, lock)
        self.done.append(key)
        result = self._kept(key)
        if result is not None:
            return result
        environments = self._context.settings.runtime.environments
        with disk_errors(environments):
            environments.mkdir(parents=True, exist_ok=True)
        # few files for all jobs: two that share one only wait for each other
        with FileLock(environments / f"side-jobs-{key[:2]}.lock"):
            result = self._kept(key)
            return result if result is not None else self._do(subject, job, lock, key)

    def payload(self) -> Payload:
        """See SideJobs."""
        artefact, _ = make_payload(self._key, self._context)
        self.representative = artefact.facts["raw_data"]
        return open_payload(artefact, self._context)

    def _lock(self, requirements: tuple[str, ...]) -> Lock:
        if requirements not in self.used:
            runtime = self._context.settings.runtime
            python, _ = find_python(self._context.entry(self._key).python_version, runtime.pythons)
            try:
                generation, _ = generation_for(
                    requirements, python, self._context.store, runtime, tell=self._context.log.info
                )
            except EnvironmentBuildError as error:
                error.args = (f"an environment beside the component's ({', '.join(requirements)}): {error}",)
                raise
            self.used[requirements] = generation.lock
        return self.used[requirements]

    def _kept(self, key: str) -> SideResult | None:
        store = self._context.store
        document = store.get_named(KIND, key)
        if document is None:
            return None
        try:
            outcome = Outcome.model_validate(document)
            return SideResult(
                outcome.returned, {name: store.fetch(blob) for name, blob in outcome.outputs.items()}, kept=True
            )
        except (ValidationError, CorruptError) as error:
            self._context.log.warning(f"what was kept of an earlier job cannot be used, so it is done again: {error}")
            return None

    def _do(self, subject: str, job: SideJob, lock: Lock, key: str) -> SideResult:
        context = self._context
        self._jobs += 1
        folder = self._work / f"side-job-{self._jobs}"
        folder.mkdir()
        outputs = {name: folder / name for name in job.outputs}
        call = CallJob(job.folder, job.file, job.function, dict(job.arguments))
        try:
            returned = context.sandbox.run(
                subject, context.environment(lock), (), call, inputs=job.inputs, outputs=outputs
            )
        except TaskFailedError as error:
            raise ModelError(str(error)) from None
        except ChildDiedError as error:
            raise ComponentError(
                f"{error}. The environment is {lock.key[:12]} ({', '.join(lock.requirements)})"
            ) from None
        finally:
            # its process holds a library of gigabytes, and the component's needs another one
            context.sandbox.close()
        blobs = {name: context.store.put_file(path, _FILE) for name, path in outputs.items()}
        outcome = Outcome(lock=lock.digest, returned=returned, outputs=blobs)
        context.store.put_named(KIND, key, outcome.model_dump(mode="json"))
        return SideResult(returned, outputs, kept=False)


def _key(job: SideJob, lock: Lock) -> str:
    depends = [
        _FORMAT, lock.digest, file_digest(job.file), job.function, dict(job.arguments), tree_digest(job.folder),
        {name: tree_digest(path) for name, path in job.inputs.items()}, sorted(job.outputs),
    ]  # fmt: skip
    return hashlib.sha256(canonical_json(depends)).hexdigest()


def tree_digest(path: Path) -> str:
    """sha256 over the bytes of a file, or over names and bytes of all files in a folder. A file's own name counts too:
    libraries go by its suffix."""
    files = {name: file_digest(file) for name, file in files_of(path)}
    return hashlib.sha256(canonical_json(files)).hexdigest()
