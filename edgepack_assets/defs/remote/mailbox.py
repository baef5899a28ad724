"""The mailbox of one job: a folder of the artefact store, through which the job and the run that started it talk.

It holds the request, the job's numbered messages, and files that the job made for the run. Each message is a file of
its own that appears whole or not at all, so a large one is as safe as a small one. Numbers make a lost message noticed.
Who started the job deletes the folder when the run is over; what is left is removed by `edgepack gc`.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgepack_assets.artefacts.backend import Backend
from edgepack_assets.artefacts.store import REMOTE_RUNS
from edgepack_assets.errors import RemoteJobError, TransientError
from edgepack_assets.filesystem.atomic_files import is_transient

Message = Mapping[str, Any]
"""What one message holds; `kind` says which other keys there are."""
HELLO, EVENTS, CLOSED = "hello", "events", "closed"
MESSAGES, RESTARTED = "messages", "restarted"

FLUSH = 0.5
"""Seconds for which events are collected into one message."""
ALIVE = 60.0
"""Seconds after which a message is sent though there is nothing to tell."""
RETRY_FOR = 600.0
"""Seconds for which the sending of a message is tried again."""
LATE = 60.0
"""Seconds that a message may come later than one after it."""


class Mailbox:
    """The folder of the job called `job`."""

    def __init__(self, backend: Backend, job: str) -> None:
        self._backend = backend
        self.job = job
        self._folder = f"{backend.root}/{REMOTE_RUNS}/{job}"

    def write(self, name: str, data: bytes) -> None:
        """Write a file, or replace it."""
        self._backend.write(f"{self._folder}/{name}", data)

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None if there is none."""
        try:
            return self._backend.read(f"{self._folder}/{name}")
        except FileNotFoundError:
            return None

    def names(self, folder: str = "") -> list[str]:
        """The names of all files, or of those in a folder of it."""
        top = f"{self._folder}/{folder}".rstrip("/")
        return sorted(path.removeprefix(f"{top}/") for path in self._backend.list_paths(top))

    def claim(self) -> bool:
        """Whether this is the first process that works for the job: a service may start a job's command again."""
        token = uuid.uuid4().hex.encode()
        self._backend.create(f"{self._folder}/claimed", token)
        return self.read("claimed") == token

    def delete(self) -> None:
        """Delete all files."""
        for file in list(self._backend.list_files(self._folder)):
            self._backend.remove(file)


def left_mailboxes(backend: Backend) -> list[str]:
    """The jobs whose mailboxes were not deleted: they are at work, or nobody has seen their end."""
    top = f"{backend.root}/{REMOTE_RUNS}/"
    return sorted({path.removeprefix(top).split("/")[0] for path in backend.list_paths(top.rstrip("/"))})


def _message_name(number: int) -> str:
    return f"{MESSAGES}/{number:06}"


class Sender:
    """Sends messages in their order, from a thread of its own. Use as a context manager: it ends with all sent.

    A message that cannot be sent is tried again for RETRY_FOR seconds. After that every call raises: what cannot be
    told must not go on."""

    def __init__(self, mailbox: Mailbox, clock: Callable[[], float] = time.time) -> None:
        self._mailbox = mailbox
        self._clock = clock
        self._number = 0
        self._events: queue.SimpleQueue[str | Message | None] = queue.SimpleQueue()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="messages to the run", daemon=True)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._events.put(None)
        self._thread.join()
        self._check()

    def event(self, serialized: str) -> None:
        """Send an event. Raises RemoteJobError if an earlier one could not be sent."""
        self._check()
        self._events.put(serialized)

    def message(self, kind: str, **values: Any) -> None:
        """Send a message of its own."""
        self._check()
        self._events.put({"kind": kind, **values})

    def _check(self) -> None:
        if self._failed is not None:
            raise RemoteJobError(f"messages cannot be sent to {self._mailbox.job}: {self._failed}") from self._failed

    def _work(self) -> None:
        try:
            is_open, pending = True, []
            while is_open:
                pending += self._collect()
                is_open = None not in pending
                for message in _in_messages([each for each in pending if each is not None]):
                    self._send(message)
                pending = []
        except Exception as error:  # noqa: BLE001 - kept for the thread that works, which raises it
            self._failed = error

    def _collect(self) -> list[str | Message | None]:
        """What is to be sent next: whatever comes within FLUSH seconds after the first."""
        try:
            found = [self._events.get(timeout=ALIVE)]
        except queue.Empty:
            return [{"kind": EVENTS, "events": []}]
        until = time.monotonic() + FLUSH
        while found[-1] is not None and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                found.append(self._events.get(timeout=left))
        return found

    def _send(self, message: Message) -> None:
        self._number += 1
        data = json.dumps({**message, "job": self._mailbox.job, "number": self._number, "sent": self._clock()})
        name, until, wait = _message_name(self._number), time.monotonic() + RETRY_FOR, 0.5
        while True:
            try:
                self._mailbox.write(name, data.encode())
            except (TransientError, OSError) as error:
                if time.monotonic() > until or (isinstance(error, OSError) and not is_transient(error)):
                    raise
                time.sleep(wait)
                wait = min(2 * wait, 30.0)
            else:
                return


def _in_messages(pending: Sequence[str | Message]) -> Iterator[Message]:
    """Events that follow each other in one message."""
    events: list[str] = []
    for each in pending:
        if isinstance(each, str):
            events.append(each)
            continue
        if events:
            yield {"kind": EVENTS, "events": events}
            events = []
        yield each
    if events:
        yield {"kind": EVENTS, "events": events}


class Reader:
    """Takes a job's messages in their order, each once."""

    def __init__(self, mailbox: Mailbox, late: float = LATE, clock: Callable[[], float] = time.monotonic) -> None:
        self._mailbox = mailbox
        self._late = late
        self._clock = clock
        self._next = 1
        self._gap_since: float | None = None

    def take(self) -> list[Message]:
        """The messages that have come since the last call.

        Raises RemoteJobError if one is missing LATE seconds after a later one was seen, or is not what it should be;
        TransientError if the store gives no answer."""
        names = self._mailbox.names(MESSAGES)
        if RESTARTED in names:
            raise RemoteJobError(
                f"the service has started {self._mailbox.job} a second time (its node was taken away or lost): what "
                "was done the first time is not known here"
            )
        present = {int(name) for name in names if name.isdecimal()}
        taken: list[Message] = []
        while self._next in present:
            data = self._mailbox.read(_message_name(self._next))
            if data is None:
                break
            taken.append(self._read(data))
            self._next += 1
        last = max(present, default=0)
        if last < self._next:
            self._gap_since = None
        elif taken or self._gap_since is None:
            self._gap_since = self._clock()
        elif self._clock() - self._gap_since > self._late:
            raise RemoteJobError(
                f"message {self._next} of the job {self._mailbox.job} was lost: message {last} has come, and "
                f"it has not within {self._late:g} s. What the job did after that is not known here"
            )
        return taken

    @property
    def is_waiting_for_late_message(self) -> bool:
        """Whether a later message is there than the next one."""
        return self._gap_since is not None

    def _read(self, data: bytes) -> Message:
        where = f"message {self._next} of the job {self._mailbox.job}"
        try:
            message = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RemoteJobError(f"{where} is not JSON ({error})") from None
        if not isinstance(message, dict) or (message.get("job"), message.get("number")) != (
            self._mailbox.job, self._next,
        ):  # fmt: skip
            raise RemoteJobError(f"{where} says that it is another one: it was copied or changed in the artefact store")
        events = message.get("events", [])
        if (
            message.get("kind") not in (HELLO, EVENTS, CLOSED)
            or not isinstance(message.get("sent"), (int, float))
            or not (isinstance(events, list) and all(isinstance(event, str) for event in events))
        ):
            raise RemoteJobError(f"{where} is no message of a job")
        return message
