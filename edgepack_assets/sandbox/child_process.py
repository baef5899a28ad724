"""One isolated child process, which forks a process for each job, and the work folder that both processes share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import ComponentError, EnvironmentBuildError
from edgepack_assets.filesystem.atomic_files import READ_ONLY, disk_errors, link_or_copy
from edgepack_assets.filesystem.temp_folders import Scratch, remove_all
from edgepack_assets.sandbox.cgroup import new_group
from edgepack_assets.sandbox.child_death import death
from edgepack_assets.sandbox.child_output import ChildOutput
from edgepack_assets.sandbox.isolation import Isolation, SandboxRoot, python_folders
from edgepack_assets.sandbox.jobs import SandboxJob
from edgepack_assets.sandbox.resource_usage import Consumption, descendants, process_ids
from edgepack_assets.sandbox.seccomp import refusing_filter

_CHILD, *_BESIDE_CHILD = (
    Path(__file__).with_name(name) for name in ("child_main.py", "child_limits.py", "value_types.py", "progress.py")
)
_LOOK_EVERY = 0.02
_MEASURE_EVERY = 0.5
_KILL_FOR = 10.0
_MOST_PROCESSES = 256
_MOST_DESCRIPTORS = 4096
"""Of each process. The kernel's memory for what they stand for is not counted."""
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg",
    # One thread: sums come out the same every time, and no thread stands in the way of a fork.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""All that a child knows of this process's environment, with HOME and TMPDIR in its work folder."""
_GIB = 1 << 30
LARGE = 8 << 20
"""Bytes of a file that is worth not to be copied."""
_GET_FLAGS = 0x80086601


@dataclass(frozen=True)
class JobFolder:
    """A job's folder: `home` with what was put in for it, `result` and `outputs` that it is to write."""

    home: Path
    result: Path
    outputs: Mapping[str, Path]
    file: Path


class ChildProcess:
    """A running child. `identity` is the environment and the modules that it was started for."""

    def __init__(
        self, environment: Environment, child_imports: tuple[str, ...], settings: RuntimeSettings, isolation: Isolation
    ) -> None:
        self.identity = identity_of(environment, child_imports)
        self._python = environment.python
        self._settings, self._isolation = settings, isolation
        self._scratch = Scratch()
        readable = [environment.folder, *settings.readable_folders, _CHILD, *_BESIDE_CHILD]
        try:
            root = SandboxRoot(self._scratch.path, [*python_folders(environment.python), *readable])
            self.work = root.work
            for folder in (root.work, root.mount_point):
                folder.mkdir(mode=0o700)
            isolation.give_to_child(root.work)
            self._flags = _flags(root.work)
            self._start(root)
        except (OSError, subprocess.SubprocessError) as error:
            self._scratch.remove()
            reason = error.strerror if isinstance(error, OSError) else None
            raise EnvironmentBuildError(
                f"{environment.python} cannot be started ({reason or error}): delete {environment.folder} and run "
                "this again; it is built anew"
            ) from error
        self._stdout_is_open = True
        self._jobs = 0
        self._is_spent = False
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)
        self._poll.register(self._status, select.POLLIN)
        self._send(child_imports)

    def _start(self, root: SandboxRoot) -> None:
        self._status, status = os.pipe()
        self._group = new_group(int(self._settings.memory_limit * _GIB))
        limits = {
            "isolated": self._isolation.backend != "none",
            "memory": int(self._settings.memory_limit * _GIB),
            "file": int(self._settings.disk_limit * _GIB),
            "processes": _most_processes(self._isolation),
            "descriptors": _MOST_DESCRIPTORS,
            "filter": refusing_filter(),
        }
        command = [str(self._python), "-I", "-B", str(_CHILD), str(status), json.dumps(limits)]
        line = self._isolation.command(root, command)
        variables = {**_ENVIRONMENT, "HOME": str(self.work), "TMPDIR": str(self.work)}
        try:
            self.process = subprocess.Popen(
                self._group.command(line) if self._group else line, cwd=self.work, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, bufsize=0,
                pass_fds=(status,), env=variables,
            )  # fmt: skip
        except BaseException:
            os.close(self._status)
            if self._group:
                self._group.remove()
            raise
        finally:
            os.close(status)
        assert self.process.stdin is not None and self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self._stdout.fileno(), False)
        os.set_blocking(self._status, False)

    def has_ended(self) -> bool:
        """Whether the process is over, or takes no more jobs. It stays a zombie, so that its number, and its group's,
        is nobody else's."""
        return self._is_spent or self._exit_code() is not None

    def _exit_code(self) -> int | None:
        if self.process.returncode is not None:
            return self.process.returncode
        try:
            ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return self.process.wait()  # somebody in this process waits for every child there is
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    @contextlib.contextmanager
    def job(self, job: SandboxJob, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> Iterator[JobFolder]:
        """Lay out a job: its `folder`, its `file` and the inputs are copied in, with child_tasks.py also the modules
        child_*.py beside it. All of it is removed afterwards."""
        self._jobs += 1
        home = self.work / str(self._jobs)
        given, written = home / "in", home / "out"
        message = job.as_message()
        file = self.work / "job.json"
        with disk_errors(home):
            for folder in (home, given, written):
                folder.mkdir()
            for name in ("folder", "file"):
                if name in message:
                    source = message[name]
                    beside = source.parent.glob("child_*.py") if source.name == "child_tasks.py" else ()
                    message[name] = str(self._give(source, given / name / source.name, sorted({*beside} - {source})))
            paths = {name: str(self._give(path, given / name / path.name)) for name, path in inputs.items()}
            laid_out = JobFolder(
                home, home / "result.json", {name: written / path.name for name, path in outputs.items()}, file
            )
            paths |= {name: str(path) for name, path in laid_out.outputs.items()}
            # A file: a pipe takes 64 KiB and then blocks, and who reads its other end may be busy for ever.
            message |= {"home": str(home), "result": str(laid_out.result), "paths": paths}
            file.write_text(json.dumps(message), encoding="utf-8")
            for folder in (home, given, written, file):
                self._isolation.give_to_child(folder)
        try:
            yield laid_out
        finally:
            with disk_errors(self.work, "cleared"), contextlib.suppress(FileNotFoundError):
                self._clear()

    def _clear(self) -> None:
        """Leave the work folder as it was before the job."""
        self._isolation.give_to_child(self.work)
        for name in os.listxattr(self.work):
            if name.startswith(("user.", "system.posix_acl")):
                os.removexattr(self.work, name)
        for entry in list(self.work.iterdir()):
            remove_all(entry)
        self._is_spent = self._is_spent or _flags(self.work) != self._flags

    def _give(self, source: Path, copy: Path, beside: Sequence[Path] = ()) -> Path:
        """A copy that the child owns and may change. `beside`: files that go with a file."""
        copy.parent.mkdir()
        self._isolation.give_to_child(copy.parent)
        if not source.is_dir():
            for file in (source, *beside):
                self._give_file(file, copy.with_name(file.name))
            return copy
        shutil.copytree(source, copy, copy_function=self._give_file)
        self._isolation.give_to_child(copy)
        for path, folders, _ in os.walk(copy):
            for name in folders:
                self._isolation.give_to_child(Path(path, name))
        return copy

    def _give_file(self, source: str | Path, copy: str | Path) -> None:
        """A large file that nobody may write to gets a second name, if the child is another user: it can read it, or
        remove its own name of it. All others are copied."""
        source, copy = Path(source), Path(copy)
        status = source.stat()
        is_safe = self._isolation.user is not None and status.st_uid == os.geteuid() != self._isolation.user
        if is_safe and stat.S_IMODE(status.st_mode) == READ_ONLY and status.st_size >= LARGE:
            link_or_copy(source, copy)
            if copy.samefile(source):
                return
        else:
            shutil.copyfile(source, copy)
        self._isolation.give_to_child(copy)

    def do(self, subject: str, job: JobFolder, log: Any) -> None:
        """Send a job and wait until it has written its result. Raises ComponentError if it took too long or too
        much of the disk, or ended without one; ChildKilledError, a TransientError, if it was killed."""
        output = ChildOutput(subject, log, self.work)
        self._send(str(job.file))
        code, excess = self._follow(output, time.monotonic() + self._settings.time_limit)
        if code is None or self.has_ended():
            self.kill(log)
        elif self._isolation.backend == "none":
            self._end_strays(log)
        self._read(output, at_most=64)
        output.log_lines(everything=True)
        if code is None:
            raise ComponentError(f"{subject} was stopped: {excess}{output.last_words()}")
        if self._group and self._group.is_exceeded():
            raise ComponentError(
                f"{subject} was stopped by the kernel: it took more than {self._settings.memory_limit:g} GiB of memory "
                f"(runtime.memory_limit in edgepack.yaml){output.last_words()}"
            )
        if not os.path.lexists(job.result):
            raise death(subject, code, output.last_words())

    def end(self, log: Any) -> None:
        """Kill whatever still runs and remove the work folder."""
        self.kill(log)
        if self._group:
            self._group.remove()
        self._stdin.close()
        self._stdout.close()
        os.close(self._status)
        try:
            self._scratch.remove()
        except OSError as error:
            log.warning(f"the work folder {self.work} cannot be removed: {error}")

    def _send(self, value: object) -> None:
        # A child that died early has said why on its output; waiting for it tells.
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(json.dumps(value).encode() + b"\n")

    def _follow(self, output: ChildOutput, deadline: float) -> tuple[int | None, str]:
        """Pass on what the job prints until it has ended: its exit status, or None and which limit it ran into."""
        pause = 0.001
        measure = time.monotonic() + _MEASURE_EVERY
        consumption = Consumption(self.work, self._settings)
        while True:
            code = self._job_status()
            now = time.monotonic()
            if code is not None:
                return code, ""
            if now >= deadline:
                return None, (
                    f"it ran longer than {self._settings.time_limit:g} s (runtime.time_limit in edgepack.yaml)"
                )
            if now >= measure:
                too_much = consumption.excess(self._job_processes)
                if too_much:
                    return None, too_much
                measure = time.monotonic() + _MEASURE_EVERY
            if self._stdout_is_open:
                # not longer: a process that the job left behind may hold its output open
                self._poll.poll(_LOOK_EVERY * 1000)
                self._read(output, at_most=16)
            else:
                time.sleep(pause)
                pause = min(pause * 2, _LOOK_EVERY)
            output.log_lines()

    def _job_processes(self) -> list[int]:
        below = descendants(self.process.pid)
        # The child itself is this process's own child, or that of the one that built its sandbox.
        return below if self._isolation.backend == "none" else below[1:]

    def _job_status(self) -> int | None:
        """The exit code of the job as the child reported it, or of the child itself; None while the job runs."""
        of_child = self._exit_code()  # first: what it has written until then is read
        answer = b""
        with contextlib.suppress(BlockingIOError):
            answer = os.read(self._status, 64)
        if answer:
            code, again = answer.split()
            self._is_spent = not int(again)
            return int(code)
        return of_child

    def _read(self, output: ChildOutput, at_most: int) -> None:
        for _ in range(at_most):
            if not self._stdout_is_open:
                return
            try:
                chunk = os.read(self._stdout.fileno(), 1 << 16)
            except BlockingIOError:
                return
            self._stdout_is_open = bool(chunk)
            output.add(chunk)

    def kill(self, log: Any) -> None:
        """End the process, its group, its forks, and what has left their groups."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        if self._isolation.backend == "none":
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


def identity_of(environment: Environment, child_imports: tuple[str, ...]) -> tuple[object, ...]:
    """What a child that has imported those modules can stand for. An environment that was built anew in the same place
    is another one."""
    try:
        folder = environment.folder.stat()
    except FileNotFoundError:
        return environment.python, child_imports
    return environment.python, child_imports, folder.st_dev, folder.st_ino, folder.st_ctime_ns


def _flags(folder: Path) -> bytes:
    """What ioctl_iflags(2) says of a folder: that writing to it is synchronous, and the like. Its owner may set it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))
    except OSError:
        return b""  # the file system has none
    finally:
        os.close(descriptor)


def _most_processes(isolation: Isolation) -> int | None:
    """The limit on processes. The kernel counts a user's, so that of a person counts what else that person runs
    (before Linux 5.14 even in a namespace), and root has none."""
    if isolation.user is not None:
        return _MOST_PROCESSES
    if isolation.backend == "none" and os.geteuid() == 0:
        return None
    running = 0
    for pid in process_ids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}").stat().st_uid == os.getuid():
                running += len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
    return running + _MOST_PROCESSES


def _processes_of(home: Path, other_than: int) -> list[int]:
    """Processes that were started with HOME there or below it, as far as this user may look."""
    wanted = (f"HOME={home}\0".encode(), f"HOME={home}/".encode())
    processes = []
    for pid in process_ids():
        try:
            variables = b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
            if any(b"\0" + one in variables for one in wanted) and pid != other_than:
                processes.append(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is somebody else's
    return processes
