"""The daemon's side: which process makes a run, and what becomes of the run if that process ends.

Only processes that this one has forked are used, over sockets that have no name: nobody else can ask them. They end
when this process does, after the run that they are making.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection

from edgepack_assets.defs.run_processes.messages import ENDED, FORK, GO, LOADED, PID_BYTES, READY

_log = logging.getLogger(__name__)
_LOADING = 120.0
"""Seconds in which the definitions must be loaded, on a busy machine too."""
_ANSWER = 30.0


class NoProcessError(Exception):
    """There is no process that could make a run: Dagster's own way is left. The message says why."""


@dataclass(frozen=True)
class RunProcess:
    """A process that is forked, which makes one run at a time."""

    connection: Connection
    pid: int

    def takes(self, run_id: str) -> bool:
        """Whether it will make this run when it is told to."""
        try:
            self.connection.send(run_id)
            return self.connection.poll(_ANSWER) and self.connection.recv() == READY
        except (EOFError, ConnectionResetError, BrokenPipeError):
            return False


@dataclass
class RunProcesses:
    """Those for the repository of one code location and one instance. `executable`: the code location's Python.
    `origin` and `ref`: repository and instance, as Dagster serializes them."""

    executable: str
    origin: str
    ref: str
    location: str
    _server: socket.socket | None = None
    _idle: list[RunProcess] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, run_id: str, note: Callable[[int], None], lost: Callable[[], None]) -> None:
        """Have a run made. `note` is told its process before it begins; `lost` is called, in a thread, if that ends
        without a word. Raises NoProcessError if the run was not begun, and what `note` raises."""
        with self._lock:
            process = self._taking(run_id)
        try:
            note(process.pid)
            process.connection.send(GO)
        except BaseException as error:
            process.connection.close()
            if isinstance(error, BrokenPipeError | ConnectionResetError):
                raise NoProcessError(f"process {process.pid} ended before it began") from error
            raise
        threading.Thread(target=self._wait, args=(process, lost), name=f"run {run_id}", daemon=True).start()

    def close(self) -> None:
        """Have those end that make no run. The next run starts new ones."""
        with self._lock:
            while self._idle:
                self._idle.pop().connection.close()
            if self._server is not None:
                self._server.close()
                self._server = None

    def _taking(self, run_id: str) -> RunProcess:
        while self._idle:
            process = self._idle.pop()
            if process.takes(run_id):
                return process
            process.connection.close()
        process = self._forked()
        if not process.takes(run_id):
            process.connection.close()
            raise NoProcessError(f"process {process.pid} ended after it was forked")
        return process

    def _forked(self) -> RunProcess:
        if self._server is not None:
            try:
                return _fork(self._server)
            except OSError:  # it ended: it was idle, or what it had loaded has changed
                self._server.close()
        self._server = self._started()
        try:
            return _fork(self._server)
        except OSError as error:
            raise NoProcessError(f"the process that forks others ended: {error}") from error

    def _started(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(_LOADING)
        with theirs:
            command = [self.executable, "-m", "edgepack_assets.defs.run_processes.fork_server", str(theirs.fileno()),
                       str(time.time_ns()), self.origin, self.ref, self.location]  # fmt: skip
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        threading.Thread(target=process.wait, name="fork server", daemon=True).start()  # leaves no zombie
        try:
            if ours.recv(len(LOADED)) == LOADED:
                return ours
            reason = f"it ended, with exit code {process.wait(_ANSWER)}"
        except OSError as error:
            reason = str(error)
        ours.close()
        process.kill()
        raise NoProcessError(f"the process that loads the definitions and forks others did not start: {reason}")

    def _wait(self, process: RunProcess, lost: Callable[[], None]) -> None:
        try:
            if process.connection.recv() == ENDED:
                with self._lock:
                    self._idle.append(process)
                return
        except (EOFError, OSError):
            _log.debug(f"process {process.pid} has ended")
        process.connection.close()
        lost()


def _fork(server: socket.socket) -> RunProcess:
    """Raises OSError if the server is gone."""
    connection, theirs = socket.socketpair()
    with connection, theirs:
        socket.send_fds(server, [FORK], [theirs.fileno()])
        theirs.close()
        connection.settimeout(_ANSWER)
        number = int.from_bytes(connection.recv(PID_BYTES), "big")  # nothing, if the server did not fork
        if number == 0:
            raise ConnectionResetError("it forks no more")
        connection.settimeout(None)
        return RunProcess(Connection(os.dup(connection.fileno())), number)


@cache
def run_processes(executable: str, origin: str, ref: str, location: str) -> RunProcesses:
    """Those of this process, the same for every run launcher in it."""
    return RunProcesses(executable, origin, ref, location)
