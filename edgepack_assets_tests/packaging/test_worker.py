"""Packaging in a process of its own: answers and errors come across, and a worker that died is replaced."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgepack_assets
from edgepack_assets.errors import PackageError, TransientError
from edgepack_assets.packaging import config_package, deployment_package
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


def test_every_function_that_is_called_by_its_name_is_there() -> None:
    modules = {"config_package": config_package, "deployment_package": deployment_package}
    called = {
        node.value
        for file in Path(edgepack_assets.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and re.fullmatch(rf"({'|'.join(modules)})\.[a-z_]+", node.value)
    } - {f"{module}.{ending}" for module in modules for ending in ("json", "zip", "py")}  # fmt: skip
    assert len(called) >= 3
    for name in called:
        module, _, function = name.partition(".")
        assert callable(getattr(modules[module], function, None)), name
