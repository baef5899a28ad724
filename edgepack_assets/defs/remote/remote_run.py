"""One run as one job: starting or finding the job, following it, and what its end means for the run.

The job's messages are what counts. The service is asked for its status to notice a job that does not start, dies or is
silent. Whatever ends this (an error, an interruption) cancels the job, so that none works for a run that is over.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import queue
import shlex
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from edgepack_assets.artefacts.store import open_store
from edgepack_assets.azure.clouds import AUTHORITY_VARIABLE, VARIABLE
from edgepack_assets.compute.base import JobPhase, JobRequest, JobService, JobStatus
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.remote import mailbox as mail
from edgepack_assets.defs.remote.code_folder import BOOTSTRAP, write_code_folder
from edgepack_assets.defs.remote.dagster_internals import InterruptedRunError, RunHere, is_interrupted
from edgepack_assets.defs.remote.mailbox import Mailbox, Message, Reader, left_mailboxes
from edgepack_assets.defs.remote.output_files import OutputFiles
from edgepack_assets.defs.remote.request import differing_versions, python_version, software, write_request
from edgepack_assets.defs.remote.watch import JobWatch, Timing
from edgepack_assets.defs.remote.worker import JOB_TAG, WORKER_TAG, worker
from edgepack_assets.errors import ConfigError, EdgepackError, RemoteJobError, TransientError
from edgepack_assets.filesystem.temp_folders import scratch_folder
from edgepack_assets.masking import without_secrets
from edgepack_assets.partitions import ModelKey

if TYPE_CHECKING:
    from dagster import DagsterEvent
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan

_ATTEMPT_TAG = "edgepack/attempt"
_PREFIX = "edgepack-"
_PASSED_ON = (VARIABLE, AUTHORITY_VARIABLE, "SIMATICAI_TELEMETRY")
"""Variables that the job gets as they are here."""
_LOG_LINES, _SHOWN_LINES = 60, 15
"""Lines of the job's log that are kept with the run, and that are part of an error."""
_STEP = 0.25
"""Seconds after which an interruption is noticed."""


def job_name(run_id: str, attempt: str) -> str:
    """The name of a run's job: a restart finds it, and no name is used twice."""
    number = attempt if attempt.isdecimal() else "1"
    return f"{_PREFIX}{run_id}-{number}"


def run_id_of(job: str) -> str:
    """The run that a job belongs to."""
    return job.removeprefix(_PREFIX).rpartition("-")[0]


class RemoteRun:
    """A run and its job. `events` does all of it."""

    def __init__(  # noqa: PLR0917 - what the executor knows
        self, context: PlanOrchestrationContext, plan: ExecutionPlan, key: ModelKey, settings: Settings,
        service: JobService, module: str, timing: Timing, start_time_limit: float, time_limit: float,
    ) -> None:  # fmt: skip
        self._here = RunHere(context, plan, key)
        self._key = key
        self._settings = settings
        self._service = service
        self._module = module
        self._timing = timing
        self._start_time_limit = start_time_limit
        self._time_limit = time_limit
        self._name = job_name(self._here.run.run_id, self._here.run.tags.get(_ATTEMPT_TAG, "1"))
        self._store = open_store(settings)
        self._backend = self._store.backend
        self._mailbox = Mailbox(self._backend, self._name)
        self._reader = Reader(self._mailbox, timing.late)
        self._outputs: OutputFiles | None = None
        self._closed: Message | None = None
        self._refused: EdgepackError | None = None
        self._store_answered = time.monotonic()
        self._may_run = False
        self._has_begun = False
        self._takes_events = True
        self._is_over = False
        self._is_left = False

    def events(self) -> Iterator[DagsterEvent]:
        """The events of the run's steps, as they happen. Raises InterruptedRunError if the run is to end."""
        with self._here.captured_logs() as captured:
            yield captured
            try:
                yield from self._follow()
            except EdgepackError as error:
                yield from self._give_up(error)
            except InterruptedRunError:
                self._is_left = self._here.will_resume()
                raise
            finally:
                if not self._is_left:
                    self._end()

    # the job's beginning ------------------------------------------------------------------------------------------

    def _follow(self) -> Iterator[DagsterEvent]:
        self._outputs = OutputFiles(self._here.run.run_config, self._here.steps, self._settings, self._store)
        self._here.add_tags({JOB_TAG: self._name, WORKER_TAG: worker(self._here.run.run_id)})
        yield from self._cancel_left_jobs()
        status = self._service.status(self._name) if self._here.is_resumed else None
        if status is not None:
            self._may_run = True
            yield self._here.note(f"Found the job {self._name} of this run", _shown(status))
        else:
            status = yield from self._start()
        watch = JobWatch(
            self._service, self._name, status, self._timing, start_limit=self._start_time_limit,
            time_limit=self._time_limit,
        )  # fmt: skip
        yield from self._watch(watch)
        yield from self._conclude(watch)

    def _cancel_left_jobs(self) -> Iterator[DagsterEvent]:
        """End the jobs of earlier runs of this partition whose end they did not see: after a crash of this machine.

        What one tells until it ends goes into its mailbox, which is deleted by the next run, or is garbage."""
        for job in left_mailboxes(self._backend):
            if not self._here.takes_place_of(run_id_of(job)):
                continue
            try:
                status = self._service.status(job)
                if status is None or status.phase.is_over:
                    Mailbox(self._backend, job).delete()
                    continue
                self._service.cancel(job)
            except EdgepackError as error:  # this run does not depend on it
                yield self._here.note(f"The job {job}, whose run has ended without it, could not be ended: {error}")
            else:
                yield self._here.note(f"Cancelled the job {job}: its run has ended without it")

    def _start(self) -> Generator[DagsterEvent, None, JobStatus]:
        yield self._here.note(
            f"This run is done as the job {self._name}. Preparing the compute and the environment", {"job": self._name}
        )
        fields = self._here.request_fields()
        assert self._outputs is not None
        run = {**fields, "run_config": self._outputs.config_of_job(fields["run_config"])}
        with scratch_folder() as folder:
            write_code_folder(folder, self._settings, self._key.model_type)
            write_request(self._mailbox.write, self._settings, self._key.model_type, run)
            yield from self._aside(self._service.prepare, may_leave=True)
            request = self._job_request(folder)
            self._may_run = True
            try:
                status: JobStatus = yield from self._aside(
                    lambda log: self._service.start(request, log), may_leave=False
                )
            except EdgepackError as error:
                self._may_run = isinstance(error, TransientError)
                raise
        yield self._here.note(f"Handed over the job {self._name}: {status.service_status}", _shown(status))
        return status

    def _job_request(self, folder: Any) -> JobRequest:
        compute = self._settings.compute_of(self._key.model_type)
        arguments = ["python", BOOTSTRAP, self._module, "--root", self._settings.artefacts.root, "--job", self._name]
        if compute.is_remote and compute.job_credential.client_id:
            arguments += ["--client-id", compute.job_credential.client_id]
        variables = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
        return JobRequest(
            self._name, shlex.join(arguments), folder,
            {"SIMATICAI_TELEMETRY": "deny", "DAGSTER_DISABLE_TELEMETRY": "yes", **variables},
            {"edgepack_run": self._here.run.run_id, "edgepack_partition": str(self._key)},
            compute.display_name or f"{self._key}",
            datetime.timedelta(seconds=self._time_limit),
        )  # fmt: skip

    def _aside(
        self, work: Callable[[Callable[[str], None]], Any], *, may_leave: bool
    ) -> Generator[DagsterEvent, None, Any]:
        """Do a call of the service that may take minutes in a thread, show what it logs, and return its value.

        An interruption is raised at once if the call may be left to itself, else after it."""
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        results: list[Any] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(work(lines.put))
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
                errors.append(error)

        thread = threading.Thread(target=run, name="job service", daemon=True)
        thread.start()
        while thread.is_alive() or not lines.empty():
            thread.join(_STEP)
            with contextlib.suppress(queue.Empty):
                while True:
                    yield self._here.note(lines.get_nowait())
            if may_leave:
                self._raise_if_interrupted()
        if errors:
            raise errors[0]
        return results[0]

    # while it runs ------------------------------------------------------------------------------------------------

    def _watch(self, watch: JobWatch) -> Iterator[DagsterEvent]:
        while True:
            self._raise_if_interrupted()
            yield from self._take(watch.heard)
            if self._closed is not None:
                with contextlib.suppress(EdgepackError):  # the job has told its end; this is for the run's page
                    watch.look(now=True)
                return
            if (status := watch.look()) is not None:
                yield self._here.note(f"The job is {status.phase} ({status.service_status})", _shown(status))
            if watch.wait_is_over and not self._reader.is_waiting_for_late_message:
                return
            if (verdict := watch.verdict()) is not None:
                raise RemoteJobError(f"the job {self._name} {verdict}")
            self._sleep(self._timing.poll)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not is_interrupted():
            time.sleep(min(_STEP, seconds))

    def _take(self, heard: Callable[[], None] = lambda: None) -> Iterator[DagsterEvent]:
        try:
            messages = self._reader.take()
        except RemoteJobError:
            raise
        except TransientError as error:
            if time.monotonic() - self._store_answered > self._timing.outage:
                raise RemoteJobError(
                    f"the artefact store has given no answer for {self._timing.outage:g} s: {error}"
                ) from error
            return
        self._store_answered = time.monotonic()
        try:
            for message in messages:
                heard()
                yield from self._take_message(message)
        except RemoteJobError:
            self._takes_events = False  # without an event that cannot be read, what follows proves nothing
            raise

    def _take_message(self, message: Message) -> Iterator[DagsterEvent]:
        if message["kind"] == mail.HELLO:
            self._has_begun = True
            self._here.set_clock(float(message["sent"]))
            there = message.get("versions")
            if (difference := differing_versions(software(), there)) is not None:
                self._takes_events = False
                raise ConfigError(difference)
            yield self._here.note(
                "The job's own process has begun",
                {"python": message.get("python", ""), "python_here": python_version(), "node": message.get("node", "")},
            )
        elif message["kind"] == mail.CLOSED:
            self._closed = message
        elif self._takes_events:  # those of other versions could be misread
            for serialized in message.get("events", ()):
                if (event := self._here.take(serialized)) is not None:
                    yield event

    def _raise_if_interrupted(self) -> None:
        if is_interrupted(take=True) or self._here.is_ended_elsewhere(self._timing.status):
            raise InterruptedRunError

    # its end ------------------------------------------------------------------------------------------------------

    def _conclude(self, watch: JobWatch) -> Iterator[DagsterEvent]:
        status = watch.status
        self._is_over = status.phase.is_over or self._closed is not None
        tail = self._log_tail()
        print(tail)  # noqa: T201 - into the log of the steps, which the UI shows
        ended = f"The job has ended: {status.service_status}" if status.phase.is_over else "The job has done its work"
        yield self._here.note(ended, {**_shown(status), "log": tail[-8_000:]})
        if self._closed is None:
            # Before the job's own process there is only what the service does with what it was told.
            is_refused = status.phase is JobPhase.FAILED and not (status.is_infrastructure or self._has_begun)
            if is_refused:
                last = "\n".join(tail.splitlines()[-_SHOWN_LINES:])
                raise ConfigError("\n".join(filter(None, (self._why_it_died(watch), last))))
            raise RemoteJobError(self._why_it_died(watch))
        if self._closed.get("refused"):
            refused = self._closed["refused"]
            yield from self._fail_open_steps(refused["sentence"], refused["error"], transient=False)
            return
        assert self._outputs is not None
        self._outputs.write(self._mailbox.read, str(self._key), self._here.over - self._here.failed)
        left = [step for step in self._here.steps if step not in self._here.over]
        if self._closed.get("success") and left:
            raise RemoteJobError(f"the job {self._name} says that all is done, but told nothing of {', '.join(left)}")
        if not self._closed.get("success") and not self._here.failed:
            reason = self._closed.get("reason") or "it does not say why"
            raise RemoteJobError(f"the job {self._name} failed before any step did: {reason}")

    def _why_it_died(self, watch: JobWatch) -> str:
        status = watch.status
        how = {
            JobPhase.CANCELLED: f"was ended by the service after {self._time_limit:g} s (compute.time_limit)"
            if watch.ran_out
            else "was cancelled in the service, not here",
            JobPhase.SUCCEEDED: "ended without telling how",
        }.get(status.phase, "ended before its work was done")
        why = f": {without_secrets(status.error)}" if status.error else f" ({status.service_status})"
        return f"the job {self._name} {how}{why}"

    def _give_up(self, error: EdgepackError) -> Iterator[DagsterEvent]:
        """Fail the steps that were under way, for a reason that lies in the job."""
        with contextlib.suppress(EdgepackError):  # what has come until now counts; the first error is the reason
            yield from self._take()
        if not self._is_over and self._may_run:
            yield self._here.note("The job is given up and cancelled", {"log": self._log_tail()[-8_000:]})
        transient = isinstance(error, TransientError)
        name = RemoteJobError.__name__ if transient else type(error).__name__
        yield from self._fail_open_steps(str(error), name, transient=transient)

    def _fail_open_steps(self, sentence: str, error: str, *, transient: bool) -> Iterator[DagsterEvent]:
        """Of the steps that have begun and not ended; if none has, of the first that has not ended."""
        is_open = [step for step in self._here.steps if step not in self._here.over]
        begun = [step for step in is_open if step in self._here.started]
        for step in begun or is_open[:1]:
            yield self._here.fail(step, f"{step.replace('__', '/')} of {self._key}: {sentence}", error, transient)

    def _log_tail(self) -> str:
        try:
            return without_secrets(self._service.log_tail(self._name, _LOG_LINES))
        except EdgepackError as error:
            return f"The job's log cannot be read: {error}"

    def _end(self) -> None:
        """Cancel a job that still runs, store what it still told, and delete the mailbox when it is over.

        A job that was started and cannot do so yet finds no request in the mailbox, and does nothing."""
        if self._may_run and not self._is_over and not self._cancel():
            return
        try:
            self._mailbox.delete()
        except EdgepackError as error:
            print(f"the messages of {self._name} could not be deleted: {error}", file=sys.stderr)  # noqa: T201

    def _cancel(self) -> bool:
        """Cancel the job and wait a little for its end; whether it is over. Its last events are stored."""
        until, said = time.monotonic() + self._timing.cancel, ""
        status: JobStatus | None = None
        while True:
            try:
                if status is None:  # not asked yet, or a job that was started just now and cannot be read yet
                    self._service.cancel(self._name)
                status = self._service.status(self._name)
            except EdgepackError as error:
                said = str(error)
            with contextlib.suppress(EdgepackError):  # what cannot be read is of no use any more
                for _ in self._take():
                    pass
            if self._closed is not None or (status is not None and status.phase.is_over):
                return True
            if time.monotonic() > until:
                break
            time.sleep(min(self._timing.poll, 1.0))
        if said:
            print(f"the job {self._name} could not be cancelled: {said}", file=sys.stderr)  # noqa: T201
        return status is None and not said


def _shown(status: JobStatus) -> Mapping[str, Any]:
    """The facts of a job, as metadata."""
    return {
        name: dg.MetadataValue.url(value) if value.startswith("https://") else value
        for name, value in {"status": status.service_status, **status.details}.items()
    }
