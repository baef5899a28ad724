"""The config package: what the SDK saves, the same bytes wherever it is built, and nothing else shipped."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgepack_assets.checks import all_pass
from edgepack_assets.environments.wheels import GLIBC_MINOR, edge_tags
from edgepack_assets.errors import EdgepackError, PackageError
from edgepack_assets.model_types.interface import ComponentSpec, Variable
from edgepack_assets.packaging.config_package import build_config_package, normalised
from edgepack_assets.packaging.deployment_package import config_package_rows
from edgepack_assets.packaging.stamp import UNSTAMPED_ID, UNSTAMPED_VERSION
from edgepack_assets_tests.crashes import full_disk
from edgepack_assets_tests.packaging import tiny
from edgepack_assets_tests.packaging.conftest import Built

TOP = f"Tiny-Echo_{UNSTAMPED_VERSION}"


def build(tmp_path: Path, built: Built, files: dict[str, str], spec: ComponentSpec = tiny.SPEC) -> Path:
    component = tiny.write_component(tmp_path / "component", files)
    return build_config_package(component, spec, built.lock, tiny.NAME, "", tmp_path)


def test_it_holds_what_the_sdk_saves_and_what_ships(built: Built) -> None:
    assert built.config.name == f"{TOP}.zip"
    with zipfile.ZipFile(built.config) as archive:
        names = archive.namelist()
        assert names[0] == f"{TOP}/"  # the SDK's runner takes the first entry for the top folder
        inside = {f"{TOP}/inference/{name}" for name in (*tiny.FILES, "requirements.txt", "requirements.lock")}
        around = {f"{TOP}/{name}" for name in ("README.html", "datalink_metadata.yml", "pipeline_config.yml")}
        assert set(names[1:]) == inside | around
        pipeline = yaml.safe_load(archive.read(f"{TOP}/pipeline_config.yml"))
        assert "echo-helper ==1.5" in archive.read(f"{TOP}/inference/requirements.txt").decode()
        locked = archive.read(f"{TOP}/inference/requirements.lock").decode()
    assert locked == f"echo-helper==1.5 --hash=sha256:{built.lock.packages[0].digest}\n"
    info = pipeline["dataFlowPipelineInfo"]
    assert (info["dataFlowPipelineVersion"], info["packageId"]) == (UNSTAMPED_VERSION, str(UNSTAMPED_ID))
    assert (info["projectName"], info["createdOn"]) == (tiny.NAME, "1980-01-01T00:00:00Z")
    component = pipeline["dataFlowPipeline"]["components"][0]
    assert component["runtime"] == {"type": "python", "version": built.lock.python}
    assert [v["name"] for v in component["outputType"]] == ["y", "text", "seen", "input_last"]


def test_it_is_fit_by_the_sdk_s_own_schema(built: Built) -> None:
    parts = config_package_rows(built.config, built.lock)
    assert all_pass(parts)
    assert [part.name for part in parts] == [
        "components",
        "entrypoint",
        "pipeline_config.yml holds to the SDK's schema",
        "runtime_config.yml holds to the SDK's schema",
        "size of the deployment package",
    ]


def test_our_platforms_are_those_of_the_sdk() -> None:
    from simaticai.packaging.constants import PLATFORMS

    assert {tag.platform for tag in edge_tags("3.12")} == set(PLATFORMS)
    assert f"manylinux_2_{GLIBC_MINOR}_x86_64" in PLATFORMS


SURROUNDINGS: list[tuple[dict[str, str], int]] = [
    ({"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "0", "LC_ALL": "C", "USER": "a", "HOME": "/nonexistent"}, 0o077),
    ({"TZ": "America/Lima", "PYTHONHASHSEED": "4242", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "0"}, 0o000),
    ({"SIMATICAI_TELEMETRY": "allow"}, 0o022),
]


def test_bytes_are_the_same_in_any_surroundings(built: Built, tmp_path: Path) -> None:
    """Clock, zone, umask, working directory, hash seed, locale, user, telemetry: both packages."""
    lock = tmp_path / "lock.json"
    lock.write_text(built.lock.model_dump_json())
    project = Path(__file__).parents[2]
    for number, (variables, umask) in enumerate(SURROUNDINGS):
        out = tmp_path / f"out{number}"
        out.mkdir()
        plain = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        subprocess.run(
            [sys.executable, "-m", "edgepack_assets_tests.packaging.tiny", str(lock), built.store.root_url, str(out)],
            cwd=out, umask=umask, check=True, env={**plain, "PYTHONPATH": str(project), **variables},
        )  # fmt: skip
        for mine in (built.config, built.deployment):
            assert (out / mine.name).read_bytes() == mine.read_bytes(), (mine.name, variables)


def test_times_are_replaced_where_they_are_times_only() -> None:
    document = {"createdOn": "2024-05-05", "deep": [{"updatedOn": 3}], "text": "a\n  createdOn: yesterday\n"}
    text = normalised(yaml.safe_dump(document).encode())
    time = "1980-01-01T00:00:00Z"
    assert yaml.safe_load(text) == {"createdOn": time, "deep": [{"updatedOn": time}], "text": document["text"]}
    assert normalised(text) == text


def test_a_file_of_the_model_may_be_named_as_ours_are_below_the_top(built: Built, tmp_path: Path) -> None:
    files = {**tiny.FILES, "data/PythonPackages.zip": "no zip", "data/README.html": "{}", "data/requirements.txt": "x"}
    with zipfile.ZipFile(build(tmp_path, built, files)) as archive:
        assert {name: archive.read(f"{TOP}/inference/{name}").decode() for name in files} == files


def test_files_of_the_model_keep_their_names_or_are_refused(built: Built, tmp_path: Path) -> None:
    for number, name in enumerate(("requirements.txt", "requirements.lock", "PythonPackages.zip")):
        with pytest.raises(PackageError, match=f"the component holds {name}, which the packaging writes itself"):
            build(tmp_path / str(number), built, {**tiny.FILES, name: "numpy"})
    for number, name in enumerate(("deep/files.yml", "deep/dependencies.yml", "a..b.txt")):
        with pytest.raises(PackageError, match=r"^the SDK refuses the component: .*(reserved|relative)"):
            build(tmp_path / f"sdk{number}", built, {**tiny.FILES, name: ""})


def test_a_link_that_model_code_left_is_not_followed(built: Built, tmp_path: Path) -> None:
    component = tiny.write_component(tmp_path / "component")
    (component / "data" / "notes").symlink_to("/etc/hostname")
    with pytest.raises(PackageError, match="the component holds data/notes, which is a link"):
        build_config_package(component, tiny.SPEC, built.lock, tiny.NAME, "", tmp_path)


BAD_SPECS: dict[str, Any] = {
    "a type of no kind": {"inputs": (Variable("x", "Dou ble!"),)},
    "an input that is also an output": {"outputs": (Variable("x", "Double"),)},
    "a metric without underscore": {"metrics": (Variable("last", "String"),)},
    "a periodicity below zero": {"periodicity": -1},
}


@pytest.mark.parametrize("name", BAD_SPECS)
def test_what_the_sdk_refuses_is_told(built: Built, tmp_path: Path, name: str) -> None:
    spec = ComponentSpec(**{**vars(tiny.SPEC), **BAD_SPECS[name]})
    with pytest.raises(PackageError, match=r"^the SDK refuses the component: ."):
        build(tmp_path, built, tiny.FILES, spec)


def test_nothing_is_left_in_the_temporary_folder(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    build(tmp_path / "good", built, tiny.FILES)
    with pytest.raises(PackageError):
        build(tmp_path / "bad", built, {**tiny.FILES, "files.yml": ""})
    assert list(temporary.iterdir()) == []


def test_a_full_disk_is_told(built: Built, tmp_path: Path) -> None:
    component = tiny.write_component(tmp_path / "component")
    with full_disk(100), pytest.raises(EdgepackError, match="cannot be written: File too large"):
        build_config_package(component, tiny.SPEC, built.lock, tiny.NAME, "", tmp_path)


def test_files_that_the_sdk_does_not_see_ship_with_the_same_bytes(
    tmp_path: Path, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large files the SDK gets empty ones: no byte of the package may tell."""
    files = {**tiny.FILES, "model.bin": "weights" * 1000, "deep/more.bin": "w" * 5000, "helper.py": "X = 1\n" * 1000}
    packages, seen = [], []
    for name, largest in (("all", 1 << 30), ("small", 1000)):
        monkeypatch.setattr("edgepack_assets.packaging.config_package._LARGEST_FOR_SDK", largest)
        (tmp_path / name).mkdir()
        packages.append(build(tmp_path / name, built, files).read_bytes())
        saved = tmp_path / name / "saved" / TOP / "inference"
        seen.append({each: (saved / each).stat().st_size for each in ("model.bin", "deep/more.bin", "helper.py")})
    assert packages[0] == packages[1]
    assert seen[1] == {"model.bin": 0, "deep/more.bin": 0, "helper.py": 6000}, "Python code is shown to the SDK"
    assert seen[0] == {"model.bin": 7000, "deep/more.bin": 5000, "helper.py": 6000}
