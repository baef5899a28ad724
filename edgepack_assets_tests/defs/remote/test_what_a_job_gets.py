"""What goes along with a job, what stays here, and when the job refuses to begin."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

import edgepack_assets
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.checks import CheckRow
from edgepack_assets.compute.azure_ml.environment import installed_versions
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.remote import inside
from edgepack_assets.defs.remote.code_folder import BOOTSTRAP, write_code_folder, write_wheel
from edgepack_assets.defs.remote.mailbox import Mailbox, Reader
from edgepack_assets.defs.remote.request import (
    RunRequest,
    differing_versions,
    job_config,
    pack,
    software,
    unpack,
    write_request,
)
from edgepack_assets.errors import ConfigError, IsolationError, RemoteJobError
from edgepack_assets.sandbox.self_test import Tried
from edgepack_assets_tests.model_types.fakes import install


def settings_of(folder: Path, **more: Any) -> Settings:
    (folder / "code").mkdir(parents=True, exist_ok=True)
    (folder / "code/steps.py").write_text("STEP = 300")
    (folder / "needs.txt").write_text("scikit-learn==1.5.2\n")
    entry = {"implementation": "state_identifier", "model_name": "press_model", "package_name": "Press",
             "raw_data": {"name": "press_raw"}, "code_paths": ["code"], "requirements_file": "needs.txt"}  # fmt: skip
    document = {
        "registry": {"type": "azure_ml", "registry_name": "plant", "credential": {
            "type": "service_principal", "client_secret_variable": "PLANT_SECRET"}},
        "artefacts": {"root": "abfs://edgepack@plantstorage.dfs.core.windows.net/x", "cache": "/var/cache/here"},
        "runtime": {"environments": "/var/environments", "index_url": "https://${WHO}:${SECRET}@index.example/simple",
                    "readable_folders": [str(folder)], "time_limit": 60},
        "run": {"environment": "prod", "output_folders": ["/var/outputs"]},
        "sensors": {"webhook": "https://hooks.example/canary-webhook"},
        "model_types": {"press": entry, "saw": {**entry, "package_name": "Saw"}},
        **more,
    }  # fmt: skip
    (folder / "edgepack.yaml").write_text(yaml.safe_dump(document))
    return load_settings(folder / "edgepack.yaml")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("WHO", "user")
    monkeypatch.setenv("SECRET", "canary-index")
    return settings_of(tmp_path / "here")


def test_the_jobs_configuration_is_ours_without_what_is_this_machines(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, files = job_config(settings, "press")
    there = tmp_path / "there"
    there.mkdir()
    (there / "edgepack.yaml").write_text(text)
    unpack(pack(files), there)
    monkeypatch.delenv("SECRET")
    read = load_settings(there / "edgepack.yaml")
    entry = read.model_type("press")
    assert (entry.code_paths[0] / "steps.py").read_text() == "STEP = 300"
    assert entry.code_paths[0].is_relative_to(there)
    assert entry.code_paths[0].name == "code"  # the import path that the model's pickle names
    assert entry.requirements_file is not None
    assert entry.requirements_file.read_text() == "scikit-learn==1.5.2\n"
    assert list(read.model_types) == ["press"]
    assert read.runtime.index_url == "https://user:canary-index@index.example/simple"
    assert read.runtime.time_limit == 60
    assert read.runtime.isolation == "required"
    assert read.run.environment == "prod"
    assert read.registry.type == "azure_ml"
    assert read.registry.credential.type == "managed_identity"
    for place in ("/var/", "PLANT_SECRET", "canary-webhook", str(settings.file.parent)):
        assert place not in text


def test_a_requirements_file_that_needs_another_one_is_refused(settings: Settings) -> None:
    (settings.file.parent / "needs.txt").write_text("numpy\n-r others.txt\n")
    with pytest.raises(ConfigError, match=r"needs.txt:2: .* names another file"):
        job_config(settings, "press")


@pytest.mark.parametrize("name", ["../escaped", "/etc/passwd", "other/place", "files/../../escaped"])
def test_files_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, "text")
    (tmp_path / "there").mkdir()
    with pytest.raises(RemoteJobError, match="is no file of a request"):
        unpack(data.getvalue(), tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_the_code_of_a_job_is_the_code_that_runs_here(settings: Settings, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_code_folder(tmp_path / name, settings, "press")
    [wheel] = (tmp_path / "one").glob("*.whl")
    assert wheel.read_bytes() == (tmp_path / "two" / wheel.name).read_bytes()
    assert (tmp_path / "one" / BOOTSTRAP).is_file()
    top = Path(edgepack_assets.__file__).parent
    ours = {path.relative_to(top.parent).as_posix() for path in top.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == ours
        archive.extractall(tmp_path / "unpacked")
    # As a process of the job finds it: version, model types and dependencies.
    script = (
        "import importlib.metadata as m, edgepack_assets; d = m.distribution('edgepack-assets');"
        "print(edgepack_assets.__file__, d.version, len(d.entry_points), len(d.requires))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(tmp_path / "unpacked"), "PATH": os.defpath},
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    here = metadata.distribution("edgepack-assets")
    file, version, entry_points, requires = done.stdout.split()
    assert file == str(tmp_path / "unpacked/edgepack_assets/__init__.py")
    assert (version, entry_points, requires) == (
        here.version,
        str(len(here.entry_points)),
        str(len(here.requires or ())),
    )


def test_a_compiled_distribution_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"numpy cannot go to a job .* compiled"):
        write_wheel(tmp_path, metadata.distribution("numpy"), {"numpy"})
    assert list(tmp_path.iterdir()) == []


def test_versions_that_differ_are_named() -> None:
    here = software()
    assert differing_versions(here, dict(here)) is None
    said = differing_versions(here, {**here, "dagster": "1.12.0"})
    assert said is not None
    assert f"dagster 1.12.0 in place of {here['dagster']}" in said
    assert "edgepack-assets unknown" in str(differing_versions(here, None))


@pytest.mark.parametrize("data", [None, b"", b"[]", b"{}", b'{"assets": [], "history": []}', b'{"assets": 1}'])
def test_a_request_that_is_none_is_refused(data: bytes | None) -> None:
    with pytest.raises(RemoteJobError, match="no request that this version can read"):
        RunRequest.from_json(data)


def test_a_job_that_is_started_again_by_the_service_does_nothing_and_says_so(
    settings: Settings, tmp_path: Path
) -> None:
    store = ArtefactStore(str(tmp_path / "artefacts"), tmp_path / "cache")
    box = Mailbox(store.backend, "edgepack-1")
    fields = {"run_id": "1", "dagster_job": "package_model", "assets": ("metrics",), "partition": "press:1",
              "run_config": {}, "tags": {}, "history": ()}  # fmt: skip
    write_request(box.write, settings, "press", fields)
    assert box.claim()

    def load(_: Path) -> Any:
        raise AssertionError("nothing is to be done")

    assert inside.main(["--root", str(tmp_path / "artefacts"), "--job", "edgepack-1"], load) == 2
    with pytest.raises(RemoteJobError, match="a second time"):
        Reader(box).take()


def test_a_node_that_does_not_isolate_is_refused_with_what_to_change(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [CheckRow("the network", False, "reached", "refused"), CheckRow("being root", True, "refused", "refused")]
    monkeypatch.setattr(inside, "try_protections", lambda _: Tried("none", ("it has no network",), rows))
    with pytest.raises(IsolationError, match=r"it has no network; the network: reached.*compute\.docker_args"):
        inside._check_isolation(settings)
    trusting = settings.model_copy(update={"runtime": settings.runtime.model_copy(update={"isolation": "best_effort"})})
    inside._check_isolation(trusting)


def test_a_plug_in_goes_along_with_all_its_modules_and_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "pump-types", "pump", "pump_type")
    (site / "pump_tables.py").write_text("SIZES = [1]")
    info = site / "pump_types-1.2.dist-info"
    (info / "top_level.txt").write_text("pump_type\npump_tables\n")
    with (info / "METADATA").open("a") as metadata_file:
        metadata_file.write("Requires-Dist: hypothesis>1\nRequires-Dist: dagster\n")
    monkeypatch.syspath_prepend(str(site))
    entry = {"implementation": "pump", "model_name": "pump_model", "package_name": "Pump", "raw_data": {"name": "raw"}}
    monkeypatch.setenv("WHO", "user")
    monkeypatch.setenv("SECRET", "canary-index")
    settings = settings_of(tmp_path / "here", model_types={"pump": entry})
    (tmp_path / "code").mkdir()
    write_code_folder(tmp_path / "code", settings, "pump")
    with zipfile.ZipFile(tmp_path / "code/pump_types-1.2-py3-none-any.whl") as archive:
        names = archive.namelist()
    assert {"pump_tables.py", "pump_type/__init__.py", "pump_type/component/entrypoint.py"} < set(names)
    # With a compiled file it cannot, but an environment of the user's own may have it.
    (site / "pump_type/fast.so").write_bytes(b"")
    for given, is_refused in (({}, True), ({"environment_image": "plant/pump:1"}, False)):
        changed = settings_of(tmp_path / "here", model_types={"pump": entry}, compute=given)
        folder = tmp_path / f"code-{is_refused}"
        folder.mkdir()
        with pytest.raises(ConfigError, match=r"fast\.so is compiled") if is_refused else contextlib.nullcontext():
            write_code_folder(folder, changed, "pump")
        assert not list(folder.glob("pump*"))
    assert settings.plug_ins_of("pump") == ("pump-types",)
    [added] = set(installed_versions("pump-types")) - set(installed_versions()) - _needs_of("hypothesis")
    assert added.startswith("hypothesis==")


def _needs_of(distribution: str) -> set[str]:
    return set(installed_versions(distribution)) - set(installed_versions())
