"""Packaging in a process of its own: answers and errors come across, and a worker that died is replaced."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack_assets.errors import PackageError, TransientError
from edgepack_assets.packaging.deployment_package import expected_contents
from edgepack_assets.packaging.worker import PackagingWorker, served_functions
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
    assert methods.keys() == functions.keys() | {"start", "close"}
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
