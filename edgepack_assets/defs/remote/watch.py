"""When a job is given up: it does not start, runs too long, is silent, or its service gives no answer.

No Dagster here, and no waiting: `look` and `verdict` are asked again and again by the executor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edgepack_assets.compute.base import JobPhase, JobService, JobStatus
from edgepack_assets.errors import EdgepackError, RemoteJobError


@dataclass(frozen=True)
class Timing:
    """Seconds. `poll`: between two looks into the mailbox. `status`: between two questions to the service. `silence`:
    how long a job that runs may send nothing. `outage`: how long service or store may give no answer. `late`: how long
    messages may come after the job's end, or after later ones. `not_responding`: how long a node may be out of touch.
    `cancel`: how long a cancelled job is waited for. `overdue`: what a job gets beyond its time limit, which the
    service enforces."""

    poll: float = 1.0
    status: float = 10.0
    silence: float = 900.0
    outage: float = 900.0
    late: float = 60.0
    not_responding: float = 300.0
    cancel: float = 20.0
    overdue: float = 300.0


class JobWatch:
    """Watches the job `name`, of which `status` is known. The limits are in seconds."""

    def __init__(
        self, service: JobService, name: str, status: JobStatus, timing: Timing, *, start_limit: float,
        time_limit: float, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._service = service
        self._name = name
        self._timing = timing
        self._start_limit = start_limit
        self._time_limit = time_limit
        self._clock = clock
        self.status = status
        self._asked = self._answered = self._changed = self._heard = clock()
        self._has_begun = False
        self.ran_out = False
        """Whether the job was ended when its time limit had passed, as the service does it."""
        self._over_since: float | None = clock() if status.phase.is_over else None

    def heard(self) -> None:
        """A message has come from the job: it runs, whatever the service says of it."""
        self._heard = self._clock()
        if not self._has_begun and self.status.phase is JobPhase.WAITING:
            self._changed = self._heard
        self._has_begun = True

    def look(self, now: bool = False) -> JobStatus | None:
        """Ask the service, if it is time or `now`. Returns the status if it is another one than before.

        Raises RemoteJobError if for long neither the service tells of the job nor the job itself does."""
        if not now and self._clock() - self._asked < self._timing.status:
            return None
        self._asked = self._clock()
        try:
            status = self._service.status(self._name)
        except EdgepackError as error:
            self._check_outage(f"the job's status cannot be asked: {error}")
            return None
        if status is None:
            self._check_outage("the service knows no such job")
            return None
        self._answered = self._clock()
        before, self.status = self.status, status
        if status.phase is not before.phase:
            lasted = self._clock() - self._changed
            self.ran_out = status.phase is JobPhase.CANCELLED and self._has_begun and lasted >= self._time_limit
            if not (self._has_begun and {status.phase, before.phase} == {JobPhase.WAITING, JobPhase.RUNNING}):
                self._changed = self._clock()
            if status.phase is JobPhase.RUNNING and before.phase is JobPhase.WAITING:
                self._heard = self._clock()
            self._over_since = self._clock() if status.phase.is_over else None
        return status if (status.phase, status.service_status) != (before.phase, before.service_status) else None

    def _check_outage(self, reason: str) -> None:
        if self._clock() - max(self._answered, self._heard) > self._timing.outage:
            raise RemoteJobError(f"{reason} (for {self._timing.outage:g} s)")

    @property
    def wait_is_over(self) -> bool:
        """Whether the job is over, and silent, for so long that no message of it can come any more."""
        if self._over_since is None:
            return False
        return self._clock() - max(self._over_since, self._heard) > self._timing.late

    def verdict(self) -> str | None:
        """Why the job is given up now, as a sentence; None if it is not."""
        kind, lasts = self.status.phase, self._clock() - self._changed
        if kind is JobPhase.WAITING and self._has_begun:
            kind = JobPhase.RUNNING
        if kind is JobPhase.WAITING and lasts > self._start_limit:
            return (
                f"did not start within {self._start_limit:g} s (compute.start_time_limit): it is still "
                f"{self.status.service_status}. Maybe all machines are in use, their size is out of quota or stock, or "
                "the environment's build takes long"
            )
        # One that is said to be over may go on sending.
        if (kind is JobPhase.RUNNING or kind.is_over) and lasts > self._time_limit + self._timing.overdue:
            return f"ran longer than {self._time_limit:g} s (compute.time_limit)"
        if kind is JobPhase.NOT_RESPONDING and lasts > self._timing.not_responding:
            return f"does not respond: its node has been out of touch for {self._timing.not_responding:g} s"
        if kind is JobPhase.RUNNING and self._clock() - self._heard > self._timing.silence:
            return f"has sent nothing for {self._timing.silence:g} s, though it is said to run"
        return None
