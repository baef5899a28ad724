"""A package that is built before it is wanted: taken only as what would be built, and nobody's failure."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.errors import EdgepackError, PackageError, TransientError
from edgepack_assets.packaging.deployment_package import expected_contents
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.ahead import built_package
from edgepack_assets.tasks.ahead.built_package import BuiltAhead, BuiltPackage
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.deployment_package import Validated, deploy
from edgepack_assets.tasks.packages.build import build_ahead
from edgepack_assets_tests.tasks.plant import PACKAGE, Plant

LOG = logging.getLogger(__name__)
KEY = ModelKey("press", 1)


def never() -> None:
    raise AssertionError("nothing builds that could be stopped")


def written(folder: Path) -> BuiltPackage:
    (folder / "package.zip").write_bytes(b"x")
    return BuiltPackage(folder / "package.zip", {"a": "b"})


def test_it_is_taken_once_and_only_for_the_inputs_that_it_was_built_from() -> None:
    ahead = BuiltAhead()
    assert ahead.take("inputs", LOG) is None
    ahead.start("inputs", written)
    assert ahead.take("others", LOG) is None
    built = ahead.take("inputs", LOG)
    assert built is not None and built.path.read_bytes() == b"x"
    assert ahead.take("inputs", LOG) is None
    ahead.close(never)
    ahead.close(never)
    assert not built.path.exists()


def test_one_run_at_a_time_builds_ahead_and_once(tmp_path: Path) -> None:
    """Locks are those of descriptors, so two in one process stand for two processes."""
    first, second, other = BuiltAhead(), BuiltAhead(), BuiltAhead()
    assert not first.may_start(tmp_path)  # this run goes on to no deployment package
    first.is_wanted = second.is_wanted = other.is_wanted = True
    assert first.may_start(tmp_path)
    assert not first.may_start(tmp_path)  # a step that is tried again
    assert first.has_turn(tmp_path) and not second.has_turn(tmp_path)
    assert not second.may_start(tmp_path)
    assert not second.may_start(tmp_path / "nowhere")
    (tmp_path / "another").mkdir()
    assert other.may_start(tmp_path / "another")
    first.start("inputs", written)
    assert first.take("inputs", LOG) is not None
    assert not second.may_start(tmp_path)  # it is not registered yet
    first.close(never)
    assert second.may_start(tmp_path)
    second.close(never)
    other.close(never)


@pytest.mark.parametrize("error", [PackageError("refused"), TransientError("killed"), OSError("full"), KeyError("x")])
def test_its_failure_is_told_and_leaves_the_work_to_the_step(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_: Path) -> BuiltPackage:
        raise error

    ahead = BuiltAhead()
    ahead.start("inputs", failing)
    with caplog.at_level(logging.INFO):
        assert ahead.take("inputs", LOG) is None
    assert f"built again: {error}" in caplog.text
    ahead.close(never)


def test_a_run_that_ends_before_stops_it_and_leaves_nothing() -> None:
    began, stopped, folders = threading.Event(), threading.Event(), list[Path]()

    def slow(folder: Path) -> BuiltPackage:
        folders.append(folder)
        began.set()
        assert stopped.wait(60)
        raise TransientError("the packaging process was killed")

    ahead = BuiltAhead()
    ahead.start("inputs", slow)
    assert began.wait(60)
    ahead.close(stopped.set)
    assert stopped.is_set() and not folders[0].exists()
    assert not any(thread.name == "build ahead" for thread in threading.enumerate())


def test_a_disk_that_takes_no_folder_is_no_failure_of_validation(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise EdgepackError("no space left")

    monkeypatch.setattr(built_package, "Scratch", full)
    validated = keeping_contents(plant, plant.validated(1))
    (plant.folder / "registry").mkdir()
    context = plant.task_context()
    context.built_ahead.is_wanted = True
    build_ahead(KEY, validated.config_package, validated.payload_data, context)
    assert context.built_ahead.take("anything", LOG) is None


def keeping_contents(plant: Plant, validated: Validated) -> Validated:
    """With the contents that config_package keeps: without them nothing is built ahead."""
    contents = plant.built.store.put_json(expected_contents(plant.built.config, plant.built.lock))
    package = validated.config_package.model_copy(update={"observations": {"contents": contents}})
    return replace(validated, config_package=package)


def packages_of(plant: Plant, context: TaskContext) -> list[Any]:
    """What is built from here on, each a path."""
    built: list[Any] = []
    build = context.packaging.build_deployment_package

    def counting(*arguments: Any) -> Path:
        built.append(path := build(*arguments))
        return path

    context.packaging.build_deployment_package = counting  # type: ignore[method-assign]
    return built


@pytest.mark.environments
@pytest.mark.parametrize("taken", [False, True])
def test_the_registered_package_is_the_one_that_was_built_ahead_unless_its_number_was_taken(
    plant: Plant, taken: bool
) -> None:
    validated = keeping_contents(plant, plant.validated(1))
    (plant.folder / "registry").mkdir()
    with Sandbox(plant.built.settings) as sandbox:
        context = plant.task_context(sandbox)
        built = packages_of(plant, context)
        build_ahead(KEY, validated.config_package, validated.payload_data, context)
        assert built == []  # no deployment_package in this run
        context.built_ahead.is_wanted = True
        build_ahead(KEY, validated.config_package, validated.payload_data, context)
        if taken:
            plant.deploy(2)
        _, report = deploy(KEY, validated, {}, "", context)
        assert len(built) == (2 if taken else 1)
        assert report.registered.number == (2 if taken else 1)
        context.built_ahead.close(never)
    assert all(row.passed for row in report.rows)
    # the same bytes as without it
    other = Plant(plant.built, plant.folder / "other")
    if taken:
        other.deploy(2)
    assert other.deploy(1).registered.digest == report.registered.digest
    assert (
        plant.registry.get(Kind.MODEL, PACKAGE, report.registered.number).resolve().digest == report.registered.digest
    )
    # what stands already is not built again
    context = plant.task_context()
    context.built_ahead.is_wanted = True
    built = packages_of(plant, context)
    build_ahead(KEY, validated.config_package, validated.payload_data, context)
    assert context.built_ahead._thread is None and built == []


@pytest.mark.environments
def test_a_package_built_ahead_must_hold_what_was_validated(plant: Plant) -> None:
    """Other bytes under the digest of what was validated: the step compares, whoever has built them."""
    validated = keeping_contents(plant, plant.validated(1))
    (plant.folder / "registry").mkdir()
    with Sandbox(plant.built.settings) as sandbox:
        context = plant.task_context(sandbox)
        context.built_ahead.is_wanted = True
        build_ahead(KEY, validated.config_package, validated.payload_data, context)
        thread = context.built_ahead._thread
        assert thread is not None
        thread.join()
        built = context.built_ahead._built
        assert built is not None
        context.built_ahead._built = replace(built, contents={**built.contents, "README.html": "0" * 64})
        with pytest.raises(PackageError, match=r"differs from what was validated in: README\.html"):
            deploy(KEY, validated, {}, "", context)
        context.built_ahead.close(never)
    assert plant.packages() == []
