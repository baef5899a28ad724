"""Deltas of deployment packages: laid over the earlier package they give the later one; where they could not there is
none."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack_assets.errors import PackageError
from edgepack_assets.filesystem.reproducible_zip import write_zip
from edgepack_assets.packaging import delta_package
from edgepack_assets.packaging.delta_package import build_delta_package
from edgepack_assets.packaging.deployment_package import build_deployment_package
from edgepack_assets.packaging.stamp import Stamp
from edgepack_assets_tests.packaging import tiny
from edgepack_assets_tests.packaging.conftest import Built

COMPONENT = "components/inference_0.0.1.zip"
WHEELS = "PythonPackages.zip"
WHEEL = "echo_helper-1.5-py3-none-any.whl"
Files = dict[str, bytes]
Change = Callable[[Files, Files, Files], object]
"""Takes the files of the package, of its component and its wheels, to change them."""


def unpacked(data: bytes | Path) -> Files:
    with zipfile.ZipFile(data if isinstance(data, Path) else io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def packed(files: Files, path: Path) -> bytes:
    write_zip(path, dict(files))
    return path.read_bytes()


def changed(package: Path, target: Path, change: Change) -> Path:
    outer = unpacked(package)
    component = unpacked(outer[COMPONENT])
    wheels = unpacked(component[WHEELS])
    change(outer, component, wheels)
    component[WHEELS] = packed(wheels, target)
    outer[COMPONENT] = packed(component, target)
    packed(outer, target)
    return target


def applied(origin: Path, delta: Path) -> Files:
    """Every file that a server has after the delta, by hand: zips are unpacked and laid over each other."""

    def all_files(package: Path) -> Files:
        found = {}
        for name, data in unpacked(package).items():
            if not name.startswith("components/"):
                found[name] = data
                continue
            for inner, content in unpacked(data).items():
                parts = unpacked(content) if inner == WHEELS else {"": content}
                found |= {f"{name}/{inner}/{wheel}": part for wheel, part in parts.items()}
        return found

    return {**all_files(origin), **all_files(delta)}


@pytest.fixture
def versions(built: Built, tmp_path: Path) -> tuple[Path, Path]:
    """Versions 7 and 8 of the tiny package, equal but for the stamp."""
    stamp = Stamp(8, tiny.PACKAGE_ID, tiny.ORIGIN)
    later = build_deployment_package(built.config, built.lock, built.store, tiny.REGISTERED, stamp, tmp_path)
    return built.deployment, later


def nothing(outer: Files, component: Files, wheels: Files) -> None: ...


def with_a_model(component: Files) -> None:
    component["model.pkl"] = bytes(range(256)) * 40


CHANGES: dict[str, Change] = {
    "a retrained model": lambda outer, component, wheels: with_a_model(component),
    "a changed file": lambda outer, component, wheels: component.update({"inside/__init__.py": b"TIMES = 2\n"}),
    "a new wheel": lambda outer, component, wheels: wheels.update({"more-1.0-py3-none-any.whl": b"wheel"}),
    "a new file of the package": lambda outer, component, wheels: outer.update({"NOTES.txt": b"new"}),
    "nothing but the stamp": nothing,
}


@pytest.mark.parametrize("kind", CHANGES)
def test_laid_over_the_earlier_package_it_gives_the_later_one(
    versions: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    origin, later = versions
    later = changed(later, tmp_path / "later.zip", CHANGES[kind]).rename(tmp_path / later.name)
    delta = build_delta_package(origin, later, tmp_path)
    assert delta.reason == ""
    assert delta.path is not None
    assert delta.path.name == "Tiny-Echo-edge_delta_8.zip"
    assert delta.size == delta.path.stat().st_size < delta.full_size == later.stat().st_size
    now, wanted = applied(origin, delta.path), applied(later, later)
    config, full = (yaml.safe_load(files.pop("pipeline_config.yml")) for files in (now, wanted))
    assert now == wanted
    assert (config.pop("packageType"), config.pop("originVersion"), full.pop("packageType")) == ("delta", "7", "full")
    assert config == full
    assert sorted(path.name for path in tmp_path.iterdir()) == [later.name, delta.path.name]


def test_equal_packages_give_equal_deltas(versions: tuple[Path, Path], tmp_path: Path) -> None:
    origin, later = versions
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        delta = build_delta_package(origin, later, tmp_path / name)
        assert delta.path is not None
        made.append(delta.path.read_bytes())
    assert made[0] == made[1]


REMOVALS: dict[str, tuple[Change, str]] = {
    "file": (lambda outer, component, wheels: component.pop("data/text.txt"), f"{COMPONENT}/data/text.txt"),
    "wheel": (
        lambda outer, component, wheels: wheels.clear(),
        f"{COMPONENT}/{WHEELS}/{WHEEL}",
    ),
    "page": (lambda outer, component, wheels: outer.pop("README.html"), "README.html"),
}


@pytest.mark.parametrize("kind", REMOVALS)
def test_what_is_gone_means_the_full_package_and_is_named(
    versions: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    change, name = REMOVALS[kind]
    later = changed(versions[1], tmp_path / "Tiny-Echo-edge_9.zip", change)
    delta = build_delta_package(versions[0], later, tmp_path)
    assert delta.path is None
    assert delta.reason == f"a delta cannot remove files, and 1 are gone: {name}"
    assert not list(tmp_path.glob("*delta*"))


def test_a_delta_that_would_give_something_else_is_not_made(
    versions: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK unpacks every zip that it finds, so a zip of the model's own is not in its delta."""

    def own_zip(outer: Files, component: Files, wheels: Files) -> None:
        component["data/own.zip"] = packed({"a.txt": b"a"}, tmp_path / "own")
        (tmp_path / "own").unlink()

    later = changed(versions[1], tmp_path / "Tiny-Echo-edge_9.zip", own_zip)
    delta = build_delta_package(versions[0], later, tmp_path)
    by_sdk = delta.path is None
    if by_sdk:
        assert f"laid over {versions[0].name} it would not give {later.name}, but differ in" in delta.reason
    else:  # an SDK that mends this gives a right delta
        assert applied(versions[0], delta.path or later).keys() == applied(later, later).keys()
    real = delta_package.create_delta_package

    def wrong(origin: str, package: str) -> Path:
        made = Path(real(origin, package))
        files = unpacked(made)
        files["runtime_config.yml"] = b"other: 1\n"
        packed(files, made)
        return made

    monkeypatch.setattr(delta_package, "create_delta_package", wrong)
    delta = build_delta_package(*versions, tmp_path)
    assert delta.path is None
    assert delta.reason.endswith("but differ in runtime_config.yml")


def test_packages_that_the_sdk_refuses_and_damaged_ones_are_named(versions: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"the SDK makes no delta of .* can not have the same version"):
        build_delta_package(versions[0], versions[0], tmp_path)
    broken = tmp_path / "Tiny-Echo-edge_9.zip"
    broken.write_bytes(b"PK no zip")
    with pytest.raises(PackageError, match=r"Tiny-Echo-edge_9\.zip"):
        build_delta_package(versions[0], broken, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@settings(max_examples=15)
@given(
    before=st.dictionaries(st.sampled_from(["a", "b/c", "d"]), st.binary(max_size=3)),
    after=st.dictionaries(st.sampled_from(["a", "b/c", "d"]), st.binary(max_size=3)),
)
def test_any_change_gives_the_later_package_or_a_reason(
    built: Built, tmp_path_factory: pytest.TempPathFactory, before: Files, after: Files
) -> None:
    folder = tmp_path_factory.mktemp("any")
    stamp = Stamp(8, tiny.PACKAGE_ID, tiny.ORIGIN)
    later = build_deployment_package(built.config, built.lock, built.store, tiny.REGISTERED, stamp, folder)
    origin = folder / "Tiny-Echo-edge_7.zip"
    shutil.copyfile(built.deployment, origin)
    for package, files in ((origin, before), (later, after)):
        changed(package, folder / "new", lambda outer, component, wheels, files=files: component.update(files))
        (folder / "new").rename(package)
    delta = build_delta_package(origin, later, folder)
    assert (delta.path is None) == bool(before.keys() - after.keys())
    if delta.path is not None:
        now, wanted = applied(origin, delta.path), applied(later, later)
        assert {name: data for name, data in now.items() if name != "pipeline_config.yml"} == {
            name: data for name, data in wanted.items() if name != "pipeline_config.yml"
        }
