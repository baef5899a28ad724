"""Versions of data assets in Azure ML, which may be any text: which one is the latest, and how one is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgepack_assets.cli.main import main
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.versions import Version, is_version_text, read_version
from edgepack_assets.defs.assets.input_versions import current_raw_data, data_version
from edgepack_assets.errors import NotFoundError
from edgepack_assets.registry.base import Kind, files_of, latest, resolve
from edgepack_assets_tests.azure.control_plane import Shelf
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.registry.conftest import azure_ml

KINDS = ["workspace", "registry"]


def shelf_of(azure: LoopbackAzure, kind: str) -> Shelf:
    return azure.azure_ml.workspace if kind == "workspace" else azure.azure_ml.registry


def put(azure: LoopbackAzure, kind: str, version: str, **properties: Any) -> dict[str, Any]:
    uri = {"dataUri": "azureml://datastores/d/paths/x"}
    return azure.azure_ml.put(shelf_of(azure, kind), "data", "raw", version, {**uri, **properties}).properties


@given(st.text(max_size=30))
def test_a_version_is_read_as_it_is_written(text: str) -> None:
    assert str(read_version(text)) == text
    assert isinstance(read_version(text), str) or is_version_text(text)


@pytest.mark.parametrize("text", ["", " 1", "1\r", "a\nb", "a/b", "..", "a\\b", "\ufeff1", "x" * 256])
def test_what_is_no_line_of_a_url_is_no_version(text: str) -> None:
    assert not is_version_text(text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("registered", "wanted"),
    [
        (["2024-06-01", "2024-05-01"], "2024-05-01"),
        (["v1.10", "v1.9"], "v1.9"),
        (["1.0.0", "2", "0.9.0-rc.1+linux"], "0.9.0-rc.1+linux"),
        (["9f86d081884c7d65", "latest-good"], "latest-good"),
        (["1", "2", "10"], 10),
        (["10", "9"], 9),
        (["7", "007"], "007"),
        (["Juni 2024", "a:b@c"], "a:b@c"),
    ],
)
def test_the_latest_data_is_the_one_created_last(
    azure: LoopbackAzure, kind: str, registered: list[str], wanted: Version
) -> None:
    """As Azure ML's own label has it, whatever the versions look like."""
    for version in registered:
        put(azure, kind, version)
    registry = azure_ml(azure, kind)
    assert [str(found.version) for found in registry.versions(Kind.DATA, "raw")] == registered
    found = resolve(registry, Kind.DATA, "raw", "latest")
    assert (found.version, str(found)) == (wanted, f"raw:{wanted}")
    for version in registered:
        assert registry.get(Kind.DATA, "raw", read_version(version)).version == read_version(version)
    first = registry.get(Kind.DATA, "raw", read_version(registered[0]))
    assert dict(registry.set_tags(first, {"seen": "yes"}).tags) == {"seen": "yes"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_latest_data_is_in_force_and_whole(azure: LoopbackAzure, kind: str) -> None:
    """The service's label may name one that is archived; the list may lag behind what the label names."""
    for version in ("2024-01", "2024-02"):
        put(azure, kind, version)
    archived = put(azure, kind, "2024-03", isArchived=True)
    registry = azure_ml(azure, kind)
    assert latest(registry, Kind.DATA, "raw").version == "2024-02"
    with pytest.raises(NotFoundError, match="has no version 2024-03; its versions are: 2024-01, 2024-02"):
        registry.get(Kind.DATA, "raw", "2024-03")
    failed = put(azure, kind, "2024-04", provisioningState="Failed")
    assert latest(registry, Kind.DATA, "raw").version == "2024-02"
    with pytest.raises(NotFoundError, match=r"raw:2024-04 is not there for use: Azure ML says that it is failed"):
        registry.get(Kind.DATA, "raw", "2024-04")
    failed["provisioningState"] = "Succeeded"
    assert latest(registry, Kind.DATA, "raw").version == "2024-04"
    azure.azure_ml.index_lag = 3600
    put(azure, kind, "2024-05")
    assert latest(registry, Kind.DATA, "raw").version == "2024-05"
    assert archived["isArchived"]


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_versions_are_numbers_beside_the_text_of_others(
    azure: LoopbackAzure, model: Path, tmp_path: Path, kind: str
) -> None:
    put(azure, kind, "2024-01")
    registry = azure_ml(azure, kind)
    made = registry.register(Kind.DATA, "raw", model, {"lot": "7"})
    assert made.version == 1
    assert latest(registry, Kind.DATA, "raw") == made
    assert {name for name, _ in files_of(registry.download(made, tmp_path / "out"))} == {
        name for name, _ in files_of(model)
    }
    put(azure, kind, "2024-02")
    assert latest(registry, Kind.DATA, "raw").version == "2024-02"


CONFIG = """\
registry: {registry}
model_types:
  press:
    implementation: state_identifier
    model_name: press
    package_name: Press
    raw_data:
      name: raw
      version: {version}
"""


@pytest.mark.parametrize(
    ("written", "version"),
    [
        ("2024-06-01", "2024-06-01"), ('"2024-06-01"', "2024-06-01"), ("1.0", "1.0"), ("010", "010"), ("1_0", "1_0"),
        ("0x10", "0x10"), ("1e3", "1e3"), ("v1.2", "v1.2"), ("7", 7), ("'7'", 7), ("${VERSION}", "2024-07-01"),
        ("latest", "latest"), ("yes", "yes"), ("1:30", "1:30"), ("2024-06-01 10:00:00", "2024-06-01 10:00:00"),
    ],
)  # fmt: skip
def test_a_configured_version_is_the_text_as_it_is_written(
    azure: LoopbackAzure, tmp_path: Path, written: str, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERSION", "2024-07-01")
    file = tmp_path / "edgepack.yaml"
    file.write_text(CONFIG.format(registry=json.dumps(azure.registry_section()), version=written))
    found = load_settings(file).model_type("press").raw_data.version
    assert (found, type(found)) == (version, type(version))


def test_a_configured_version_is_found_and_named_everywhere(
    azure: LoopbackAzure, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration, the observation of raw data, the lists and the download of the command."""
    file = tmp_path / "edgepack.yaml"
    file.write_text(CONFIG.format(registry=json.dumps(azure.registry_section()), version="2024-06-01"))
    monkeypatch.setenv("EDGEPACK_CONFIG", str(file))
    registry = azure_ml(azure, "workspace")
    location = registry.register(Kind.DATA, "raw", model, {}).location
    for version in ("2024-06-01", "2024-07-01"):
        put(azure, "workspace", version, dataUri=location)
    raw = current_raw_data("press", load_settings(), registry).resolve()
    assert data_version(raw.name, raw.version, raw.digest) == f"raw:2024-06-01@{raw.digest}"
    listed = CliRunner().invoke(main, ["data", "list", "raw", "--json"])
    assert [found["version"] for found in json.loads(listed.stdout)] == [1, "2024-06-01", "2024-07-01"]
    assert "2024-06-01" in CliRunner().invoke(main, ["data", "list"]).output
    done = CliRunner().invoke(main, ["data", "download", "raw:2024-06-01", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (Path(done.stdout.strip()) / "MLmodel").read_bytes() == (model / "MLmodel").read_bytes()
    for group, asked in (("model", "press:2024-06-01"), ("data", "raw:"), ("data", "2024-06-01")):
        refused = CliRunner().invoke(main, [group, "download", asked, str(tmp_path / "out")])
        assert refused.exit_code == 2
        assert "write NAME:VERSION" in refused.output
