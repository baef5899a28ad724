"""Which model version has a registered package, and how packages are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.operations.packages import find_package, missing_packages, packaged, packages_table
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.registry.local import LocalRegistry

SI, IMAGES = "state_identifier", "image_classification"


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry(tmp_path / "registry")


def add(registry: LocalRegistry, name: str, folder: Path, **tags: str) -> RegisteredVersion:
    file = folder / "file.bin"
    file.write_bytes(b"bytes")
    return registry.register(Kind.MODEL, name, file, tags)


def settings_of(folder: Path, approval: str = "") -> Settings:
    file = folder / "edgepack.yaml"
    file.write_text(f"""
model_types:
  state_identifier:
    implementation: state_identifier
    model_name: state_identifier
    package_name: State Identifier
    raw_data: {{name: raw}}
    {approval}
""")
    return load_settings(file)


def test_the_latest_package_of_a_model_version_is_found_and_shown(registry: LocalRegistry, tmp_path: Path) -> None:
    entry = load_settings().model_type(SI)
    model = add(registry, entry.model_name, tmp_path)
    assert find_package(entry, model, registry) is None
    name = entry.registered_package_name
    add(registry, name, tmp_path, model_name=model.name, model_version="7")
    assert find_package(entry, model, registry) is None

    tags = {"model_name": model.name, "model_version": "1", "silhouette": "0.7654321", "dunn_index": "0.25"}
    package = add(registry, name, tmp_path, **tags, packageid="x")
    assert find_package(entry, model, registry) == package
    table = packages_table([packaged(ModelKey(SI, 1), entry, package)])
    lines = [line.split() for line in table.splitlines()]
    assert ["state_identifier:1", "State-Identifier-edge:2", "dunn_index", "0.25"] in lines
    assert ["silhouette", "0.7654"] in lines
    assert package.location in table
    assert "packageid" not in table


def test_versions_without_a_package_are_missing(registry: LocalRegistry, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    for _ in range(3):
        add(registry, SI, tmp_path)
    add(registry, "State-Identifier-edge", tmp_path, model_name=SI, model_version="2")
    missing = missing_packages(settings, registry)
    assert missing.keys == (ModelKey(SI, 1), ModelKey(SI, 3))
    assert missing.unapproved == ()


def test_versions_that_wait_for_approval_are_told_apart(registry: LocalRegistry, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "approval: required")
    add(registry, SI, tmp_path)
    add(registry, SI, tmp_path, approved_by="the line's engineer")
    missing = missing_packages(settings, registry)
    assert missing.keys == (ModelKey(SI, 2),)
    assert missing.unapproved == (ModelKey(SI, 1),)
