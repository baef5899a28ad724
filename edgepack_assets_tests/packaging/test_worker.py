"""Packaging in a process of its own: answers and errors come across, and a worker that died is replaced."""

from __future__ import annotations

import contextlib
import inspect
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.errors import PackageError, TransientError
from edgepack_assets.packaging import worker as worker_module
from edgepack_assets.packaging.deployment_package import expected_contents
from edgepack_assets.packaging.worker import PackagingWorker, serve, served_functions
from edgepack_assets_tests.packaging.conftest import Built


@pytest.fixture(scope="module")
def worker() -> Iterator[PackagingWorker]:
    made = PackagingWorker()
    yield made
    made.close()


def test_the_worker_has_a_method_for_each_function_with_its_signature() -> None:
    functions = served_functions()
    methods = {
        name: value for name, value in vars(PackagingWorker).items() if inspect.isfunction(value) and name[0] != "_"
    }
    assert methods.keys() == functions.keys() | {"start", "interrupt", "close"}
    for name, function in functions.items():
        signature = inspect.signature(methods[name])
        others = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
        assert signature.replace(parameters=others) == inspect.signature(function), name


def test_a_call_gives_what_the_function_gives(worker: PackagingWorker, built: Built) -> None:
    found = worker.expected_contents(built.config, built.lock)
    assert found == expected_contents(built.config, built.lock)


def test_errors_come_across_and_the_worker_goes_on(worker: PackagingWorker, built: Built, tmp_path: Path) -> None:
    (tmp_path / "odd.zip").write_bytes(b"no zip")
    with pytest.raises(PackageError, match=r"odd\.zip: is not a zip file"):
        worker.expected_contents(tmp_path / "odd.zip", built.lock)
    with pytest.raises(PackageError, match="expected_contents failed: AttributeError"):
        worker.expected_contents(built.config, "no lock")  # type: ignore[arg-type]
    assert worker.expected_contents(built.config, built.lock)


def test_a_worker_that_died_is_replaced(
    worker: PackagingWorker, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.start()
    assert worker._process is not None
    worker._process.kill()
    worker._process.wait()
    # the next one starts where a file bears the name of a library
    (tmp_path / "yaml.py").write_text("raise SystemExit('not the library')\n")
    monkeypatch.chdir(tmp_path)
    assert worker.expected_contents(built.config, built.lock)


def test_a_worker_that_dies_during_a_call_is_told(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = PackagingWorker()
    worker.start()
    assert worker._process is not None
    monkeypatch.setattr(worker, "start", lambda: None)
    worker._process.kill()
    assert worker._scratch is not None
    left = worker._scratch.path / "temp_of_the_sdk"
    left.mkdir()
    with pytest.raises(TransientError, match="the packaging process ended with code -9"):
        worker.expected_contents(built.config, built.lock)
    worker.close()
    assert not left.parent.exists()


def test_what_the_sdk_leaves_behind_lies_in_the_worker_s_own_folder(worker: PackagingWorker, built: Built) -> None:
    assert worker.expected_contents(built.config, built.lock)
    assert worker._process is not None and worker._scratch is not None
    variables = Path(f"/proc/{worker._process.pid}/environ").read_bytes().split(b"\0")
    assert f"TMPDIR={worker._scratch.path}".encode() in variables


def test_a_worker_prints_where_the_run_that_it_serves_does(built: Built, tmp_path: Path) -> None:
    worker = PackagingWorker()
    try:
        for log in (tmp_path / "first.log", tmp_path / "second.log"):
            log.write_text("what was there before\n")
            worker.output = log
            worker.expected_contents(built.config, built.lock)
            assert worker._process is not None
            descriptors = Path("/proc", str(worker._process.pid), "fd")
            assert [descriptors.joinpath(number).readlink() for number in "12"] == [log, log]
            assert log.read_text().startswith("what was there before\n")
    finally:
        worker.close()


class _Forked(subprocess.Popen[bytes]):
    """A worker that is forked from this process, with light functions in place of the SDK's: it starts in no time."""

    def __init__(self, *_: object, **__: object) -> None:
        (read_requests, requests), (answers, write_answers) = os.pipe(), os.pipe()
        self.returncode: int | None = None  # type: ignore[assignment] # as subprocess has it
        self.pid = os.fork()
        if self.pid == 0:
            os.close(requests)
            os.close(answers)
            serve(os.fdopen(read_requests, "rb"), os.fdopen(write_answers, "wb"))
            os._exit(0)
        os.close(read_requests)
        os.close(write_answers)
        self.stdin, self.stdout = os.fdopen(requests, "wb"), os.fdopen(answers, "rb")

    def __del__(self, *_: object) -> None:
        """Nothing: each one is waited for."""

    def poll(self) -> int | None:
        if self.returncode is None and (status := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(status[1])
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackagingWorker]:
    """A worker whose `expected_contents` gives back its arguments, a megabyte of them."""
    monkeypatch.setattr(worker_module, "import_sdk", lambda: None)
    monkeypatch.setattr(
        worker_module, "served_functions", lambda: {"expected_contents": lambda a, b: {a: b, "more": "x" * (1 << 20)}}
    )
    monkeypatch.setattr(worker_module.subprocess, "Popen", _Forked)
    made = PackagingWorker()
    yield made
    made.close()


@pytest.mark.long
def test_a_worker_that_is_killed_at_any_moment_costs_a_restart_and_never_an_answer(light: Any) -> None:
    moments = random.Random(19)  # noqa: S311 - the same ones each time
    lost = 0
    for number in range(40):
        light.start()
        killing = threading.Thread(target=_kill_after, args=(light._process, moments.uniform(0, 0.004)))
        killing.start()
        for call in range(3):
            wanted = f"{number}.{call}"
            try:
                assert light.expected_contents(wanted, "answer")[wanted] == "answer"
            except TransientError as error:
                assert "ended with code -9" in str(error)
                lost += 1
        killing.join()
        assert light.expected_contents("after", "answer")["after"] == "answer"
    assert 0 < lost <= 40


def _kill_after(process: Any, seconds: float) -> None:
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # the caller has noticed first
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_the_answer_to_a_call_that_was_interrupted_is_not_that_of_the_next(
    light: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert light.expected_contents("first", "answer")["first"] == "answer"

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(worker_module.pickle, "load", interrupted)
        with pytest.raises(KeyboardInterrupt):
            light.expected_contents("second", "answer")
    assert light.expected_contents("third", "answer").keys() == {"third", "more"}


def test_calls_of_two_threads_take_turns_and_one_can_be_interrupted(
    light: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(4) as pool:
        names = [f"call {number}" for number in range(12)]
        answers = list(pool.map(lambda name: light.expected_contents(name, name), names))
    assert [answer[name] for answer, name in zip(answers, names, strict=True)] == names
    light.close()
    monkeypatch.setattr(worker_module, "served_functions", lambda: {"expected_contents": lambda a, b: time.sleep(600)})
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(light.expected_contents, "a", "b")
        while light._process is None:
            time.sleep(0.01)
        light.interrupt()
        with pytest.raises(TransientError, match="the packaging process ended with code -9"):
            call.result(60)
    light.close()
    light.interrupt()  # nothing runs
