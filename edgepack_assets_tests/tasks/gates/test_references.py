"""What a gate is compared with, where packages of the registry are damaged."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.config.gate_settings import GateSettings
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.tasks.gates.compare import Reference
from edgepack_assets.tasks.gates.references import references

KEY = ModelKey("press", 3)
METRICS = Artefact(asset="metrics", partition=str(KEY), parts={}, made_from={"payload_data": "p"})


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    made = LocalRegistry(tmp_path / "registry")
    (tmp_path / "package.zip").write_bytes(b"zip")
    for version in (1, 2):
        tags = {"model_name": "press_model", "model_version": str(version), "score": f"0.{version}"}
        made.register(Kind.MODEL, "Press-edge", tmp_path / "package.zip", tags)
    return made


def reference(registry: LocalRegistry, compared_with: Any) -> Reference:
    gates = {"score": GateSettings(reference=compared_with)}
    entry = SimpleNamespace(gates=gates, registered_package_name="Press-edge", model_name="press_model")
    context: Any = SimpleNamespace(entry=lambda _: entry, registry=registry, log=logging.getLogger("test"))
    return references(METRICS, KEY, context)["score"]


def package(registry: LocalRegistry, version: int) -> Path:
    return registry.path / "models" / "Press-edge" / str(version)


@pytest.mark.parametrize("compared_with", ["previous", 2])
def test_a_package_whose_content_is_gone_is_still_compared_with(registry: LocalRegistry, compared_with: object) -> None:
    shutil.rmtree(package(registry, 2) / "content")
    assert reference(registry, compared_with).value == 0.2


def test_a_package_that_cannot_be_read_hides_no_other_and_is_named(registry: LocalRegistry) -> None:
    (package(registry, 2) / "tags.json").write_text("")
    found = reference(registry, "previous")
    assert found.value == 0.1
    assert "Press-edge:2 is damaged and passed over" in found.source


@pytest.mark.parametrize("compared_with", ["previous", 2])
def test_a_gate_is_not_open_because_what_it_compares_with_cannot_be_read(
    registry: LocalRegistry, compared_with: object
) -> None:
    for version in (1, 2):
        (package(registry, version) / "tags.json").write_text("")
    found = reference(registry, compared_with)
    assert (found.value, found.nothing_yet) == (None, False)
    assert "Press-edge:2 is damaged and passed over" in found.source


def test_with_no_package_at_all_there_is_nothing_to_compare_with(registry: LocalRegistry) -> None:
    shutil.rmtree(registry.path)
    assert reference(registry, "previous").nothing_yet
