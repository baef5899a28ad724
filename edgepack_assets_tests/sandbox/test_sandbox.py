"""Children that misbehave: whatever they do, the caller gets an error in time, and nothing of them is left."""

from __future__ import annotations

import gzip
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import ComponentError, EnvironmentBuildError, TransientError
from edgepack_assets.filesystem.temp_folders import scratch_folder
from edgepack_assets.sandbox.child_death import ChildKilledError
from edgepack_assets.sandbox.isolation import Backend
from edgepack_assets.sandbox.jobs import CallJob, RunJob
from edgepack_assets.sandbox.resource_usage import process_ids
from edgepack_assets.sandbox.sandbox import Sandbox, TaskFailedError
from edgepack_assets.sandbox.untrusted_files import open_output

Call = Callable[..., Any]
PROLOGUE = """
import glob, os, pathlib, signal, subprocess, sys, threading, time
HOME = pathlib.Path(os.environ['HOME'])
RESULT = HOME / 'result.json'

def runs(marker):
    # how many processes that this one can see were started with that argument
    found = 0
    for entry in glob.glob('/proc/[0-9]*/cmdline'):
        try:
            found += marker.encode() in pathlib.Path(entry).read_bytes().split(b'\\0')
        except OSError:
            pass
    return found

def daemon(marker):
    # leave a process behind that has left session, parent and process group
    if os.fork() == 0:
        os.setsid()
        subprocess.Popen(['sleep', marker])
        os._exit(0)
    while not runs(marker):
        time.sleep(0.01)

def go(arguments):
"""
BACKENDS: tuple[Backend, ...] = ("bubblewrap", "unshare", "none")
KILLS = int(os.environ.get("EDGEPACK_TEST_KILLS", "8"))
"""Of the seeded test of kills. A restart takes 0.1 s; a hundred were survived."""
ONE_BACKEND = pytest.mark.parametrize("backend", ["unshare"], indirect=True)
"""For what the child's code or the host does in the same way whatever isolates the child."""


@pytest.fixture(autouse=True)
def work_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the children's work folders are made. After each test none is left."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each way to shut children in, one after the other."""
    return request.param


@pytest.fixture
def sandbox(plain_settings: RuntimeSettings, backend: Backend) -> Iterator[Sandbox]:
    with Sandbox(plain_settings, backends=[backend]) as running:
        yield running


@pytest.fixture
def marker() -> Iterator[str]:
    """Seconds for `sleep`, by which its process is found; none is left after the test."""
    marker = f"600.{uuid.uuid4().int % 10**12:012}"
    yield marker
    assert gone(marker)


@pytest.fixture
def call(sandbox: Sandbox, environment: Environment, tmp_path: Path) -> Call:
    """Run the body of a function in a child and return its value."""

    def calling(body: str, arguments: object = None, *, limit: float | None = None, using: Sandbox = sandbox) -> Any:
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        (folder / "model.txt").write_text("a model")
        (tmp_path / "tasks.py").write_text(PROLOGUE + textwrap.indent(textwrap.dedent(body), "    "))
        if limit is not None:
            using._settings = using._settings.model_copy(update={"time_limit": limit})
        return using.run("the job", environment, [], CallJob(folder, tmp_path / "tasks.py", "go", arguments))

    return calling


def alive(marker: str) -> list[int]:
    """Processes of this machine that were started with that argument."""
    found = []
    for pid in process_ids():
        try:
            if marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def gone(marker: str, within: float = 60.0) -> bool:
    end = time.monotonic() + within
    while alive(marker):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# What comes back ---------------------------------------------------------------------------------------


def test_a_value_comes_back_from_the_folder_of_the_job(call: Call, tmp_path: Path) -> None:
    value = call("return [arguments, os.listdir(), sys.path[0] == os.getcwd()]", {"ä": [1, None, 0.5]})
    assert value == [{"ä": [1, None, 0.5]}, ["model.txt"], True]


def test_a_job_works_on_copies_and_its_outputs_are_moved_out(
    sandbox: Sandbox, environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text(
        "import pathlib\n"
        "def go(arguments):\n"
        "    given, made = pathlib.Path(arguments['given']), pathlib.Path(arguments['made'])\n"
        "    made.write_text(given.read_text() + ' and changed')\n"
        "    given.write_text('spoilt')\n"
        "    pathlib.Path('model.txt').write_text('spoilt')\n"
    )
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    for file in (folder / "model.txt", tmp_path / "given"):
        file.write_text("as it was")
        file.chmod(0o400)
    job = CallJob(folder, tmp_path / "tasks.py", "go", {})
    made = tmp_path / "made"
    sandbox.run("the job", environment, [], job, inputs={"given": tmp_path / "given"}, outputs={"made": made})
    assert made.read_text() == "as it was and changed"
    assert [(tmp_path / "given").read_text(), (folder / "model.txt").read_text()] == ["as it was"] * 2
    with pytest.raises(ComponentError, match="the job: other cannot be read: No such file"):
        sandbox.run("the job", environment, [], job, inputs={"given": tmp_path / "given"},
                    outputs={"made": made, "other": tmp_path / "other"})  # fmt: skip


def test_a_large_read_only_file_is_lent_and_cannot_be_changed(
    sandbox: Sandbox, environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the child is another user it gets the file itself, else a copy. In both cases it cannot change ours."""
    monkeypatch.setattr("edgepack_assets.sandbox.child_process.LARGE", 1000)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, mode in (("lent", 0o444), ("writable", 0o644), ("private", 0o400)):
        (folder / name).write_bytes(b"w" * 1000)
        (folder / name).chmod(mode)
    (folder / "small").write_bytes(b"w" * 999)
    (folder / "small").chmod(0o444)
    (tmp_path / "tasks.py").write_text(
        PROLOGUE
        + """
    found = {}
    for name in ("lent", "writable", "private", "small"):
        file = pathlib.Path(name)
        status = file.stat()
        found[name] = [status.st_ino, file.read_bytes() == b"w" * status.st_size]
        for change in (lambda: file.chmod(0o666), lambda: file.open("r+b").write(b"x"), lambda: os.truncate(file, 3)):
            try:
                change()
            except PermissionError:
                found[name].append("refused")
        file.unlink()
        file.write_bytes(b"its own")
    return found
"""
    )
    found = sandbox.run("the job", environment, [], CallJob(folder, tmp_path / "tasks.py", "go", None))
    for name, (inode, was_read, *refused) in found.items():
        file = folder / name
        assert was_read and set(file.read_bytes()) == {ord("w")}
        is_lent = name == "lent" and sandbox.isolation.user is not None
        assert (inode == file.stat().st_ino) == is_lent, name
        assert refused == (["refused"] * 3 if is_lent else [])
    assert (folder / "lent").stat().st_mode & 0o777 == 0o444


@ONE_BACKEND
def test_a_job_larger_than_a_pipe_arrives(call: Call) -> None:
    assert call("return len(arguments)", "x" * 1_000_000) == 1_000_000


def test_the_environment_is_an_allow_list(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "hush")
    monkeypatch.setenv("PYTHONPATH", "/tmp")
    seen = call("return dict(os.environ)")
    threads = {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}
    assert set(seen) - {"LC_CTYPE"} - threads == {"PATH", "HOME", "TMPDIR", "LANG", "MPLBACKEND"}
    assert call("import site; return [sys.flags.isolated, site.ENABLE_USER_SITE]") == [1, False]


def test_standard_input_is_empty(call: Call) -> None:
    assert call("return sys.stdin.read()") == ""


@ONE_BACKEND
def test_a_failure_carries_the_code_s_own_words(call: Call) -> None:
    with pytest.raises(TaskFailedError) as error:
        call("import nosuchmodule.part")
    failure = error.value.failure
    assert (failure.type, failure.name, failure.record) == ("ModuleNotFoundError", "nosuchmodule", None)
    assert "in go" in failure.traceback
    assert str(error.value).startswith("the job failed: No module named 'nosuchmodule'\n| Traceback")


@ONE_BACKEND
def test_a_refusal_with_the_mark_is_its_own_words_and_nothing_else(call: Call) -> None:
    with pytest.raises(TaskFailedError) as error:
        call("raise type('Unfit', (ValueError,), {'is_for_user': True})('it has 5 dimensions')")
    assert error.value.failure.for_user
    assert str(error.value) == "the job failed: it has 5 dimensions"


@ONE_BACKEND
@pytest.mark.parametrize("mark", ["{'is_for_user': 'yes'}", "{'is_for_user': 1}", "{}"])
def test_an_error_without_the_mark_keeps_its_traceback(call: Call, mark: str) -> None:
    with pytest.raises(TaskFailedError) as error:
        call(f"raise type('Unfit', (ValueError,), {mark})('it has 5 dimensions')")
    assert not error.value.failure.for_user
    assert str(error.value).startswith("the job failed: it has 5 dimensions\n| Traceback")


@pytest.mark.parametrize(
    "body",
    [
        "raise RuntimeError(f'{os.getcwd()}/model.onnx is no model')",
        "raise RuntimeError(f'{__file__} and {os.getcwd()} and {HOME}/x and {HOME.parent}')",
        "open('nothing/there')",
        "print(f'reading {os.getcwd()}/model.onnx', flush=True); os._exit(7)",
        "print(f'reading {__file__}', flush=True); os.kill(os.getpid(), signal.SIGSEGV)",
    ],
)
def test_no_message_holds_the_folder_that_a_job_ran_in(
    call: Call, body: str, work_folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(ComponentError) as error:
        call(body)
    assert str(work_folders) not in str(error.value)
    assert str(work_folders) not in caplog.text


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("os._exit(0)", "the job exited with code 0 before it gave a result; it printed nothing"),
        (
            "print('bye', flush=True); os._exit(3)",
            "exited with code 3 before it gave a result; its last output:\n| bye",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by signal 11 before it gave a result"),
        ("bytearray(100 << 30)", "the job failed: MemoryError (runtime.memory_limit in edgepack.yaml)\n| Traceback"),
    ],
)
def test_a_child_that_dies_says_how(call: Call, body: str, told: str) -> None:
    with pytest.raises(ComponentError) as error:
        call(body)
    assert told in str(error.value)
    str(error.value).encode()


@pytest.mark.parametrize(
    ("killed", "told"),
    [
        (("the job", signal.SIGKILL), "the job was killed by signal 9, as the system does when memory runs out,"),
        (("the job", signal.SIGTERM), "the job was killed by signal 15 before it gave a result"),
        (("the child", signal.SIGKILL), "the job was killed by signal 9"),
    ],
)
def test_a_job_that_somebody_killed_may_be_tried_again(
    sandbox: Sandbox, call: Call, marker: str, killed: tuple[str, int], told: str
) -> None:
    whom, number = killed

    def kill() -> None:
        while not (sleepers := alive(marker)):
            time.sleep(0.01)
        stat = Path(f"/proc/{sleepers[0]}/stat").read_text().rpartition(")")[2].split()
        assert sandbox._child is not None
        os.kill(int(stat[1]) if whom == "the job" else sandbox._child.process.pid, number)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TransientError) as error:
        call("subprocess.Popen(['sleep', arguments]).wait()", marker)
    killer.join()
    assert told in str(error.value)
    assert call("return 1") == 1


@ONE_BACKEND
@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("sys.exit(0)", "the job failed: the code called sys.exit(0)"),
        ("return {1, 2}", "the job failed: Object of type set is not JSON serializable"),
        ("return float('nan')", "the job failed: Out of range float values"),
        ("raise KeyError('\\udcff\\x1b[2J')", "KeyError: '\\udcff\\x1b[2J'"),
        ("raise RuntimeError('\\udcff\\x1b[2J')", "the job failed: \ufffd\ufffd[2J"),
        ("def f(): f()\nf()", "the job failed: maximum recursion depth exceeded"),
    ],
)
def test_a_child_that_fails_by_itself_says_why(call: Call, body: str, told: str) -> None:
    with pytest.raises(ComponentError) as error:
        call(body)
    assert told in str(error.value)
    str(error.value).encode()


@ONE_BACKEND
def test_a_failure_of_importing_ahead_is_told(sandbox: Sandbox, environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "tasks.py").touch()
    with pytest.raises(ComponentError, match=r"nosuchmodule cannot be imported: ModuleNotFoundError: No module"):
        job = CallJob(tmp_path / "folder", tmp_path / "tasks.py", "go", None)
        sandbox.run("the job", environment, ["nosuchmodule"], job)


# Results that are none ---------------------------------------------------------------------------------


@ONE_BACKEND
@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("RESULT.symlink_to('/etc/hostname')", "result.json cannot be read: Too many levels of symbolic links"),
        ("os.mkfifo(RESULT)", "result.json is not a file of its own"),
        ("RESULT.mkdir()", "result.json is not a file of its own"),
        ("(HOME / 'other').write_text('{}'); os.link(HOME / 'other', RESULT)", "result.json is not a file of its own"),
        ("f = RESULT.open('wb'); f.truncate(1 << 30)", "result.json has 1073741824 bytes; at most 8388608 are read"),
        ("RESULT.write_text('')", "gave a result that is not one: JSONDecodeError"),
        ("RESULT.write_bytes(bytes([0xff]))", "gave a result that is not one: UnicodeDecodeError"),
        ("RESULT.write_text('[' * 100_000)", "gave a result that is not one: RecursionError"),
        ("RESULT.write_text('[]')", "gave a result that is not one: AttributeError"),
        ("RESULT.write_text('{}')", "gave a result that is not one: KeyError"),
        ("RESULT.write_text('{\"value\": NaN}')", "gave a result that is not one: ValueError: NaN is not JSON"),
        ('RESULT.write_text(\'{"error": {"type": 3}}\')', "gave a result that is not one: ValidationError"),
    ],
)
def test_a_forged_result_is_refused(call: Call, body: str, told: str) -> None:
    with pytest.raises(ComponentError) as error:
        call(f"{body}\nos._exit(0)")
    assert told in str(error.value)


def test_an_output_is_opened_only_if_it_is_a_file_of_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"hush")
    with open_output(secret, 4, "the job") as stream:
        assert stream.read() == b"hush"
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")
    for name, limit, told in [
        ("link", 9, "link cannot be read"),
        ("pipe", 9, "pipe is not a file of its own"),
        ("none", 9, "none cannot be read: No such file"),
        ("secret", 3, "secret has 4 bytes; at most 3 are read"),
    ]:
        with pytest.raises(ComponentError, match=f"^the job: {told}"), open_output(tmp_path / name, limit, "the job"):
            pass
    (tmp_path / "second name").hardlink_to(secret)
    with pytest.raises(ComponentError, match="of its own"), open_output(secret, 9, "the job"):
        pass


@pytest.mark.parametrize("folder", ["HOME / 'out'", "HOME"])
def test_a_folder_that_became_a_link_leads_nowhere(
    sandbox: Sandbox, environment: Environment, tmp_path: Path, folder: str
) -> None:
    """Else the host would read, and move away, files of its own that are named as the job's are."""
    victim = tmp_path / "victim"
    (victim / "out").mkdir(parents=True)
    for file in (victim / "made", victim / "out" / "made"):
        file.write_text("hush")
    (victim / "result.json").write_text('{"value": "hush"}')
    (tmp_path / "tasks.py").write_text(
        PROLOGUE + f"    folder = {folder}\n    folder.rename(folder.with_name('aside'))\n"
        f"    folder.symlink_to({str(victim)!r})\n    if folder == HOME: os._exit(0)\n"
    )
    (tmp_path / "folder").mkdir()
    job = CallJob(tmp_path / "folder", tmp_path / "tasks.py", "go", {})
    with pytest.raises(ComponentError, match="cannot be read: Not a directory"):
        sandbox.run("the job", environment, [], job, outputs={"made": tmp_path / "made"})
    assert not (tmp_path / "made").exists()
    assert sorted(str(path.relative_to(victim)) for path in victim.rglob("*")) == [
        "made", "out", "out/made", "result.json",
    ]  # fmt: skip


# Time, and what is left --------------------------------------------------------------------------------


def test_a_child_that_hangs_is_stopped_with_all_it_started(call: Call, marker: str, backend: Backend) -> None:
    started = time.monotonic()
    with pytest.raises(ComponentError, match=r"ran longer than 2 s \(runtime.time_limit in edgepack.yaml\); its last"):
        call(
            f"""
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen(['sleep', arguments])
            subprocess.Popen(['sleep', arguments], start_new_session=True)
            if {backend != "none"}:
                # where nothing shuts it in, a process that has left its group is found by its environment only
                subprocess.Popen(['sleep', arguments], start_new_session=True, env={{}})
            daemon(arguments)
            print('started', runs(arguments), flush=True)
            threading.Event().wait()
            """,
            marker,
            limit=2,
        )
    assert time.monotonic() - started < 20
    assert gone(marker)


def test_a_daemon_that_holds_the_output_open_delays_nothing(call: Call, marker: str) -> None:
    started = time.monotonic()
    assert call("daemon(arguments)\nreturn runs(arguments)", marker) == 1
    assert time.monotonic() - started < 10
    assert gone(marker)


def test_a_thread_of_the_model_does_not_keep_the_child(call: Call) -> None:
    assert call("threading.Thread(target=time.sleep, args=(600,)).start(); return 1", limit=30) == 1


def test_a_child_that_closes_all_its_streams_still_answers(call: Call) -> None:
    assert call("[os.close(fd) for fd in (0, 1, 2)]; time.sleep(0.1); return 'quiet'") == "quiet"
    assert call("sys.stdout.close(); sys.stderr = None; return 'quiet'") == "quiet"


def test_a_child_that_closes_its_output_and_hangs_is_stopped(call: Call) -> None:
    with pytest.raises(ComponentError, match="ran longer than 1 s"):
        call("os.close(1); os.close(2); threading.Event().wait()", limit=1)


def test_a_work_folder_without_rights_is_removed_all_the_same(call: Call) -> None:
    assert call("d = HOME / 'a' / 'b'; d.mkdir(parents=True); (d / 'c').touch(); d.chmod(0); d.parent.chmod(0)") is None


def test_nothing_is_kept_open(call: Call) -> None:
    call("return None")
    before = (len(os.listdir("/proc/self/fd")), threading.active_count())  # noqa: PTH208
    for _ in range(3):
        call("return None")
        with pytest.raises(ComponentError):
            call("os._exit(1)")
    call("return None")
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before  # noqa: PTH208


def test_children_end_with_a_host_that_is_killed(
    environment: Environment, backend: Backend, marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tasks.py").write_text(PROLOGUE + "    daemon(arguments)\n    threading.Event().wait()\n")
    (tmp_path / "folder").mkdir()
    host = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pathlib\n"
            "from edgepack_assets.config.schema import RuntimeSettings\n"
            "from edgepack_assets.environments.lock import Lock\n"
            "from edgepack_assets.environments.environment import Environment\n"
            "from edgepack_assets.sandbox.jobs import CallJob\n"
            "from edgepack_assets.sandbox.sandbox import Sandbox\n"
            f"lock = Lock.model_validate({environment.lock.model_dump()!r})\n"
            f"folder = pathlib.Path({str(environment.folder)!r})\n"
            "environment = Environment(folder, folder / 'bin' / 'python', lock, True)\n"
            f"top = pathlib.Path({str(tmp_path)!r})\n"
            f"job = CallJob(top / 'folder', top / 'tasks.py', 'go', {marker!r})\n"
            f"Sandbox(RuntimeSettings(time_limit=600), backends=[{backend!r}]).run('it', environment, [], job)\n",
        ],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    end = time.monotonic() + 60
    while not alive(marker):
        assert time.monotonic() < end
        assert host.poll() is None
        time.sleep(0.02)
    host.kill()
    host.wait()
    if backend == "none":
        # Its group ends with the host; what has left it is not known to anybody then.
        for pid in alive(marker):
            os.kill(pid, signal.SIGKILL)
    assert gone(marker)
    left = [path for path in tmp_path.iterdir() if path.name.startswith("edgepack-scratch-")]
    assert left  # with what the job was given and wrote
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder():
        assert not any(path.exists() for path in left)


# Output ------------------------------------------------------------------------------------------------


@ONE_BACKEND
def test_odd_output_reaches_the_log_as_text(sandbox: Sandbox, call: Call, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert sandbox.isolation
    caplog.clear()
    call("os.write(1, b'caf\\xe9 \\xe2\\x82\\xac\\n\\x1b[31mred\\x00\\r'); sys.stderr.write('no end of line')")
    text = "\n".join(caplog.messages)
    assert text.splitlines() == ["the job: caf\ufffd €", "| \ufffd[31mred\ufffd", "| no end of line"]


FORGED = "2026-01-01 00:00:00 +0000 - dagster - INFO - all is well"


@ONE_BACKEND
@pytest.mark.parametrize("how", ["print(TEXT)", "raise ValueError(TEXT)", "print(TEXT, flush=True); os._exit(1)",
                                 "raise type(TEXT, (Exception,), {})"])  # fmt: skip
def test_no_line_of_a_child_s_passes_for_one_of_the_log(call: Call, caplog: pytest.LogCaptureFixture, how: str) -> None:
    caplog.set_level(logging.INFO)
    said = ""
    try:
        call(f"TEXT = 'a\\n{FORGED}\\r{FORGED}\\u2028{FORGED}\\x85{FORGED}\\u202etxt.exe'\n{how}")
    except ComponentError as error:
        said = str(error)
    lines = [*"\n".join(caplog.messages).splitlines(), *said.splitlines()]
    assert any(FORGED in line for line in lines)
    assert [line for line in lines if line.startswith(FORGED) or "\u202e" in line] == []


def test_output_reaches_the_log_while_the_child_runs(sandbox: Sandbox, call: Call) -> None:
    class Log(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "halfway" in record.getMessage():
                assert sandbox._child is not None
                (sandbox._child.work / "1" / "seen").touch()

    sandbox.log = logging.Logger("live")
    sandbox.log.addHandler(Log())
    call("print('halfway', flush=True)\nwhile not (HOME / 'seen').exists(): time.sleep(0.01)", limit=30)


@ONE_BACKEND
def test_a_flood_of_output_is_read_but_not_kept(call: Call, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert call("b = b'x' * 99 + b'\\n'\nfor _ in range(1000): os.write(1, b * 500)\nreturn 'done'") == "done"
    kept = sum(map(len, caplog.messages))
    assert 200_000 < kept < 300_000
    dropped = re.search(r"the job: (\d+) further bytes of output were dropped", caplog.messages[-1])
    assert dropped is not None
    assert int(dropped[1]) == 50_000_000 - (256 << 10)


@ONE_BACKEND
def test_the_end_of_a_flood_is_in_the_error(call: Call) -> None:
    with pytest.raises(ComponentError) as error:
        call("os.write(1, b'x\\n' * 1_000_000 + b'the very end')\nos._exit(1)")
    assert str(error.value).endswith("\n| the very end")
    assert len(str(error.value)) < 20_000


# One child for many jobs -------------------------------------------------------------------------------


def child_of(sandbox: Sandbox) -> int | None:
    """The process that forks one for each job."""
    return sandbox._child.process.pid if sandbox._child is not None else None


def runs(pid: int) -> bool:
    """Whether a process of this machine is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_one_child_serves_many_jobs_and_ends_with_the_sandbox(
    plain_settings: RuntimeSettings, backend: Backend, environment: Environment, call: Call
) -> None:
    with Sandbox(plain_settings, backends=[backend]) as sandbox:
        sandbox.prepare(environment, [])
        first = child_of(sandbox)
        assert first is not None
        assert len({call("return os.getpid()", using=sandbox) for _ in range(3)}) == 3
        assert child_of(sandbox) == first
        sandbox.prepare(environment, ["json"])  # not what the last job wanted
        assert not runs(first)
        second = child_of(sandbox)
        assert second is not None
        assert runs(second)
    assert not runs(second)


def test_a_child_serves_another_model_only_where_it_is_isolated_in_every_way(
    sandbox: Sandbox, backend: Backend, call: Call
) -> None:
    sandbox.release()  # nothing was started
    parent = "return os.getppid()"
    assert call(parent) == call(parent)
    first = sandbox._child
    assert first is not None
    sandbox.release()
    kept = sandbox._child
    assert (kept is first) == (not sandbox.isolation.missing)
    assert backend != "none" or kept is None
    assert call(parent)
    child = sandbox._child
    assert child is not None
    os.killpg(child.process.pid, signal.SIGKILL)
    while not child.has_ended():
        time.sleep(0.01)
    sandbox.release()
    assert sandbox._child is None
    assert call(parent)


@ONE_BACKEND
def test_a_child_does_not_serve_an_environment_that_was_built_anew(
    sandbox: Sandbox, environment: Environment, call: Call, tmp_path: Path
) -> None:
    call("return 1")
    first = sandbox._child
    call("return 1")
    assert sandbox._child is first
    anew = tmp_path / "environment"
    anew.symlink_to(environment.folder)
    sandbox.prepare(replace(environment, folder=anew), [])
    assert sandbox._child is first  # the same folder by another name
    other = tmp_path / "other"
    other.mkdir()
    sandbox.prepare(replace(environment, folder=other), [])
    assert sandbox._child is not first


def test_a_job_leaves_nothing_to_the_next(sandbox: Sandbox, environment: Environment, call: Call) -> None:
    look = """
        import builtins, gc, json, pickle
        return [hasattr(json, 'planted'), json.dumps(1), pickle.loads(pickle.dumps(2)), len('four'),
                'PLANTED' in os.environ, sorted(os.listdir(HOME)), os.path.basename(os.getcwd()), os.umask(0o77),
                threading.active_count(), sys.getrecursionlimit(), gc.isenabled(), '/planted' in sys.path,
                'planted' in sys.modules, signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL]
    """
    clean = call(look)
    call("""
        import builtins, gc, json, pickle
        RESULT.write_text('{"value": 1}')  # json will not write it
        os.environ['PLANTED'] = '1'
        HOME.joinpath('x').write_text('1')
        HOME.joinpath('json.py').write_text('raise SystemExit(9)')
        os.chdir('/')
        os.umask(0)
        threading.Thread(target=time.sleep, args=[60], daemon=True).start()
        sys.setrecursionlimit(777)
        sys.path.insert(0, '/planted')
        sys.modules['planted'] = json
        signal.signal(signal.SIGUSR1, lambda *_: None)
        gc.disable()
        json.planted = 1
        json.dumps = pickle.loads = builtins.len = lambda *_, **__: 'planted'
        os._exit(0)
    """)
    assert call(look) == clean
    assert clean[:5] == [False, "1", 2, 4, False]


@ONE_BACKEND
def test_a_child_that_is_killed_at_any_moment_costs_at_most_its_job(
    sandbox: Sandbox, environment: Environment, call: Call
) -> None:
    moments = random.Random(19)  # noqa: S311 - the same ones each time
    lost = 0
    for number in range(KILLS):
        sandbox.prepare(environment, [])
        assert sandbox._child is not None
        victim, fired = sandbox._child.process.pid, threading.Event()
        # The first job is killed while it works, however busy the machine is; the others at any moment of theirs.
        moment, work = (3.0, 30) if number == 0 else (moments.uniform(0, 0.2), 0)
        killing = threading.Timer(
            moment, lambda victim=victim, fired=fired: (fired.set(), os.killpg(victim, signal.SIGKILL))
        )
        killing.start()
        try:
            assert call(f"time.sleep({work}); return arguments + 1", number) == number + 1
        except ChildKilledError as error:
            assert "was killed by signal 9" in str(error)
            lost += 1
        killing.cancel()
        killing.join()
        while fired.is_set() and runs(victim):
            time.sleep(0.001)
        assert call("return arguments + 2", number) == number + 2
    assert lost


def test_what_stays_in_shared_memory_costs_the_child_and_not_the_next_job(
    sandbox: Sandbox, backend: Backend, call: Call
) -> None:
    if backend == "none":
        pytest.skip("shared memory is the machine's, where nothing shuts the child in")
    for _ in range(3):
        call("d = pathlib.Path('/dev/shm/a/b'); d.mkdir(parents=True); d.parent.chmod(0)")
        assert call("return os.listdir('/dev/shm')") == []


def test_the_work_folder_may_lie_in_shared_memory(
    environment: Environment,
    plain_settings: RuntimeSettings,
    backend: Backend,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        with Sandbox(plain_settings, backends=[backend]) as sandbox:
            for _ in range(3):
                assert call("pathlib.Path('/dev/shm/x').touch(); return os.listdir()", using=sandbox) == ["model.txt"]
        assert os.listdir(folder) == []  # noqa: PTH208
    if backend == "none":
        Path("/dev/shm/x").unlink(missing_ok=True)  # the machine's


def test_modules_are_imported_ahead_once(sandbox: Sandbox, environment: Environment) -> None:
    sandbox.prepare(environment, ["wave"])
    assert sandbox._child is not None
    assert not sandbox._child.has_ended()


def test_a_job_that_kills_its_child_fails_at_most_itself(sandbox: Sandbox, backend: Backend, call: Call) -> None:
    kill = "[os.kill(os.getppid(), n) for n in (2, 11, 15, 19, 9)]"
    if backend == "none":
        # Which signal ends it is chance; SIGKILL and SIGTERM cannot be told from those of a person.
        with pytest.raises((ComponentError, TransientError), match="killed by signal"):
            call(f"{kill}; time.sleep(60)")
    else:
        call(kill)
    assert call("return 1") == 1


def test_a_job_does_not_change_how_the_next_one_runs(backend: Backend, call: Call) -> None:
    """What the process that forks them has, the next one would have."""
    look = """
        import ctypes, resource
        libc = ctypes.CDLL(None)
        return [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), sorted(os.sched_getaffinity(0)),
                libc.syscall({'x86_64': 252, 'aarch64': 31}[os.uname().machine], 1, 0), libc.prctl(30, 0, 0, 0, 0),
                pathlib.Path('/proc/self/oom_score_adj').read_text(), resource.getrlimit(resource.RLIMIT_CPU)]
    """
    change = """
        import ctypes, errno, resource
        libc = ctypes.CDLL(None, use_errno=True)
        at = {'x86_64': 0, 'aarch64': 1}[os.uname().machine]
        child, idle, allowed = os.getppid(), 3 << 13, []
        def io_priority(kind, who):
            if libc.syscall((251, 30)[at], kind, who, idle) < 0: raise OSError
        def attributes(pid):
            given = ctypes.create_string_buffer(bytes([48, 0, 0, 0, 5]), 48)
            if libc.syscall((314, 274)[at], pid, given, 0) < 0: raise OSError
        def write(name, value): pathlib.Path(f'/proc/{child}', name).write_text(value)
        attempts = {
            'nice': lambda: os.setpriority(os.PRIO_PROCESS, child, 5),
            'class': lambda: os.sched_setscheduler(child, os.SCHED_BATCH, os.sched_param(0)),
            'parameter': lambda: os.sched_setparam(child, os.sched_param(0)),
            'attributes': lambda: attributes(child),
            'processors': lambda: os.sched_setaffinity(child, [min(os.sched_getaffinity(0))]),
            'disk': lambda: io_priority(1, child),
            'limit': lambda: resource.prlimit(child, resource.RLIMIT_CPU, (600, 600)),
            'oom': lambda: write('oom_score_adj', '999'),
            'slack': lambda: write('timerslack_ns', '77777'),
            'group': lambda: write('autogroup', '5'),
        }
        if arguments == 'in a room':  # these reach others of this user
            attempts |= {
                'nice of all': lambda: os.setpriority(os.PRIO_USER, 0, os.getpriority(os.PRIO_PROCESS, 0)),
                'disk of all': lambda: io_priority(3, os.getuid()),
                'disk of a group': lambda: io_priority(2, 0),
                'own oom': lambda: pathlib.Path('/proc/self/oom_score_adj').write_text('999'),
            }
        for name, attempt in attempts.items():
            try:
                attempt()
                allowed.append(name)
            except OSError: pass
        return allowed
    """
    before = call(look)
    allowed = call(change, "" if backend == "none" else "in a room")
    if backend != "none":
        assert allowed == []
    assert call(look) == before


@pytest.mark.parametrize(
    "change",
    [
        "os.set_blocking(1, False)",
        "fcntl.fcntl(2, 1031, 4096)",
        "fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_ASYNC)",
        "fcntl.fcntl(1, fcntl.F_SETOWN, os.getpid())",
        "fcntl.fcntl(1, 10, 9)",
    ],
)
def test_a_job_does_not_change_where_the_next_one_prints_to(backend: Backend, call: Call, change: str) -> None:
    """The output is one open file for all jobs, and its flags are every job's."""
    if backend == "none":
        pytest.skip("a job may change what it likes, where nothing shuts it in")
    look = "import fcntl; return [fcntl.fcntl(n, c) for n in (1, 2) for c in (fcntl.F_GETFL, fcntl.F_GETOWN, 11, 1032)]"
    before = call(look)
    call(f"import fcntl; {change}; {look[14:].replace('return ', 'changed = ')}; assert changed != {before}")
    assert call(look) == before


def test_a_child_that_died_is_replaced(sandbox: Sandbox, environment: Environment, call: Call) -> None:
    sandbox.prepare(environment, [])
    dead = child_of(sandbox)
    assert dead is not None
    os.kill(dead, signal.SIGKILL)
    end = time.monotonic() + 60
    while runs(dead):
        assert time.monotonic() < end
    assert call("return 1") == 1
    assert child_of(sandbox) != dead


def test_an_interpreter_that_is_gone_is_told(sandbox: Sandbox, environment: Environment) -> None:
    broken = replace(environment, python=environment.folder / "bin" / "gone")
    with pytest.raises(EnvironmentBuildError, match=r"bin/gone cannot be started \(No such file.*delete .* run this"):
        sandbox.prepare(broken, [])


def test_memory_that_processes_share_is_counted_once(
    plain_settings: RuntimeSettings, backend: Backend, environment: Environment, call: Call
) -> None:
    settings = plain_settings.model_copy(update={"memory_limit": 1.0})
    with Sandbox(settings, backends=[backend]) as sandbox:
        body = """
            taken = b'x' * (300 << 20)
            for _ in range(5):
                if os.fork() == 0:
                    threading.Event().wait()
            end = time.monotonic() + 1.5  # the host looks twice a second
            while time.monotonic() < end: sum(taken[:1000])
            return 'done'
        """
        assert call(body, using=sandbox, limit=30) == "done"


@ONE_BACKEND
def test_records_and_answers_cross_as_json(sandbox: Sandbox, environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "component").mkdir()
    (tmp_path / "component" / "entrypoint.py").write_text(
        "def process_input(data):\n    return {'y': 100 // (data['x'] - 2)}\n"
    )
    with gzip.open(tmp_path / "records", "wt") as stream:
        stream.writelines(json.dumps({"x": x}) + "\n" for x in range(4))
    with pytest.raises(TaskFailedError, match=r"^validating it failed at record 2: ZeroDivisionError: ") as error:
        sandbox.run("validating it", environment, [], RunJob(
            tmp_path / "component", "entrypoint", {},
            input_types=[{"name": "x", "type": "Integer"}], output_types=[{"name": "y", "type": "Integer"}],
        ), inputs={"records": tmp_path / "records"}, outputs={"results": tmp_path / "results"})  # fmt: skip
    assert (error.value.failure.record, error.value.failure.type) == (2, "ZeroDivisionError")
