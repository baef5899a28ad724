"""Child processes for code that we don't trust: the component's own environment, an allow-list of environment
variables, a time limit for the whole process group, and results in a format that executes nothing.

A `Sandbox` keeps one child per environment in use, which has imported its heavy libraries, but no model code, and
forks a process for each job: importing scikit-learn takes longer than answering a recording.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import logging
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from edgepack_assets.errors import ComponentError, EnvironmentBuildError
from edgepack_assets.files import disk_errors
from edgepack_assets.runtime.environments import Environment
from edgepack_assets.settings import RuntimeSettings

_CHILD = Path(__file__).with_name("child.py")
_RESULT_LIMIT = 64 << 20
_OUTPUT_LIMIT = 256 << 10
"""Bytes of a child's output that reach the log."""
_TAIL = 16 << 10
_TAIL_LINES = 50
_TELL_EVERY = 1.0
_LOOK_EVERY = 0.02
_KILL_FOR = 10.0
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg",
    # One thread: sums come out the same every time, and no thread stands in the way of a fork.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""All that a child knows of this process's environment, with HOME and TMPDIR in its work folder."""
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class ChildFailure:
    """What a child told of its failure: exception type, message, module name (ImportError), record, traceback."""

    type: str
    message: str
    name: str | None
    record: int | None
    traceback: str


_FAILURE = TypeAdapter(ChildFailure)


class TaskFailedError(ComponentError):
    """Code in the child raised. `failure` has its own words."""

    def __init__(self, what: str, failure: ChildFailure) -> None:
        at = "" if failure.record is None else f" at record {failure.record}"
        super().__init__(f"{what} failed{at}: {failure.message}\n{failure.traceback}")
        self.failure = failure


class Sandbox:
    """Runs jobs in child processes. Use as a context manager, or `close` it: the child is ended then."""

    def __init__(self, settings: RuntimeSettings, log: logging.Logger | None = None) -> None:
        self._settings = settings
        self.log: Any = log or logging.getLogger(__name__)
        self._child: _Child | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.end(self.log)

    def prepare(self, environment: Environment, preload: Iterable[str]) -> None:
        """Start a child that imports `preload` while this process does something else.

        Raises EnvironmentBuildError if the environment's interpreter does not start."""
        wanted = (environment.python, tuple(preload))
        if self._child is None or self._child.identity != wanted or self._child.has_ended():
            self.close()
            self._child = _Child(*wanted)

    def run(self, what: str, environment: Environment, preload: Iterable[str], job: Mapping[str, Any]) -> Any:
        """Do `job` (see child.py; `folder` is its working directory) and return its value.

        `what` names it in errors. Raises TaskFailedError if the code raised, ComponentError if it hung,
        died or returned something that is not JSON. Files that the job wrote elsewhere are to be opened
        through `open_output`.
        """
        self.prepare(environment, preload)
        assert self._child is not None
        try:
            return self._child.do(what, job, self._settings.time_limit, self.log)
        except TaskFailedError:
            raise  # the job told so itself, in good order
        except BaseException:
            self.close()
            raise


@contextlib.contextmanager
def open_output(path: Path, limit: int, what: str) -> Iterator[IO[bytes]]:
    """Open a file that a child has written. Raises ComponentError if it is not there, is a link, a pipe or a
    second name of another file (the child would have us read what it may not), or has more than `limit` bytes."""
    try:
        # a pipe would block, and a link lead elsewhere
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ComponentError(f"{what}: {path.name} cannot be read: {error.strerror or error}") from None
    try:
        told = os.fstat(descriptor)
        if not stat.S_ISREG(told.st_mode) or told.st_nlink != 1:
            raise ComponentError(f"{what}: {path.name} is not a file of its own")
        if told.st_size > limit:
            raise ComponentError(f"{what}: {path.name} has {told.st_size} bytes; at most {limit} are read")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            yield stream
    finally:
        os.close(descriptor)


class _Child:
    """One child process, which forks one for each job, and its work folder."""

    def __init__(self, python: Path, preload: tuple[str, ...]) -> None:
        self.identity = (python, preload)
        with disk_errors(Path(tempfile.gettempdir())):
            self.work = Path(tempfile.mkdtemp(prefix="edgepack-child-"))
        self._status, status = os.pipe()
        try:
            self.process = subprocess.Popen(
                [str(python), "-I", "-B", str(_CHILD), str(status)], cwd=self.work, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, bufsize=0,
                pass_fds=(status,), env={**_ENVIRONMENT, "HOME": str(self.work), "TMPDIR": str(self.work)},
            )  # fmt: skip
        except OSError as error:
            os.close(self._status)
            _remove(self.work)
            raise EnvironmentBuildError(
                f"{python} cannot be started ({error.strerror or error}): delete {python.parent.parent} and run this "
                "again; it is built anew"
            ) from error
        finally:
            os.close(status)
        assert self.process.stdin is not None and self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self._stdout.fileno(), False)
        os.set_blocking(self._status, False)
        self._stdout_is_open = True
        self._jobs = 0
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)
        self._poll.register(self._status, select.POLLIN)
        self._send(preload)

    def has_ended(self) -> bool:
        """Whether the process is over. It stays a zombie, so that its number, and its group's, is nobody else's."""
        if self.process.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True  # somebody in this process waits for every child there is

    def do(self, what: str, job: Mapping[str, Any], time_limit: float, log: Any) -> Any:
        """Send a job, wait, and return what came back. Whatever the job wrote into its home is removed."""
        self._jobs += 1
        home = self.work / str(self._jobs)
        result, told = home / "result.json", self.work / "job.json"
        output = _Output(what, log)
        # A file: a pipe takes 64 KiB and then blocks, and who reads its other end may be busy for ever.
        with disk_errors(told):
            home.mkdir()
            told.write_text(json.dumps({**job, "home": str(home), "result": str(result)}), encoding="utf-8")
        self._send(str(told))
        code = self._follow(output, time.monotonic() + time_limit)
        if code is None or self.has_ended():
            self._kill(log)
        else:
            self._end_strays(log)
        self._read(output, at_most=64)
        output.tell(everything=True)
        if code is None:
            raise ComponentError(
                f"{what} was stopped: it ran longer than {time_limit:g} s (runtime.time_limit in edgepack.yaml)"
                f"{output.last_words()}"
            )
        if not os.path.lexists(result):
            raise ComponentError(f"{what} {_how_it_ended(code)} before it gave a result{output.last_words()}")
        try:
            return _value(what, result)
        finally:
            _remove(home)

    def end(self, log: Any) -> None:
        """Kill whatever still runs and remove the work folder."""
        self._kill(log)
        self._stdin.close()
        self._stdout.close()
        os.close(self._status)
        try:
            _remove(self.work)
        except OSError as error:
            log.warning(f"the work folder {self.work} cannot be removed: {error}")

    def _send(self, value: object) -> None:
        # A child that died early has said why on its output; waiting for it tells.
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(json.dumps(value).encode() + b"\n")

    def _follow(self, output: _Output, deadline: float) -> int | None:
        """Pass on what the job prints until it has ended: its exit status, or None if it has not by the deadline."""
        pause = 0.001
        while True:
            code = self._job_status()
            if code is not None or time.monotonic() >= deadline:
                return code
            if self._stdout_is_open:
                # not longer: a process that the job left behind may hold its output open
                self._poll.poll(_LOOK_EVERY * 1000)
                self._read(output, at_most=16)
            else:
                time.sleep(pause)
                pause = min(pause * 2, _LOOK_EVERY)
            output.tell()

    def _job_status(self) -> int | None:
        """What the child told of its fork, or how the child itself ended; None while the job runs."""
        try:
            told = os.read(self._status, 64)
        except BlockingIOError:
            return None
        if told:
            return int(told)
        return self.process.wait() if self.has_ended() else None

    def _read(self, output: _Output, at_most: int) -> None:
        for _ in range(at_most):
            if not self._stdout_is_open:
                return
            try:
                chunk = os.read(self._stdout.fileno(), 1 << 16)
            except BlockingIOError:
                return
            self._stdout_is_open = bool(chunk)
            output.add(chunk)

    def _kill(self, log: Any) -> None:
        """End the process, its group, its forks, and what has left their groups."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self._end_strays(log)
        self.process.wait()

    def _end_strays(self, log: Any) -> None:
        deadline = time.monotonic() + _KILL_FOR
        # A fork, or a daemon that left its group, has still the environment that the child was started with.
        while left := _processes_of(self.work, other_than=self.process.pid):
            if time.monotonic() > deadline:
                log.warning(f"processes that a child left behind cannot be ended: {left}")
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class _Output:
    """What a child prints: told to the log about once a second, up to a limit; its end is kept for errors."""

    def __init__(self, what: str, log: Any) -> None:
        self._what = what
        self._log = log
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pending = ""
        self._taken = self._dropped = 0
        self._tail = b""
        self._told = time.monotonic()

    def add(self, chunk: bytes) -> None:
        """Take what was read."""
        self._tail = (self._tail + chunk)[-_TAIL:]
        kept = chunk[: max(0, _OUTPUT_LIMIT - self._taken)]
        self._taken += len(kept)
        self._dropped += len(chunk) - len(kept)
        self._pending += self._decoder.decode(kept)

    def tell(self, everything: bool = False) -> None:
        """Log the lines that have come, if it is time; `everything` at the end, with what was not printed."""
        if not everything and time.monotonic() - self._told < _TELL_EVERY:
            return
        self._told = time.monotonic()
        lines, _, self._pending = (self._pending, "", "") if everything else self._pending.rpartition("\n")
        if lines.strip():
            self._log.info(f"{self._what}: {_printable(lines).strip()}")
        if everything and self._dropped:
            self._log.warning(f"{self._what}: {self._dropped} further bytes of output were dropped")

    def last_words(self) -> str:
        """The end of the output, for an error message."""
        lines = _printable(self._tail.decode("utf-8", errors="replace")).splitlines()[-_TAIL_LINES:]
        return "; its last output:\n" + "\n".join(lines) if lines else "; it printed nothing"


def _printable(text: str) -> str:
    """Without what would move a terminal's cursor or cannot be stored."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    hint = ", as the system does when memory runs out," if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code}{hint}"


def _value(what: str, result: Path) -> Any:
    """What a result file says. The child is not trusted to have written it as child.py does."""
    with open_output(result, _RESULT_LIMIT, what) as stream:
        text = stream.read(_RESULT_LIMIT + 1)
    try:
        told = json.loads(text, parse_constant=_refuse_constant)
        if told.keys() == {"value"}:
            return told["value"]
        failure = _FAILURE.validate_python(told["error"])
    except (AttributeError, KeyError, ValueError, RecursionError, ValidationError) as error:
        raise ComponentError(f"{what} gave a result that is not one: {type(error).__name__}: {error!s:.200}") from None
    raise TaskFailedError(
        what,
        ChildFailure(
            type=_printable(failure.type[:200]), message=_printable(failure.message[:10_000]),
            name=failure.name and _printable(failure.name[:200]), record=failure.record,
            traceback=_printable(failure.traceback[-20_000:]),
        ),
    )  # fmt: skip


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _processes_of(home: Path, other_than: int) -> list[int]:
    """Processes that were started with HOME there or below it, as far as this user may look."""
    wanted = (f"HOME={home}\0".encode(), f"HOME={home}/".encode())
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = b"\0" + entry.read_bytes()
            if any(b"\0" + one in variables for one in wanted) and int(entry.parts[-2]) != other_than:
                found.append(int(entry.parts[-2]))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is somebody else's
    return found


def _remove(folder: Path) -> None:
    """Remove a folder in which a child may have taken its rights away from us. Nobody writes to it any more."""
    for path, folders, _ in os.walk(folder):
        for name in folders:
            below = Path(path) / name
            if not below.is_symlink():
                below.chmod(0o700)
    shutil.rmtree(folder)
