"""Each backend isolates model code. Where none works, that is reported, or nothing runs."""

from __future__ import annotations

import errno
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import ComponentError, IsolationError
from edgepack_assets.sandbox import isolation as isolation_module
from edgepack_assets.sandbox import seccomp
from edgepack_assets.sandbox.isolation import Backend, isolation_for, python_folders
from edgepack_assets.sandbox.jobs import CallJob
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.sandbox.self_test import try_protections

ISOLATING: list[Backend] = ["bubblewrap", "unshare"]


@pytest.fixture(params=ISOLATING)
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param


@pytest.fixture
def nothing_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine with neither bubblewrap nor unshare."""
    isolation_module._why_not.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    yield
    isolation_module._why_not.cache_clear()


def test_every_protection_holds(backend: Backend) -> None:
    tried = try_protections(RuntimeSettings(), [backend])
    assert tried.backend == backend
    assert [part for part in tried.rows if not part.passed] == []
    assert tried.missing == ()
    assert len(tried.rows) == 27
    found = {part.name: part.found for part in tried.rows}
    assert found["runtime.memory_limit: memory of one process"] == "enforced by the kernel"
    assert found["runtime.disk_limit: many files"].startswith("sampled twice a second")


def test_every_protection_holds_for_an_ordinary_user(backend: Backend, ordinary_python: list[str]) -> None:
    """Who is not root may look at less, and so at less of what a job takes."""
    done = subprocess.run([*ordinary_python, "-c", TRYING, backend], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{backend} () []"


@pytest.fixture
def ordinary_python(tmp_path: Path) -> Iterator[list[str]]:
    """A command that starts Python, with this project in reach, as a user that is nobody else."""
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user already: the other tests show it")
    user = "64999"
    packages = [str(Path(__file__).parents[2]), *filter(lambda path: path.endswith("site-packages"), sys.path)]
    with tempfile.TemporaryDirectory(dir="/tmp") as home:  # no other user passes pytest's
        Path(home).chmod(0o777)
        python = f"/usr/bin/python3.{sys.version_info.minor}"
        command = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "env", f"HOME={home}",
                   f"TMPDIR={home}", f"PYTHONPATH={':'.join(packages)}", python]  # fmt: skip
        tried = subprocess.run(
            [*command, "-c", "import edgepack_assets.config.schema"], capture_output=True, text=True, check=False
        )
        if tried.returncode != 0:
            pytest.skip(f"another user cannot run this project here: {tried.stderr.strip()[-200:]}")
        yield command


@pytest.mark.sandbox
def test_without_it_the_trial_says_what_does_not_hold() -> None:
    """The trial can fail: where nothing shuts the code in it gains what it goes for."""
    held = {part.name: part.passed for part in try_protections(RuntimeSettings(), ["none"]).rows}
    gained = [name for name, holds in held.items() if not holds]
    for name in ("another process's environment", "files of this machine", "writing outside of the work folder",
                 "the network", "outliving its job", "changing the process that forks the jobs",
                 "outliving others when memory runs out", "runtime.memory_limit: what sockets hold"):  # fmt: skip
        assert name in gained
    for name in ("runtime.memory_limit: memory of one process", "runtime.memory_limit: memory of many processes",
                 "runtime.disk_limit: one file", "runtime.disk_limit: many files",
                 "time beyond runtime.time_limit"):  # fmt: skip
        assert name not in gained


def test_required_refuses_where_nothing_works(nothing_works: None) -> None:
    with pytest.raises(IsolationError, match=r"cannot be isolated .* runtime.isolation is `required`: install bubblew"):
        isolation_for("required")
    assert isolation_for("best_effort").backend == "none"


def test_required_runs_where_something_works(backend: Backend) -> None:
    assert isolation_for("required", [backend, "none"]).backend == backend


def test_best_effort_says_loudly_what_does_not_hold(
    nothing_works: None, environment: Environment, plain_settings: RuntimeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with Sandbox(plain_settings) as sandbox:
        sandbox.prepare(environment, [])
        sandbox.prepare(environment, ["json"])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "model code is NOT isolated on this machine" in caplog.text


# Without a filter of system calls ----------------------------------------------------------------------


UNFILTERED = """
import ctypes, os, struct, sys
# What a kernel without it, or a container's profile, answers to seccomp(2), from here on and for all that is started.
do = lambda what, value, other=0: struct.pack("HBBI", what, 0, other, value)
steps = do(0x20, 0) + do(0x15, int(sys.argv[2]), 1) + do(6, 0x50000 | int(sys.argv[1])) + do(6, 0x7FFF0000)
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))
libc = ctypes.CDLL(None, use_errno=True)
if os.geteuid() != 0:
    libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, ctypes.byref(Program(4, steps)), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[3:]])
"""
SECCOMP = {"x86_64": 317, "aarch64": 277}
TRYING = """
import logging, sys
from edgepack_assets.errors import IsolationError
from edgepack_assets.sandbox.isolation import isolation_for
from edgepack_assets.sandbox.self_test import try_protections
from edgepack_assets.config.schema import RuntimeSettings
logging.basicConfig(format="%(message)s", stream=sys.stdout)
try:
    print("required:", isolation_for("required", [sys.argv[1]]).backend)
except IsolationError as error:
    print("required refuses:", error)
print("best_effort:", isolation_for("best_effort", [sys.argv[1]]).words)
if sys.argv[2:] == ["tell"]:
    sys.exit()
tried = try_protections(RuntimeSettings(), [sys.argv[1]])
print(tried.backend, tried.missing, sorted(part.name for part in tried.rows if not part.passed))
"""


@pytest.mark.skipif(os.uname().machine not in SECCOMP, reason="the number of seccomp(2) is not known here")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_where_no_filter_is_taken_required_refuses_and_best_effort_says_so(backend: Backend, code: int) -> None:
    # What is lost does not depend on the kernel's answer: it is tried, in about 10 s, after one of them.
    is_tried = code == errno.ENOSYS
    told = "try" if is_tried else "tell"
    done = subprocess.run(
        [sys.executable, "-c", UNFILTERED, str(code), str(SECCOMP[os.uname().machine]), TRYING, backend, told],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    refused, best, *rest = done.stdout.splitlines()
    lost = "the kernel refuses it the system calls that namespaces do not isolate"
    assert re.match(
        rf"required refuses: {backend} can isolate model code on this machine, but the kernel takes no filter of "
        rf"system calls \(seccomp: {os.strerror(code)}\), and runtime.isolation is `required`: allow seccomp", refused,
    )  # fmt: skip
    assert best == f"best_effort: {backend}, but not: {lost}"
    if not is_tried:
        return
    warned, *_, found = rest
    assert warned.startswith(f"model code is isolated by {backend}, but on this machine it does not hold that {lost}")
    assert found.startswith(f"{backend} ('{lost}',) [")
    for gained in ("system calls that namespaces do not isolate", "a file in memory on its way through a socket",
                   "removed files on their way through a socket"):  # fmt: skip
        assert gained in found
    for holds in ("files of this machine", "the network", "outliving its job", "being root"):
        assert holds not in found


def test_a_kernel_that_knows_no_flags_still_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """gVisor, and Linux before 4.17."""
    assert seccomp.why_unfiltered() is None
    monkeypatch.setattr(seccomp, "_FLAGS", (1 << 30, 0))
    assert seccomp.why_unfiltered() is None
    told = seccomp.refusing_filter()
    assert told is not None
    assert told["flags"] == 0


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the children's folders are made."""
    (tmp_path / "work").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "work"))
    return tmp_path / "work"


def test_an_interpreter_in_a_home_shows_no_more_of_it_than_its_library(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("bin", "lib/python3.11", ".azure", "models"):
        (home / name).mkdir(parents=True)
    python = home / "bin" / "python3.11"
    python.write_text(f"#!/bin/sh\necho {home}\necho {home}\n")
    python.chmod(0o755)
    assert set(python_folders(python)) == {python, home / "bin", home / "lib"}


BODIES = {
    "many files": "for n in range(10**9): pathlib.Path(str(n)).write_bytes(b'x' * 100_000)",
    "empty files": "for n in range(10**9): pathlib.Path(str(n)).touch()",
    "folders without end": "for n in range(10**9): os.mkdir('d' * 200); os.chdir('d' * 200)",
    "files far down": "for n in range(60): os.mkdir('d' * 200); os.chdir('d' * 200)\n    write()",
    "files without a name": "write(os.unlink)",
    "files behind a folder without rights": "os.makedirs('a/b'); os.chdir('a/b'); os.chmod('..', 0); write()",
    "memory of many processes": "[os.fork() for n in range(4)]; b = b'x' * (200 << 20); time.sleep(600)",
    "the work folder without rights": "os.chmod(pathlib.Path.home().parent, 0)",
    "attributes": "os.setxattr(pathlib.Path.home().parent, 'user.left', b'x')",
    "flags of the work folder": "set_flags(pathlib.Path.home().parent, 0x48)",
    "shared memory without rights": "change('/dev/shm')",
    "a folder without rights": "os.makedirs('a/b/c'); os.chmod('a/b', 0); os.chmod('a', 0)",
    "shared memory": "f = open('/dev/shm/x', 'wb'); [f.write(bytes(1 << 20)) for n in range(100)]",
    "fork bomb": "\nwhile True:\n        try: os.fork()\n        except OSError: pass",
    "daemons": "[subprocess.run(['sh', '-c', 'setsid sleep 600 & true']) for n in range(100)] and None",
    "closed streams": "[os.close(n) for n in range(3)]; time.sleep(600)",
    "output without end": "\nwhile True: os.write(1, b'x' * (1 << 20))",
}
STOPPED = {
    "many files", "empty files", "folders without end", "files far down", "files without a name",
    "files behind a folder without rights", "memory of many processes", "the work folder without rights",
    "shared memory", "fork bomb", "closed streams", "output without end",
}  # fmt: skip
PROLOGUE = """
import fcntl, os, pathlib, struct, subprocess, time
def change(folder):
    try: os.chmod(folder, 0o500)
    except PermissionError: pass  # it is root's
def set_flags(folder, flags):
    descriptor = os.open(folder, os.O_RDONLY)
    try: fcntl.ioctl(descriptor, 0x40086602, struct.pack('l', flags | flags_of(folder)))
    except OSError: pass  # the file system has none
def flags_of(folder):
    return struct.unpack('l', fcntl.ioctl(os.open(folder, os.O_RDONLY), 0x80086601, bytes(8)))[0]
def write(*afterwards):
    files = []
    for n in range(10**9):
        files.append(open(str(n), 'wb'))
        for do in afterwards: do(str(n))
        files[-1].write(bytes(10 << 20))
        files[-1].flush()
def go(arguments):
"""


@pytest.mark.parametrize("name", BODIES)
def test_the_next_job_works_after_any_harm(
    backend: Backend, name: str, environment: Environment, plain_settings: RuntimeSettings, work: Path
) -> None:
    tmp_path = work.parent
    (tmp_path / "folder").mkdir()
    harm, peace = tmp_path / "harm.py", tmp_path / "peace.py"
    harm.write_text(f"{PROLOGUE}    {BODIES[name]}\n")
    peace.write_text(
        "import fcntl, os\n"
        "def go(arguments):\n"
        "    open('/dev/shm/mine', 'w').close()\n"
        "    os.unlink('/dev/shm/mine')\n"
        "    work = os.open(os.path.dirname(os.environ['HOME']), os.O_RDONLY)\n"
        "    try: flags = fcntl.ioctl(work, 0x80086601, bytes(8))\n"
        "    except OSError: flags = b''\n"
        "    assert not flags or not flags[0] & 0x48\n"
        "    pid = os.fork()\n"
        "    if pid == 0: os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
        "    left = [*os.listdir('/dev/shm'), *os.listdir(), *os.listxattr(os.path.dirname(os.environ['HOME']))]\n"
        "    return [left, sum(p.isdigit() for p in os.listdir('/proc'))]\n"
    )
    settings = plain_settings.model_copy(update={"disk_limit": 0.2})
    harm_job, peace_job = (CallJob(tmp_path / "folder", file, "go", None) for file in (harm, peace))
    with Sandbox(settings, backends=[backend]) as sandbox:
        if name in STOPPED:
            sandbox._settings = settings.model_copy(update={"time_limit": 3.0})
            with pytest.raises(ComponentError):
                sandbox.run("the harm", environment, [], harm_job)
            sandbox._settings = settings  # what works has time, however busy the machine is
        else:
            assert sandbox.run("the harm", environment, [], harm_job) is None
        # only the first process of the room and the job itself are there
        assert sandbox.run("the peace", environment, [], peace_job) == [[], 2]
    assert list(work.iterdir()) == []


def test_system_calls_that_reach_past_the_room_are_refused(
    backend: Backend, environment: Environment, plain_settings: RuntimeSettings, tmp_path: Path
) -> None:
    """Those that need no right, by what C code would call; what a library may need still works."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "calls.py").write_text(
        "import ctypes, errno, os, resource, socket, threading\n"
        "def go(arguments):\n"
        "    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    libc.syscall.restype = ctypes.c_long\n"
        "    def call(*given):\n"
        "        ctypes.set_errno(0)\n"
        "        return errno.errorcode[ctypes.get_errno()] if libc.syscall(*given) < 0 else 'done'\n"
        "    refused = {name: call(*given) for name, given in arguments['calls'].items()}\n"
        "    try: resource.prlimit(1, resource.RLIMIT_AS, (1, 1))\n"
        "    except PermissionError: refused['prlimit'] = 'EPERM'\n"
        "    refused['dumpable'] = libc.prctl(4, 0, 0, 0, 0)\n"
        "    refused['user namespace'] = libc.unshare(0x10000000)\n"
        "    thread = threading.Thread(target=socket.socketpair)\n"
        "    thread.start(); thread.join()\n"
        "    resource.setrlimit(resource.RLIMIT_CPU, (600, 600))\n"
        "    socket.socket(socket.AF_INET).close()\n"
        "    return refused\n"
    )
    x86 = os.uname().machine == "x86_64"
    clone, clone3, keyctl, shmget, sockets = (56, 435, 250, 29, 41) if x86 else (220, 435, 219, 194, 198)
    calls = {"clone": [clone, 0x10000000 | 17, 0, 0, 0, 0], "clone3": [clone3, 0, 0], "keyctl": [keyctl, 0, -3, 1],
             "shmget": [shmget, 0, 4096, 0o1600], "crypto": [sockets, 38, 5, 0]}  # fmt: skip
    job = CallJob(tmp_path / "folder", tmp_path / "calls.py", "go", {"calls": calls})
    with Sandbox(plain_settings, backends=[backend]) as sandbox:
        assert sandbox.run("the job", environment, [], job) == {
            "clone": "EPERM", "clone3": "ENOSYS", "keyctl": "EPERM", "shmget": "EPERM", "crypto": "EAFNOSUPPORT",
            "prlimit": "EPERM", "dumpable": -1, "user namespace": -1,
        }  # fmt: skip


def test_what_libraries_need_is_not_refused(
    backend: Backend, environment: Environment, plain_settings: RuntimeSettings, tmp_path: Path
) -> None:
    """Processes, pipes, shared memory, locks, event loops, mapped files, copies, threads that set their processor."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "use.py").write_text(
        "import asyncio, ctypes, multiprocessing, os, shutil, socket, threading\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import shared_memory\n"
        "def work(given, taken, lock):\n"
        "    with lock: taken.put(given.recv() + 1)\n"
        "def processes():\n"
        "    here, there = multiprocessing.Pipe()\n"
        "    queue, lock = multiprocessing.Queue(), multiprocessing.Lock()\n"
        "    one = multiprocessing.Process(target=work, args=(there, queue, lock))\n"
        "    one.start(); here.send(1)\n"
        "    return queue.get()\n"
        "def shared():\n"
        "    taken = shared_memory.SharedMemory(create=True, size=1 << 20)\n"
        "    taken.buf[0] = 7\n"
        "    value = taken.buf[0]\n"
        "    taken.close(); taken.unlink()\n"
        "    return value\n"
        "async def loop():\n"
        "    one = await asyncio.create_subprocess_exec('cat', stdin=-1, stdout=-1)\n"
        "    return len((await one.communicate(b'x' * (1 << 20)))[0])\n"
        "def mapped():\n"
        "    import mmap\n"
        "    with open('mapped', 'wb+') as file:\n"
        "        file.truncate(1 << 20)\n"
        "        place = mmap.mmap(file.fileno(), 1 << 20)\n"
        "    place[5] = 7\n"
        "    shutil.copyfile('mapped', 'copy')\n"
        "    return open('copy', 'rb').read()[5]\n"
        "def affinity():\n"
        "    told = []\n"
        "    def set_own():\n"
        "        os.sched_setaffinity(threading.get_native_id(), os.sched_getaffinity(0))\n"
        "        os.setpriority(os.PRIO_PROCESS, 0, os.nice(0) + 1)\n"
        "        told.append('set')\n"
        "    one = threading.Thread(target=set_own)\n"
        "    one.start(); one.join()\n"
        "    return told\n"
        "def go(arguments):\n"
        "    multiprocessing.set_start_method('fork')\n"
        "    with ProcessPoolExecutor(2) as pool: pooled = list(pool.map(abs, [-1, -2]))\n"
        "    return [processes(), pooled, shared(), asyncio.run(loop()), mapped(), affinity()]\n"
    )
    job = CallJob(tmp_path / "folder", tmp_path / "use.py", "go", None)
    with Sandbox(plain_settings, backends=[backend]) as sandbox:
        assert sandbox.run("the job", environment, [], job) == [2, [1, 2], 7, 1 << 20, 7, ["set"]]


def test_a_loaded_model_reaches_nothing_of_this_process(
    backend: Backend, environment: Environment, plain_settings: RuntimeSettings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What a pickle would do: look for secrets wherever this process keeps them."""
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "hush")
    (tmp_path / "folder").mkdir()
    (tmp_path / "edgepack.yaml").write_text("secret: hush")
    (tmp_path / "look.py").write_text(
        "import glob, os, pathlib\n"
        "def go(arguments):\n"
        "    seen = [*os.environ.values(), *os.environ]\n"
        "    for path in [arguments['secret'], *glob.glob('/proc/[0-9]*/environ'),\n"
        "                 *glob.glob('/proc/[0-9]*/cmdline')]:\n"
        "        try: seen.append(pathlib.Path(path).read_bytes().decode(errors='replace'))\n"
        "        except OSError: pass\n"
        "    tops = [pathlib.Path(top) for top in ('/root', '/home') if os.path.isdir(top)]\n"
        "    homes = [str(path) for top in tops for path in top.iterdir()]\n"
        "    return ['hush' in ' '.join(seen), homes]\n"
    )
    job = CallJob(tmp_path / "folder", tmp_path / "look.py", "go", {"secret": str(tmp_path / "edgepack.yaml")})
    with Sandbox(plain_settings, backends=[backend]) as sandbox:
        found, homes = sandbox.run("the job", environment, [], job)
    assert found is False
    # at most the folders in which the interpreter, or the environment, lies
    assert all(str(environment.python.resolve()).startswith(home) or home in str(environment.folder) for home in homes)
