"""The interface of a service that runs a whole run of Dagster as one job on another machine."""

import dataclasses
import datetime
import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

Log = Callable[[str], None]


class JobPhase(enum.StrEnum):
    """What a job's status means to us. WAITING is everything before the job's own command runs on a node."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOT_RESPONDING = "not responding"

    @property
    def is_over(self) -> bool:
        return self in (JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.CANCELLED)


@dataclasses.dataclass(frozen=True)
class JobRequest:
    """One job. `name` is made from the run and the attempt, so that the same request finds the job that it started
    before. `code_folder` is copied to the node and is the working directory of `command`. Environment variables are
    visible to everybody who may read the job, so they hold nothing secret."""

    name: str
    command: str
    code_folder: Path
    environment_variables: Mapping[str, str]
    tags: Mapping[str, str]
    display_name: str
    time_limit: datetime.timedelta


@dataclasses.dataclass(frozen=True)
class JobStatus:
    """`service_status` is the service's own word. `error` is its sentence for a failed job, with its code. A preempted
    node, a lost heartbeat and the like are `is_infrastructure`: another attempt may succeed. `details` are facts for
    the run's metadata: cluster, node, studio link, times."""

    phase: JobPhase
    service_status: str
    error: str | None = None
    is_infrastructure: bool = False
    details: Mapping[str, str] = dataclasses.field(default_factory=dict)


class JobService(Protocol):
    """Every method raises `TransientError` when the service gives no answer, and another `EdgepackError` that says what
    to change when it refuses."""

    def prepare(self, log: Log) -> None:
        """Obtains the machines and the environment, or makes them if they are absent. Safe to repeat."""

    def start(self, request: JobRequest, log: Log) -> JobStatus:
        """Starts the job, or finds it if this very request started it before. A job of that name that another request
        started is an error."""

    def status(self, name: str) -> JobStatus | None:
        """The job's status now; None if there is no such job."""

    def cancel(self, name: str) -> None:
        """Asks the service to end the job. No error if it is over already."""

    def log_tail(self, name: str, line_count: int) -> str:
        """The last lines of the job's own log, or the log of its environment's build; empty if there is none yet."""
