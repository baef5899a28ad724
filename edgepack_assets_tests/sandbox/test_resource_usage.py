"""What a job takes is found wherever it lies: one file in one process that nothing shuts in, looked at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.sandbox import child_process, escape_attempts, resource_usage, self_test
from edgepack_assets.sandbox.resource_usage import Consumption

SIZE = 4 << 20
SETTINGS = RuntimeSettings(disk_limit=1 / 1024, memory_limit=1.0)
START = "import ctypes, mmap, os, threading, time\nlibc = ctypes.CDLL(None)\ndone = lambda: print('done', flush=True)\n"
BODIES = {
    "named": "open('file', 'wb').write(bytes(SIZE)); done()",
    "removed and open": "f = open('file', 'wb', 0); os.unlink('file'); f.write(bytes(SIZE)); done()",
    "removed and mapped": "f = os.open('file', 66); os.write(f, bytes(SIZE)); os.unlink('file')\n"
    "libc.mmap.restype = ctypes.c_void_p; libc.mmap(None, 4096, 3, 1, f, 0); os.close(f); done()",
    "open in a thread with a list of its own": "def go():\n"
    "    assert libc.unshare(0x400) == 0\n"
    "    f = open('file', 'wb', 0); os.unlink('file'); f.write(bytes(SIZE)); done(); time.sleep(600)\n"
    "threading.Thread(target=go).start()",
    "open in a process without its first thread": "def go():\n"
    "    f = open('file', 'wb', 0); os.unlink('file'); f.write(bytes(SIZE)); done(); time.sleep(600)\n"
    "threading.Thread(target=go).start(); libc.syscall(93 if os.uname().machine == 'aarch64' else 60, 0)",
}

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a process with that body in `tmp_path`, and wait until it says that it is done."""
    processes = []

    def starting(body: str) -> subprocess.Popen[str]:
        script = f"{START}SIZE = {SIZE}\n{body}\ntime.sleep(600)\n"
        process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        return process

    yield starting
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("where", BODIES)
def test_a_file_is_found_wherever_it_is(start: Start, tmp_path: Path, where: str) -> None:
    watching = Consumption(tmp_path, SETTINGS)
    if where == "removed and mapped" and os.geteuid() != 0:
        pytest.skip("its size is shown to root alone")
    job = start(BODIES[where])
    assert watching.excess(lambda: [job.pid]).startswith("it wrote more than")
    assert watching.excess(list) == ("it wrote more than 0.000976562 GiB (runtime.disk_limit in edgepack.yaml)"
                                     if where == "named" else "")  # fmt: skip


def test_where_a_size_is_not_shown_what_is_missing_on_the_disk_counts(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [1 << 40]
    monkeypatch.setattr(resource_usage, "_free", lambda folder: free[0])
    stat = os.stat

    def refuse(path: Any, **how: Any) -> os.stat_result:
        if "map_files" in str(path):
            raise PermissionError
        return stat(path, **how)

    monkeypatch.setattr("os.stat", refuse)
    job = start(BODIES["removed and mapped"])
    watching = Consumption(tmp_path, SETTINGS)
    assert watching.excess(lambda: [job.pid]) == ""
    free[0] -= SIZE
    assert watching.excess(lambda: [job.pid]).startswith("it wrote more than")


def test_files_that_move_past_a_look_are_found(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code is told by the kernel which of its folders somebody reads. Here it moves its file whenever it runs."""
    job = start("done()")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "large").write_bytes(bytes(SIZE))
    walk = os.walk

    def state() -> str:
        return Path(f"/proc/{job.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def walk_and_move(*given: Any, **how: Any) -> Iterator[Any]:
        for found in walk(*given, **how):
            found[1].sort()
            yield found
            if found[0].endswith("/a") and state() != "T":
                (tmp_path / "b" / "large").rename(tmp_path / "a" / "large")
                moved.append("there")

    moved: list[str] = []
    free = [1 << 40]
    monkeypatch.setattr(resource_usage, "_free", lambda folder: free[0])
    monkeypatch.setattr("os.walk", walk_and_move)
    watching = Consumption(tmp_path, SETTINGS)
    assert watching.excess(lambda: [job.pid]) == ""
    (tmp_path / "a" / "large").rename(tmp_path / "b" / "large")
    free[0] -= SIZE
    assert watching.excess(lambda: [job.pid]).startswith("it wrote more than")
    assert moved == ["there", "there"]
    assert state() != "T"


KERNELS = {
    "mappings": "libc.mmap.restype = ctypes.c_void_p\n"
    "for n in range(20_000): libc.mmap(None, ctypes.c_size_t(4096), n % 2, 0x22, -1, ctypes.c_size_t(0))\ndone()",
    "descriptors that are watched": "import select\n"
    "held = [(os.eventfd(0), select.epoll()) for _ in range(160)]\n"
    "[each.register(one, 0) for one, _ in held for _, each in held]; done()",
}


@pytest.mark.parametrize("what", KERNELS)
def test_what_the_kernel_needs_for_a_job_counts_as_memory(start: Start, tmp_path: Path, what: str) -> None:
    job = start(KERNELS[what])
    settings = SETTINGS.model_copy(update={"disk_limit": 1.0})
    own = sum(int(line.split()[1]) << 10 for line in Path(f"/proc/{job.pid}/status").read_text().splitlines()
              if line.startswith(resource_usage._OWN))  # fmt: skip
    more = settings.model_copy(update={"memory_limit": (own + (4 << 20)) / (1 << 30)})
    assert Consumption(tmp_path, more).excess(lambda: [job.pid]).startswith("it took more than")
    enough = settings.model_copy(update={"memory_limit": (own + (64 << 20)) / (1 << 30)})
    assert Consumption(tmp_path, enough).excess(lambda: [job.pid]) == ""


@pytest.mark.sandbox
def test_a_process_that_ends_while_its_sockets_are_counted_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network is still there, and the file that counts sockets is empty already."""
    command = ["unshare", "--map-root-user", "--net", "sh", "-c", "echo ready; exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            read_text, read = Path.read_text, []

            def read_as_it_ends(path: Path, **how: Any) -> str:
                if path.name == "sockstat":
                    read.append(path)
                    return ""
                return read_text(path, **how)

            monkeypatch.setattr(Path, "read_text", read_as_it_ends)
            assert Consumption(tmp_path, SETTINGS).excess(lambda: [process.pid]) == ""
            assert read
        finally:
            process.kill()


def test_a_process_that_ends_while_it_is_looked_for_is_none(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are still listed, and give ESRCH."""
    process = start(BODIES["named"])
    place = f"/proc/{process.pid}/"

    def ended(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any, *arguments: Any, **named: Any) -> Any:
            if str(path).startswith(place):
                raise ProcessLookupError(3, "No such process", str(path))
            return call(path, *arguments, **named)

        return called

    monkeypatch.setattr(os, "stat", ended(os.stat))
    monkeypatch.setattr(Path, "read_bytes", ended(Path.read_bytes))
    monkeypatch.setattr(Path, "read_text", ended(Path.read_text))
    assert process.pid in resource_usage.process_ids()
    assert process.pid not in resource_usage.descendants(os.getpid())
    assert process.pid not in child_process._processes_of(Path(os.environ["HOME"]), other_than=0)
    assert process.pid not in {pid for pid, _ in self_test._command_lines()}
    assert escape_attempts.read_environments({"canary": "what no environment holds"}) is None
