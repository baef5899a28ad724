"""Messages of a job: none is lost unnoticed, none is taken twice, and a large one is as good as a small one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack_assets.artefacts.local_backend import LocalBackend
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.defs.remote import mailbox as mail
from edgepack_assets.defs.remote.mailbox import Mailbox, Reader, Sender, left_mailboxes
from edgepack_assets.errors import RemoteJobError, TransientError


class Memory(LocalBackend):
    """A backend that keeps files in memory; `faults` are raised by the next writes."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.files: dict[str, bytes] = {}
        self.faults: list[Exception] = []

    def write(self, path: str, data: bytes) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.files[path] = data

    def create(self, path: str, data: bytes) -> None:
        self.files.setdefault(path, data)

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def list_paths(self, folder: str) -> list[str]:
        return [path for path in self.files if path.startswith(f"{folder}/")]


def sent(count: int) -> dict[str, bytes]:
    """The files of messages, each with an event that holds its number."""
    return {
        f"/nowhere/remote_runs/job/messages/{number:06}": json.dumps(
            {"kind": mail.EVENTS, "events": [str(number)], "job": "job", "number": number, "sent": 1.5}
        ).encode()
        for number in range(1, count + 1)
    }


@given(st.permutations(range(1, 8)), st.sets(st.integers(0, 6)))
@settings(max_examples=50, deadline=None)
def test_messages_are_taken_once_and_in_order_however_they_come(order: list[int], looks: set[int]) -> None:
    backend, files = Memory(), sent(7)
    reader = Reader(Mailbox(backend, "job"))
    taken: list[int] = []
    for step, number in enumerate(order):
        name = f"/nowhere/remote_runs/job/messages/{number:06}"
        backend.files[name] = files[name]
        if step in looks:
            taken += [message["number"] for message in reader.take()]
            assert taken == list(range(1, len(taken) + 1))
    taken += [message["number"] for message in reader.take()]
    assert taken == list(range(1, 8))
    assert reader.take() == []


def test_a_message_that_stays_away_is_an_error_that_names_it() -> None:
    now = 0.0
    backend = Memory()
    backend.files = sent(3)
    del backend.files["/nowhere/remote_runs/job/messages/000002"]
    reader = Reader(Mailbox(backend, "job"), late=30, clock=lambda: now)
    assert [message["number"] for message in reader.take()] == [1]
    assert reader.is_waiting_for_late_message
    now = 29.0
    assert reader.take() == []
    now = 31.0
    with pytest.raises(RemoteJobError, match="message 2 of the job job was lost: message 3 has come"):
        reader.take()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"kind": "events", "job": "job", "num', "is not JSON"),
        (b'["kind"]', "says that it is another one"),
        (sent(1)["/nowhere/remote_runs/job/messages/000001"].replace(b'"number": 1', b'"number": 2'), "another one"),
        (sent(1)["/nowhere/remote_runs/job/messages/000001"].replace(b'"job": "job"', b'"job": "JOB"'), "another one"),
        (sent(1)["/nowhere/remote_runs/job/messages/000001"].replace(b"1.5", b'"now"'), "no message of a job"),
        (sent(1)["/nowhere/remote_runs/job/messages/000001"].replace(b'"events",', b'"news",'), "no message of a job"),
        (sent(1)["/nowhere/remote_runs/job/messages/000001"].replace(b'["1"]', b'[["1"]]'), "no message of a job"),
    ],
)
def test_a_message_that_is_none_is_refused(content: bytes, reason: str) -> None:
    backend = Memory()
    backend.files = {"/nowhere/remote_runs/job/messages/000001": content}
    with pytest.raises(RemoteJobError, match=reason):
        Reader(Mailbox(backend, "job")).take()


def test_sending_is_tried_again_and_large_events_arrive_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    backend = Memory()
    backend.faults = [TransientError("the store is busy"), ConnectionResetError("reset"), TransientError("again")]
    with Sender(Mailbox(backend, "job")) as sender:
        sender.message(mail.HELLO, versions={})
        sender.event("x" * 300_000)
        sender.event("y")
        sender.message(mail.CLOSED, success=True)
    messages = Reader(Mailbox(backend, "job")).take()
    assert [message["kind"] for message in messages] == [mail.HELLO, mail.EVENTS, mail.CLOSED]
    assert messages[1]["events"] == ["x" * 300_000, "y"]
    assert backend.faults == []


def test_a_message_that_cannot_be_sent_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "RETRY_FOR", 0.0)
    backend = Memory()
    backend.faults = [TransientError("the store is gone")] * 100
    sender = Sender(Mailbox(backend, "job"))
    with pytest.raises(RemoteJobError, match="the store is gone"), sender:
        sender.event("one")
    with pytest.raises(RemoteJobError, match="the store is gone"):
        sender.event("another")


def test_only_one_process_works_for_a_job() -> None:
    backend = Memory()
    assert Mailbox(backend, "job").claim()
    assert not Mailbox(backend, "job").claim()


def test_an_orderly_end_leaves_nothing_and_a_crash_leaves_garbage(tmp_path: Path) -> None:
    store = ArtefactStore(str(tmp_path / "artefacts"), tmp_path / "cache")
    kept, deleted = Mailbox(store.backend, "kept"), Mailbox(store.backend, "deleted")
    for each in (kept, deleted):
        each.write("request.json", b"{}")
    deleted.delete()
    assert left_mailboxes(store.backend) == ["kept"]
    assert deleted.read("request.json") is None
    store.remove(store.garbage([], grace=-60))
    assert left_mailboxes(store.backend) == []
