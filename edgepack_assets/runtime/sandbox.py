"""Child processes for code that we don't trust: the component's own environment, an allow-list of environment
variables, a time limit for the whole process group, and results in a format that executes nothing.

A `Sandbox` keeps at most one spare child that has imported an environment's heavy libraries, but no model
code, ahead of its job: importing scikit-learn takes longer than answering a recording.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgepack_assets.config import RuntimeSettings
from edgepack_assets.errors import ComponentError
from edgepack_assets.runtime.environments import Environment

_CHILD = Path(__file__).with_name("child.py")
_MAX_LINES = 2_000
_MAX_LINE = 4_000
_RESULT_LIMIT = 64 << 20


@dataclass(frozen=True)
class ChildFailure:
    """What a child told of its failure: exception type, message, module name (ImportError), record, traceback."""

    type: str
    message: str
    name: str | None
    record: int | None
    traceback: str


class TaskFailedError(ComponentError):
    """Code in the child raised. `failure` has its own words."""

    def __init__(self, what: str, failure: ChildFailure) -> None:
        at = "" if failure.record is None else f" at record {failure.record}"
        super().__init__(f"{what} failed{at}: {failure.message}\n{failure.traceback}")
        self.failure = failure


class Sandbox:
    """Runs jobs in child processes. Use as a context manager, or `close` it: a spare child is ended then."""

    def __init__(self, settings: RuntimeSettings, log: logging.Logger | None = None) -> None:
        self._settings = settings
        self.log: Any = log or logging.getLogger(__name__)
        self._spare: _Child | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the spare child, if there is one."""
        if self._spare is not None:
            self._spare.end()
            self._spare = None

    def prepare(self, environment: Environment, preload: Iterable[str]) -> None:
        """Start a child that imports `preload` while this process does something else."""
        wanted = (environment.python, tuple(preload))
        if self._spare is None or self._spare.identity != wanted or self._spare.process.poll() is not None:
            self.close()
            self._spare = _Child(*wanted)

    def run(self, what: str, environment: Environment, preload: Iterable[str], job: Mapping[str, Any]) -> Any:
        """Do `job` (see child.py; `folder` is its working directory) and return its value.

        `what` names it in errors. Raises TaskFailedError if the code raised, ComponentError if it hung,
        died or returned something that is not JSON.
        """
        self.prepare(environment, preload)
        child, self._spare = self._spare, None
        assert child is not None
        try:
            return child.do(what, job, self._settings.time_limit, self.log)
        finally:
            child.end()


class _Child:
    """One child process and its work folder."""

    def __init__(self, python: Path, preload: tuple[str, ...]) -> None:
        self.identity = (python, preload)
        self.work = Path(tempfile.mkdtemp(prefix="edgepack-child-"))
        self.process = subprocess.Popen(
            [str(python), "-I", "-B", str(_CHILD)], cwd=self.work, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.work), "TMPDIR": str(self.work),
                 "LANG": "C.UTF-8", "MPLBACKEND": "Agg"},
        )
        self._tail: deque[str] = deque(maxlen=50)
        self._lines: deque[str] = deque()
        self._dropped = 0
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        self._send(preload)

    def do(self, what: str, job: Mapping[str, Any], time_limit: float, log: Any) -> Any:
        """Send the job, wait, and return what came back."""
        result = self.work / "result.json"
        self._send({**job, "result": str(result)})
        try:
            code = self.process.wait(time_limit)
        except subprocess.TimeoutExpired:
            self._kill()
            raise ComponentError(
                f"{what} was stopped: it ran longer than {time_limit:g} s (runtime.time_limit in edgepack.yaml)"
                f"{self._said()}"
            ) from None
        self._kill()
        self._reader.join(timeout=10)
        for line in self._lines:
            log.info(f"{what}: {line}")
        if self._dropped:
            log.warning(f"{what}: {self._dropped} further lines of output were dropped")
        if not result.is_file():
            how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
            raise ComponentError(f"{what} {how} before it gave a result{self._said()}")
        if result.stat().st_size > _RESULT_LIMIT:
            raise ComponentError(f"{what} gave a result of {result.stat().st_size} bytes, which is too much")
        told = json.loads(result.read_bytes())
        if "error" in told:
            raise TaskFailedError(what, ChildFailure(**told["error"]))
        return told["value"]

    def end(self) -> None:
        """Kill whatever still runs and remove the work folder."""
        self._kill()
        with contextlib.suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        self.process.wait()
        shutil.rmtree(self.work, ignore_errors=True)

    def _send(self, value: object) -> None:
        assert self.process.stdin is not None
        # A child that died early has said why on its output; waiting for it tells.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(value).encode() + b"\n")
            self.process.stdin.flush()

    def _read(self, stream: IO[bytes]) -> None:
        while chunk := stream.readline(_MAX_LINE):
            line = chunk.decode("utf-8", errors="replace").rstrip()
            self._tail.append(line)
            if len(self._lines) < _MAX_LINES:
                self._lines.append(line)
            else:
                self._dropped += 1

    def _said(self) -> str:
        self._reader.join(timeout=5)
        return "; its last output:\n" + "\n".join(self._tail) if self._tail else "; it printed nothing"

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
