"""Packaging in a process of its own: answers and errors come across, and a worker that died is replaced."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgepack_assets
from edgepack_assets.errors import PackageError, TransientError
from edgepack_assets.packaging.deployment_package import expected_contents
from edgepack_assets.packaging.worker import PackagingWorker
from edgepack_assets_tests.packaging.conftest import Built


@pytest.fixture(scope="module")
def worker() -> Iterator[PackagingWorker]:
    made = PackagingWorker()
    yield made
    made.close()


def test_a_call_gives_what_the_function_gives(worker: PackagingWorker, built: Built) -> None:
    found = worker.call("deployment_package.expected_contents", built.config, built.lock)
    assert found == expected_contents(built.config, built.lock)


def test_errors_come_across_and_the_worker_goes_on(worker: PackagingWorker, built: Built, tmp_path: Path) -> None:
    (tmp_path / "odd.zip").write_bytes(b"no zip")
    with pytest.raises(PackageError, match=r"odd\.zip: is not a zip file"):
        worker.call("deployment_package.expected_contents", tmp_path / "odd.zip", built.lock)
    with pytest.raises(PackageError, match="expected_contents failed: TypeError"):
        worker.call("deployment_package.expected_contents", built.config)
    assert worker.call("deployment_package.expected_contents", built.config, built.lock)


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
    assert worker.call("deployment_package.expected_contents", built.config, built.lock)


def test_a_worker_that_dies_during_a_call_is_told(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = PackagingWorker()
    worker.start()
    assert worker._process is not None
    monkeypatch.setattr(worker, "start", lambda: None)
    worker._process.kill()
    with pytest.raises(TransientError, match="the packaging process ended with code -9"):
        worker.call("deployment_package.expected_contents", built.config, built.lock)
    worker.close()


def test_what_the_tasks_call_by_name_is_there() -> None:
    tasks = Path(edgepack_assets.__file__).parent / "tasks"
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in tasks.glob("*.py")]
    called = [
        call.args[0].value
        for call in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
        if ast.unparse(call.func).endswith("packaging.call") and isinstance(call.args[0], ast.Constant)
    ]
    assert len(called) >= 4
    for name in called:
        module, _, function = str(name).partition(".")
        assert callable(getattr(importlib.import_module(f"edgepack_assets.packaging.{module}"), function, None)), name
