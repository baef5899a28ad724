"""When a job is given up. The clock and the service are the test's."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from edgepack_assets.compute.base import JobPhase, JobStatus
from edgepack_assets.defs.remote.watch import JobWatch, Timing
from edgepack_assets.errors import EdgepackError, RemoteJobError, TransientError

TIMING = Timing(status=10, silence=100, outage=50, late=20, not_responding=30, overdue=5)
QUEUED = JobStatus(JobPhase.WAITING, "Queued")
RUNNING = JobStatus(JobPhase.RUNNING, "Running")


@dataclass
class Simulated:
    """A service whose answer is `answer`, and the watch that asks it."""

    answer: JobStatus | Exception | None = QUEUED
    now: float = 0.0
    asked: int = 0
    watch: JobWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = JobWatch(
            self, "job", QUEUED, TIMING, start_limit=60, time_limit=200, clock=lambda: self.now  # type: ignore[arg-type]
        )  # fmt: skip

    def status(self, name: str) -> JobStatus | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def after(self, seconds: float, answer: JobStatus | Exception | None = None) -> str | None:
        """The verdict when these seconds have passed, with the service asked every ten."""
        if answer is not None:
            self.answer = answer
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + 10, until)
            self.watch.look()
        return self.watch.verdict()


def test_a_job_that_does_not_start_is_given_up() -> None:
    job = Simulated()
    assert job.after(60) is None
    assert "did not start within 60 s (compute.start_time_limit): it is still Queued" in str(job.after(10))


def test_the_time_limit_counts_from_the_start_of_the_work() -> None:
    job = Simulated()
    job.after(50)
    job.after(10, RUNNING)
    for _ in range(20):
        assert job.after(10) is None
        job.watch.heard()
    assert "ran longer than 200 s (compute.time_limit)" in str(job.after(10))


def test_a_running_job_that_is_silent_is_given_up() -> None:
    job = Simulated(RUNNING)
    job.after(10)
    assert job.after(95) is None
    job.watch.heard()
    assert job.after(100) is None
    assert "has sent nothing for 100 s" in str(job.after(1))


def test_a_node_may_be_out_of_touch_for_a_while() -> None:
    job = Simulated(RUNNING)
    lost = JobStatus(JobPhase.NOT_RESPONDING, "NotResponding", is_infrastructure=True)
    assert job.after(20, lost) is None
    assert job.after(20, RUNNING) is None
    assert job.after(30, lost) is None
    assert "does not respond" in str(job.after(20))


@pytest.mark.parametrize("answer", [TransientError("busy"), EdgepackError("the role is missing"), None])
def test_an_outage_of_the_service_is_waited_for(answer: Exception | None) -> None:
    job = Simulated(RUNNING)
    job.after(10)
    job.answer = answer
    assert job.after(50) is None
    assert job.after(10, RUNNING) is None
    job.answer = answer
    with pytest.raises(RemoteJobError, match="for 50 s"):
        job.after(60)


def test_the_service_is_not_asked_more_often_than_said() -> None:
    job = Simulated()
    for _ in range(100):
        job.now += 1
        job.watch.look()
    assert job.asked == 10


def test_messages_may_come_after_the_end() -> None:
    job = Simulated(RUNNING)
    job.after(10)
    job.after(10, JobStatus(JobPhase.SUCCEEDED, "Completed"))
    assert not job.watch.wait_is_over
    job.after(21)
    assert job.watch.wait_is_over


def test_a_job_that_sends_runs_though_it_is_said_to_wait() -> None:
    job = Simulated()
    job.after(50)
    job.watch.heard()
    assert job.after(90) is None
    assert "has sent nothing for 100 s" in str(job.after(20))


def test_a_job_that_is_said_to_be_over_is_heard_as_long_as_it_sends_and_its_time_lasts() -> None:
    job = Simulated(RUNNING)
    job.after(10)
    job.after(10, JobStatus(JobPhase.SUCCEEDED, "Completed"))
    for _ in range(20):
        assert job.after(10) is None
        job.watch.heard()
        assert not job.watch.wait_is_over
    assert "ran longer than 200 s" in str(job.after(10))


def test_a_job_that_sends_needs_no_status() -> None:
    job = Simulated(RUNNING)
    job.after(10)
    job.answer = None
    for _ in range(10):
        assert job.after(20) is None
        job.watch.heard()
    with pytest.raises(RemoteJobError, match="knows no such job"):
        job.after(60)


@pytest.mark.parametrize(("seconds", "expected"), [(150, False), (210, True)])
def test_a_job_that_the_service_ends_at_its_time_limit_ran_out_of_time(seconds: int, expected: bool) -> None:
    job = Simulated()
    job.after(50)
    job.after(10, RUNNING)
    for _ in range(seconds // 10):
        job.watch.heard()
        job.after(10)
    job.after(10, JobStatus(JobPhase.CANCELLED, "Canceled"))
    assert job.watch.ran_out is expected
