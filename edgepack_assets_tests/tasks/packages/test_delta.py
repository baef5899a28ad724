"""Deltas of registered packages: which versions get one, what it says of itself, and that a package stands without."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgepack_assets.config.names import name_conflicts
from edgepack_assets.errors import PackageError
from edgepack_assets.packaging import delta_package
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.tasks.packages import delta
from edgepack_assets_tests.tasks.plant import PACKAGE, PackagingHere, Plant

NAME = f"{PACKAGE}-delta"


@pytest.fixture
def plant(plant: Plant) -> Plant:
    plant.delta = True
    return plant


def deltas(plant: Plant) -> list[RegisteredVersion]:
    return plant.registry.versions(Kind.MODEL, NAME)


def test_each_version_but_the_first_gets_a_delta_that_names_both_packages_and_both_sizes(
    plant: Plant, tmp_path: Path
) -> None:
    first = plant.deploy(1)
    assert first.delta is not None and first.delta.registered is None
    assert first.delta.words.startswith("none: it is the first version of the package")
    assert deltas(plant) == []
    second = plant.deploy(2)
    [found] = deltas(plant)
    assert (found.name, found.version) == (NAME, 2)
    file = plant.registry.download(found, tmp_path / "delta")
    tags = found.tags
    assert (tags["delta_from"], tags["delta_of"]) == (f"{PACKAGE}:1", f"{PACKAGE}:2")
    assert tags["delta_of_digest"] == second.registered.digest
    assert tags["delta_from_digest"] == first.registered.digest
    assert int(tags["delta_size"]) == file.stat().st_size
    assert int(tags["full_size"]) == second.registered.size > int(tags["delta_size"])
    assert tags["packageid"] == second.package_id
    assert second.delta is not None
    assert second.delta.words.endswith(f"from {PACKAGE}:1")
    with zipfile.ZipFile(file) as archive:
        assert b"originVersion: '1'" in archive.read("pipeline_config.yml")
    third = plant.deploy(3)
    assert third.delta is not None
    assert [each.tags["delta_from"] for each in deltas(plant)] == [f"{PACKAGE}:1", f"{PACKAGE}:2"]


def test_a_delta_is_registered_once_and_made_up_for_where_a_run_did_not_come_to_it(plant: Plant) -> None:
    plant.delta = False
    plant.deploy(1)
    plant.deploy(2)
    assert deltas(plant) == []
    plant.delta = True
    late, again = plant.deploy(2), plant.deploy(2)
    assert late.was_registered_before and again.was_registered_before
    [found] = deltas(plant)
    assert late.delta is not None and again.delta is not None
    assert late.delta.registered == again.delta.registered == found
    assert late.delta.words == again.delta.words


def test_another_run_that_was_faster_is_no_error(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.deploy(1)
    plant.delta = False
    plant.deploy(2)
    plant.delta = True
    real = PackagingHere.build_delta_package

    def overtaken(self: PackagingHere, origin: Path, package: Path, work: Path) -> delta_package.Delta:
        made = real(self, origin, package, work)
        assert made.path is not None
        monkeypatch.setattr(PackagingHere, "build_delta_package", real)
        plant.deploy(2)
        return made

    monkeypatch.setattr(PackagingHere, "build_delta_package", overtaken)
    report = plant.deploy(2)
    [found] = deltas(plant)
    assert report.delta is not None and report.delta.registered == found


def test_a_package_stands_where_no_delta_can_be_made(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.deploy(1)

    def refused(*_: object) -> delta_package.Delta:
        raise PackageError("the SDK makes no delta")

    monkeypatch.setattr(PackagingHere, "build_delta_package", refused)
    validated = plant.validated(2)
    from edgepack_assets.partitions import ModelKey
    from edgepack_assets.sandbox.sandbox import Sandbox
    from edgepack_assets.tasks.deployment_package import deploy

    with Sandbox(plant.built.settings) as sandbox:
        artefact, report = deploy(ModelKey("press", 2), validated, {}, "", plant.task_context(sandbox))
    [row] = [row for row in report.rows if not row.passed]
    assert (row.name, row.warns, row.found) == ("delta", True, "none: the SDK makes no delta")
    assert [package.version for package in plant.packages()] == [1, 2]
    assert artefact.facts["delta"] == {"package": "", "words": "none: the SDK makes no delta"}


def test_where_files_are_gone_the_full_package_is_to_be_used_and_nothing_fails(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.deploy(1)
    gone = delta_package.Delta(None, "a delta cannot remove files, and 1 are gone: a.py", 0, 9)
    monkeypatch.setattr(PackagingHere, "build_delta_package", lambda *_: gone)
    report = plant.deploy(2)
    assert report.delta is not None
    assert report.delta.words == "none: use the full package: a delta cannot remove files, and 1 are gone: a.py"
    assert deltas(plant) == []


def test_a_delta_of_another_package_under_that_version_is_found_out(plant: Plant, tmp_path: Path) -> None:
    plant.deploy(1)
    (tmp_path / "other.zip").write_bytes(b"other")
    plant.registry.register(Kind.MODEL, NAME, tmp_path / "other.zip", {"delta_of_digest": "0" * 64}, version=2)
    with pytest.raises(AssertionError, match="delta"):  # the blocking check's rows, which Plant asserts
        plant.deploy(2)


def test_without_the_setting_nothing_is_different(plant: Plant) -> None:
    plant.delta = False
    plant.deploy(1)
    report = plant.deploy(2)
    assert report.delta is None
    assert deltas(plant) == []


def test_a_model_must_not_have_the_name_of_deltas() -> None:
    entries = {"a": {"package_name": "Tiny Echo", "model_name": "m"}, "b": {"model_name": NAME, "package_name": "B"}}
    [(keys, message)] = name_conflicts(entries)
    assert list(keys) == ["model_types", "b", "model_name"]
    assert "registers deltas of its packages" in message
    assert delta.delta_name(PACKAGE) == NAME
