"""Registration under one name by many processes, by processes that die, and on registries that lag behind."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.errors import TransientError, VersionTakenError
from edgepack_assets.packaging.deployment_package import build_deployment_package, expected_contents
from edgepack_assets.packaging.stamp import Stamp, content_digest, contents, package_id_for, read_stamp
from edgepack_assets.registry.base import Kind, Lookup, RegisteredVersion, Registry, ResolvedVersion
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.tasks.packages.registration import Registration, register_package
from edgepack_assets.tasks.packages.tags import OLDER_THAN
from edgepack_assets_tests.crashes import killed_at_each_step
from edgepack_assets_tests.tasks.plant import MODEL, PACKAGE, Plant

LOG = logging.getLogger(__name__)


def check_packages(plant: Plant, folder: Path) -> list[RegisteredVersion]:
    """The registered packages, after proving that each is whole, carries its version, and stands for one identity."""
    expected = expected_contents(plant.built.config, plant.built.lock)
    found = plant.packages()
    for package in found:
        zipped = plant.registry.download(package, folder / str(package.version))
        stamp = read_stamp(zipped)
        assert stamp == Stamp(package.version, package_id_for(PACKAGE))
        assert package.tags["packageid"] == str(stamp.package_id)
        assert contents(zipped, stamp) == expected
    models = [package.tags["model_version"] for package in found]
    assert len(set(models)) == len(models), f"registered twice: {models}"
    return found


def register(plant: Plant, registry: LocalRegistry, model_version: int, work: Path) -> Registration:
    """Register the tiny package as that of a model version; built and stamped for real, not executed."""
    built, made_from = plant.built, expected_contents(plant.built.config, plant.built.lock)
    tags = {"content_digest": content_digest(made_from), "model_name": MODEL, "model_version": str(model_version)}
    work.mkdir(parents=True, exist_ok=True)

    def build(stamp: Stamp) -> Path:
        return build_deployment_package(built.config, built.lock, built.store, PACKAGE, stamp, work)

    return register_package(registry, PACKAGE, tags, build, LOG)


class Meeting(LocalRegistry):
    """Everybody has looked at the versions before the first one registers."""

    def __init__(self, path: Path, barrier: Any) -> None:
        super().__init__(path)
        self._barrier: Any = barrier

    def register(
        self,
        kind: Kind,
        name: str,
        path: Path,
        tags: Mapping[str, str],
        version: int | None = None,
        *,
        is_final: bool = False,
        checksum: bool = False,
    ) -> ResolvedVersion:
        if self._barrier is not None:
            self._barrier.wait(120)
            self._barrier = None
        return super().register(kind, name, path, tags, version, checksum=checksum, is_final=is_final)


def _deploy_at_once(plant: Plant, model_version: int, barrier: Any, answers: Any) -> None:
    Plant.registry = property(lambda self: Meeting(self.folder / "registry", barrier))  # type: ignore[assignment]
    try:
        report = plant.deploy(model_version)
        answers.put((model_version, report.registered.version, report.was_registered_before))
    except BaseException:
        answers.put(traceback.format_exc())
        raise


def test_eight_processes_at_once_register_each_content_once(plant: Plant, tmp_path: Path) -> None:
    """All eight find nothing and try version 1; two of them package what another one packages too."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(8), context.Queue()
    plant.validated(1)  # the records are run once, not eight times
    models = [*range(1, 7), *range(1, 3)]
    processes = [context.Process(target=_deploy_at_once, args=(plant, n, barrier, answers)) for n in models]
    for process in processes:
        process.start()
    told = [answers.get(timeout=300) for _ in processes]
    for process in processes:
        process.join(60)
    assert all(isinstance(each, tuple) for each in told), told
    found = check_packages(plant, tmp_path / "check")
    assert [package.version for package in found] == list(range(1, 7))
    registered = {(int(package.tags["model_version"]), package.version) for package in found}
    assert {(model, version) for model, version, _ in told} == registered
    assert sorted(before for *_, before in told) == [False] * 6 + [True] * 2


class Lagging(LocalRegistry):
    """Lists what there was when it was opened; what is asked for by its number is found."""

    def versions(self, kind: Kind, name: str) -> list[RegisteredVersion]:
        if not hasattr(self, "_seen"):
            self._seen = super().versions(kind, name)
        return self._seen

    def look_up(self, kind: Kind, name: str, tags: Mapping[str, str]) -> Lookup:
        return Registry.look_up(self, kind, name, tags)


def test_a_listing_that_lags_behind_makes_no_package_twice(plant: Plant, tmp_path: Path) -> None:
    late = Lagging(plant.folder / "registry")
    assert late.versions(Kind.MODEL, PACKAGE) == []
    for model_version in (1, 2, 3):
        register(plant, plant.registry, model_version, tmp_path / "work")
    assert register(plant, late, 2, tmp_path / "work").registered.version == 2
    made = register(plant, late, 4, tmp_path / "work").registered
    assert made.version == 4
    assert [package.version for package in check_packages(plant, tmp_path / "check")] == [1, 2, 3, 4]


def test_numbers_that_are_taken_by_what_is_no_version_are_passed_over(plant: Plant, tmp_path: Path) -> None:
    for name in ("1/content", "2"):
        (plant.folder / "registry/models" / PACKAGE / name).mkdir(parents=True)
    assert register(plant, plant.registry, 1, tmp_path / "work").registered.version == 3


def test_damaged_and_deleted_packages_keep_their_numbers_and_stop_nothing(plant: Plant, tmp_path: Path) -> None:
    builds = []
    for model_version in (1, 2, 3, 4, 5, 6):
        register(plant, plant.registry, model_version, tmp_path / "work")
    packages = plant.folder / "registry" / "models" / PACKAGE
    for number in (4, 5, 6):
        shutil.rmtree(packages / str(number))
    (packages / "3" / "tags.json").write_text('{"by": "\\udce4"}')
    shutil.rmtree(packages / "2" / "content")

    class Counting(LocalRegistry):
        def register(
            self,
            kind: Kind,
            name: str,
            path: Path,
            tags: Mapping[str, str],
            version: int | None = None,
            *,
            checksum: bool = False,
            is_final: bool = False,
        ) -> ResolvedVersion:
            builds.append(version)
            return super().register(kind, name, path, tags, version, checksum=checksum, is_final=is_final)

    registry = Counting(plant.folder / "registry")
    assert register(plant, registry, 1, tmp_path / "work").registered.version == 1
    assert builds == []
    # What a damaged version holds cannot be used, so it is packaged again.
    assert register(plant, registry, 2, tmp_path / "work").registered.version == 7
    assert builds == [7]
    shutil.rmtree(packages / "7" / "content")
    (packages / "1" / "version.json").write_text("")
    again = register(plant, registry, 1, tmp_path / "work").registered
    assert (again.version, again.tags[OLDER_THAN]) == (8, "2")  # as the tags of a damaged package say


class Busy(LocalRegistry):
    """Somebody else is always faster."""

    def register(
        self,
        kind: Kind,
        name: str,
        path: Path,
        tags: Mapping[str, str],
        version: int | None = None,
        *,
        is_final: bool = False,
        checksum: bool = False,
    ) -> ResolvedVersion:
        raise VersionTakenError(f"{name}:{version} is registered already")


def test_a_race_that_never_ends_is_given_up_and_may_be_tried_again(plant: Plant, tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="50 versions in a row were taken"):
        register(plant, Busy(plant.folder / "registry"), 1, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


# Crashes -------------------------------------------------------------------------------------------------


def test_a_crash_at_any_step_of_a_registration_is_healed_by_the_next(plant: Plant, tmp_path: Path) -> None:
    deaths = 0
    for deaths in killed_at_each_step(lambda step: register(plant, plant.registry, 1, tmp_path / f"{step}")):
        assert len(check_packages(plant, tmp_path / "check" / str(deaths))) <= 1
    assert deaths > 30
    assert [package.version for package in check_packages(plant, tmp_path / "check")] == [1]


def killed_after(seconds: float, action: Callable[[], object]) -> bool:
    """Run `action` in a child that is killed (SIGKILL) after that time; whether it was."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            action()
        except BaseException:  # noqa: BLE001 (a forked child must not return to pytest)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    timer = threading.Timer(seconds, os.kill, (child, signal.SIGKILL))
    timer.start()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    timer.join()
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed; its traceback is on stderr"
    return os.WIFSIGNALED(status)


def test_runs_killed_at_random_points_are_healed_by_running_them_again(plant: Plant, tmp_path: Path) -> None:
    moments = random.Random(4)  # noqa: S311 - nothing secret
    plant.validated(1)
    models = range(1, 13)
    killed = sum(killed_after(moments.uniform(0.02, 0.6), partial(plant.deploy, model)) for model in models)
    assert killed > 0
    check_packages(plant, tmp_path / "after the crashes")
    for model in models:
        plant.deploy(model)
    found = check_packages(plant, tmp_path / "healed")
    assert sorted(int(package.tags["model_version"]) for package in found) == list(models)
    assert [package.version for package in found] == list(models)
