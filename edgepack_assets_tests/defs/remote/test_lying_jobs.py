"""Jobs that lie, repeat themselves, fall silent or vanish. What an honest job has told once is told again, changed; the
service says of the job what the test has it say. No process runs here but the one that told it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.compute.base import JobPhase, JobRequest, JobStatus, Log
from edgepack_assets.config.loader import load_settings
from edgepack_assets.defs.asset_names import JOB
from edgepack_assets.defs.remote import mailbox as mail
from edgepack_assets.defs.remote.dagster_internals import execute_run_of
from edgepack_assets.defs.remote.executor import Remote
from edgepack_assets.defs.remote.mailbox import Mailbox, Reader
from edgepack_assets.defs.remote.remote_run import job_name
from edgepack_assets.defs.remote.request import write_request
from edgepack_assets.defs.remote.watch import Timing
from edgepack_assets.defs.sensors.run_outcomes import outcome_of
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.new_models.run_requests import RunOutcome
from edgepack_assets.partitions import ModelKey
from edgepack_assets_tests.defs.remote import cheap_assets as cheap
from edgepack_assets_tests.defs.remote.conftest import Place

pytestmark = [pytest.mark.xdist_group("test_lying_jobs"), pytest.mark.long]

RUN, PROJECT = str(uuid.uuid4()), Path(__file__).parents[3]
NAME = job_name(RUN, "1")
STEPS = ("config_package", "payload_data")
KEY = ModelKey("press", cheap.GOOD)
RUNNING, COMPLETED = JobStatus(JobPhase.RUNNING, "Running"), JobStatus(JobPhase.SUCCEEDED, "Completed")
FAILED = JobStatus(JobPhase.FAILED, "Failed", "UserError: exit code 1")
INFRASTRUCTURE, SUCCEEDED = RunOutcome.INFRASTRUCTURE_FAILURE, RunOutcome.SUCCEEDED
PATIENT = Timing(poll=0.02, status=0.05, silence=90, outage=90, late=90, not_responding=90, cancel=0.3, overdue=90)
SHORT: dict[str, dict[str, float]] = {
    "is over and has told nothing": {"late": 0.5},
    "loses a message": {"late": 0.5},
    "is gone": {"outage": 0.3},
    "is not told of": {"outage": 0.3},
    "is silent": {"silence": 0.6},
    "is out of touch": {"not_responding": 0.3},
    "never starts": {"start_time_limit": 1},
}
"""The limit that ends the run, in seconds. No other one does, however busy the machine is."""

Messages = list[dict[str, Any]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Messages:
    """What an honest job told of a good run."""
    folder = tmp_path_factory.mktemp("honest")
    settings = load_settings(cheap.configure(folder))
    box = Mailbox(ArtefactStore(settings.artefacts.root, folder / "cache").backend, NAME)
    fields = {"run_id": RUN, "dagster_job": JOB, "assets": STEPS, "partition": str(KEY), "run_config": {}, "tags": {},
              "history": ()}  # fmt: skip
    write_request(box.write, settings, "press", fields)
    done = subprocess.run(
        [sys.executable, "-m", cheap.__name__, "--root", settings.artefacts.root, "--job", NAME],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(PROJECT)}, cwd=folder,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(box.read(f"{mail.MESSAGES}/{name}") or b"") for name in box.names(mail.MESSAGES)]
    # An event in each message, so that one can be lost, cut or repeated.
    events = [event for message in found for event in message.get("events", ())]
    return [found[0], *({**found[0], "kind": mail.EVENTS, "events": [event]} for event in events), found[-1]]


@dataclass
class Liar:
    """A service whose job has told `files`. It says the `statuses` one after the other, and the last again and again;
    an error among them is raised."""

    box: Mailbox
    files: dict[str, bytes]
    statuses: Sequence[JobStatus | Exception | None]
    pause: float = 0.0
    cancelled: int = 0
    asked: int = field(default=0)

    def prepare(self, log: Log) -> None: ...

    def start(self, request: JobRequest, log: Log) -> JobStatus:
        threading.Thread(target=self._tell).start()
        return JobStatus(JobPhase.WAITING, "Starting")

    def _tell(self) -> None:
        for name, data in self.files.items():
            time.sleep(self.pause)
            with contextlib.suppress(EdgepackError):  # the folder is deleted when the run has ended
                self.box.write(f"{mail.MESSAGES}/{name}", data)

    def status(self, name: str) -> JobStatus | None:
        said = self.statuses[min(self.asked, len(self.statuses) - 1)]
        self.asked += 1
        if isinstance(said, Exception):
            raise said
        return said

    def cancel(self, name: str) -> None:
        self.cancelled += 1

    def log_tail(self, name: str, line_count: int) -> str:
        return ""


def numbered(messages: Messages) -> dict[str, bytes]:
    return {
        f"{number:06}": json.dumps({**message, "number": number}).encode() for number, message in enumerate(messages, 1)
    }


@pytest.fixture
def run(make_place: Callable[..., Place]) -> Iterator[Callable[..., tuple[dg.DagsterRun, Place, Liar]]]:
    def run_with(
        files: dict[str, bytes],
        *statuses: JobStatus | Exception | None,
        pause: float = 0.0,
        start_time_limit: float = 90,
        **limits: float,
    ) -> tuple[dg.DagsterRun, Place, Liar]:
        place = make_place()
        place.instance.add_dynamic_partitions("models", [str(KEY)])
        store = ArtefactStore(str(place.folder / "artefacts"), place.folder / "cache")
        liar = Liar(Mailbox(store.backend, NAME), files, statuses or [RUNNING], pause)
        timing = replace(PATIENT, **limits)
        remote = Remote(service=lambda *_: liar, timing=timing, start_time_limit=start_time_limit, time_limit=90)
        job = cheap.load(place.config, remote).resolve_job_def(JOB)
        return execute_run_of(job, place.instance, KEY, STEPS, {}, RUN), place, liar

    yield run_with


def without(messages: Messages, word: str) -> Messages:
    return [each for each in messages if not any(word in event for event in each.get("events", ()))]


def changed(messages: Messages, old: str, new: str) -> Messages:
    assert old in json.dumps(messages)
    return [{**each, "events": [event.replace(old, new) for event in each["events"]]} if "events" in each else each
            for each in messages]  # fmt: skip


LIES: dict[str, tuple[Callable[[Messages], dict[str, bytes]], list[Any], RunOutcome, str]] = {
    "tells the truth": (numbered, [RUNNING, COMPLETED], SUCCEEDED, ""),
    "is said to have failed after all": (numbered, [RUNNING, FAILED], SUCCEEDED, ""),
    "works though it is said to wait": (numbered, [JobStatus(JobPhase.WAITING, "Queued")], SUCCEEDED, ""),
    "is said to be over before it tells": (numbered, [COMPLETED], SUCCEEDED, ""),
    "cannot be read at first": (numbered, [None, None, RUNNING], SUCCEEDED, ""),
    "tells everything twice": (
        lambda told: numbered([told[0], *told[1:-1], *told[1:]]), [RUNNING, COMPLETED], SUCCEEDED, ""),
    "tells each message twice": (
        lambda told: numbered([each for each in told[:-1] for _ in (1, 2)] + told[-1:]), [RUNNING], SUCCEEDED, ""),
    "tells the last first": (
        lambda told: dict(reversed(numbered(told).items())), [RUNNING, COMPLETED], SUCCEEDED, ""),
    "is over and has told nothing": (lambda _: {}, [RUNNING, COMPLETED], INFRASTRUCTURE, "ended without telling how"),
    "is gone": (lambda told: numbered(told[:5]), [RUNNING, None], INFRASTRUCTURE, "the service knows no such job"),
    "is silent": (lambda told: numbered(told[:5]), [RUNNING], INFRASTRUCTURE, "has sent nothing for 0.6 s"),
    "never starts": (lambda _: {}, [JobStatus(JobPhase.WAITING, "Preparing")], INFRASTRUCTURE, "start_time_limit"),
    "is out of touch": (
        lambda told: numbered(told[:5]), [RUNNING, JobStatus(JobPhase.NOT_RESPONDING, "NotResponding")],
        INFRASTRUCTURE, "does not respond"),
    "is not told of": (
        lambda told: numbered(told[:5]), [TransientError("429")], INFRASTRUCTURE, "status cannot be asked: 429"),
    "loses a message": (
        lambda told: {name: data for name, data in numbered(told).items() if name != "000009"}, [RUNNING, COMPLETED],
        INFRASTRUCTURE, "message 9 of the job .* was lost"),
    "cuts a message": (
        lambda told: {name: data[: -9 * (name == "000009")] if name == "000009" else data
                      for name, data in numbered(told).items()}, [RUNNING], INFRASTRUCTURE, "message 9 .* is not JSON"),
    "has a message of another job": (
        lambda told: numbered([*told[:8], {**told[8], "job": job_name(str(uuid.uuid4()), "1")}, *told[9:]]), [RUNNING],
        INFRASTRUCTURE, "message 9 .* says that it is another one"),
    "tells of another run": (
        lambda told: numbered(changed(told, RUN, str(uuid.uuid4()))), [RUNNING, COMPLETED], INFRASTRUCTURE,
        "says that all is done, but told nothing of config_package, payload_data"),
    "leaves out a step": (
        lambda told: numbered(without(told, '"payload_data"')), [RUNNING, COMPLETED], INFRASTRUCTURE,
        "says that all is done, but told nothing of payload_data"),
    "tells what is no event": (
        lambda told: numbered([*told[:8], {**told[8], "events": ["[1]"]}, *told[9:]]), [RUNNING], INFRASTRUCTURE,
        "an event of the job cannot be read"),
    "is started a second time": (
        lambda told: {**numbered(told[:5]), mail.RESTARTED: b""}, [RUNNING], INFRASTRUCTURE, "a second time"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_job_that(lie: str, told: Messages, run: Callable[..., tuple[dg.DagsterRun, Place, Liar]]) -> None:
    files, statuses, outcome, words = LIES[lie]
    ended, place, liar = run(files(told), *statuses, **SHORT.get(lie, {}))
    assert outcome_of(place.instance, ended) is outcome, place.failures(ended)
    if outcome is SUCCEEDED:
        assert place.failures(ended) == {}
        assert liar.cancelled == 0
        counts = {asset: len(place.instance.fetch_materializations(dg.AssetKey(asset), limit=9).records)
                  for asset in STEPS}  # fmt: skip
        assert counts == dict.fromkeys(STEPS, 1)
        assert place.left_messages() == []
    else:
        failures = place.failures(ended)
        assert failures
        # Of each step that was under way: one, or two that an honest job began at once.
        assert all(re.search(words, sentence) for sentence in failures.values()), failures
        is_over = statuses[-1] in (COMPLETED, FAILED)
        assert (liar.cancelled > 0) is not (is_over and "message" not in words)


def test_what_follows_an_event_that_cannot_be_read_proves_nothing(
    told: Messages, run: Callable[..., tuple[dg.DagsterRun, Place, Liar]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there when the run is given up, and says that all went well."""
    take, held, given = Reader.take, list[Any](), list[Any]()

    def in_two_parts(self: Reader) -> list[Any]:
        held.extend(take(self))
        part = held[len(given) : None if given else 9] if len(held) == len(told) else []
        given.extend(part)
        return part

    monkeypatch.setattr(Reader, "take", in_two_parts)
    ended, place, _ = run(numbered([*told[:8], {**told[8], "events": ["[1]"]}, *told[9:]]), RUNNING)
    assert len(given) == len(told)
    assert outcome_of(place.instance, ended) is INFRASTRUCTURE
    assert "an event of the job cannot be read" in str(place.failures(ended))


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_times_of_a_job_whose_clock_is_wrong_are_those_of_here(
    hours: int, told: Messages, run: Callable[..., tuple[dg.DagsterRun, Place, Liar]]
) -> None:
    """An hour ahead or behind: events keep their order, their distances, and lie within the run."""
    now, shift = time.time(), hours * 3600
    moved: Messages = []
    for message in told:
        events = [json.loads(event) for event in message.get("events", ())]
        for event in events:
            event["timestamp"] += now - told[0]["sent"] + shift
        moved.append({**message, "sent": now + shift, "events": list(map(json.dumps, events))})
    ended, place, _ = run(numbered(moved), RUNNING, COMPLETED, pause=0.01)
    assert ended.is_success, place.failures(ended)
    times = [entry.timestamp for entry in place.instance.all_logs(RUN) if entry.step_key]
    assert times == sorted(times)
    assert now - 5 <= times[0] <= times[-1] <= time.time()
    stats = place.instance.get_run_stats(RUN)
    assert stats.start_time is not None
    assert stats.end_time is not None
    assert stats.start_time <= stats.end_time
    for step in place.instance.get_run_step_stats(RUN):
        assert step.start_time is not None
        assert step.end_time is not None
        assert stats.start_time <= step.start_time <= step.end_time <= stats.end_time


def test_a_refusal_to_start_is_no_reason_to_cancel(
    told: Messages, run: Callable[..., tuple[dg.DagsterRun, Place, Liar]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> JobStatus:
        raise EdgepackError("there is another job of that name")

    monkeypatch.setattr(Liar, "start", start)
    ended, place, liar = run({})
    assert outcome_of(place.instance, ended) is RunOutcome.MODEL_FAILURE
    assert liar.cancelled == 0
    assert place.left_messages() == []


def test_a_run_that_was_cancelled_where_no_signal_comes_from_ends_its_job(
    told: Messages, run: Callable[..., tuple[dg.DagsterRun, Place, Liar]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a web server on another machine."""

    def status(self: Liar, name: str) -> JobStatus:
        if self.cancelled:
            return JobStatus(JobPhase.CANCELLED, "Canceled")
        with dg.DagsterInstance.from_config(str(Path(os.environ["EDGEPACK_CONFIG"]).parent)) as instance:
            cancelled = instance.get_run_by_id(RUN)
            assert cancelled is not None
            if cancelled.status is dg.DagsterRunStatus.STARTED:
                instance.report_run_canceling(cancelled)
        return RUNNING

    monkeypatch.setattr(Liar, "status", status)
    ended, place, liar = run(numbered(told[:5]))
    assert ended.status is dg.DagsterRunStatus.CANCELED
    assert liar.cancelled == 1
    assert place.left_messages() == []
