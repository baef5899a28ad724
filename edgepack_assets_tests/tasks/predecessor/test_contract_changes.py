"""The interface of a package against that of the package before: what breaks, what is added, and who may allow it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgepack_assets.checks import all_pass
from edgepack_assets.errors import EdgepackError, PackageError
from edgepack_assets.packaging.contract import Contract, read_contract
from edgepack_assets.registry.base import Kind
from edgepack_assets.tasks.predecessor.contract_changes import compare
from edgepack_assets_tests.packaging.conftest import Built
from edgepack_assets_tests.tasks.plant import MODEL, PACKAGE, Plant

BEFORE = Contract(
    inputs={"ph1": "Double", "ph2": "Double"},
    outputs={"prediction": "Integer", "inertia": "Double"},
    metrics={"model_input_min": "String"},
    parameters={"step_size": ("Integer", 300)},
    periodicity=250,
    components={"inference": "python 3.11"},
)


def test_the_same_interface_passes_with_a_row_for_each_part() -> None:
    rows = compare(BEFORE, BEFORE)
    assert [row.name.partition(": ")[2] for row in rows] == [
        "inputs", "outputs", "metrics", "parameters", "periodicity", "components", "Python",
    ]  # fmt: skip
    assert all(row.passed and row.found == "as before" for row in rows)


@pytest.mark.parametrize(
    ("change", "part", "found"),
    [
        ({"inputs": {"ph1": "Double"}}, "inputs", "ph2 is gone"),
        ({"inputs": {"ph1": "Double", "ph2": "Float32"}}, "inputs", "ph2 is Float32, was Double"),
        ({"inputs": {**BEFORE.inputs, "ph3": "Double"}}, "inputs", "ph3 is new"),
        ({"outputs": {"state": "Integer", "inertia": "Double"}}, "outputs", "prediction is gone; state is new"),
        ({"outputs": {"prediction": "String", "inertia": "Double"}}, "outputs", "prediction is String, was Integer"),
        ({"metrics": {}}, "metrics", "model_input_min is gone"),
        ({"parameters": {}}, "parameters", "step_size is gone"),
        (
            {"parameters": {"step_size": ("Integer", 100)}}, "parameters",
            "step_size is Integer with default 100, was Integer with default 300",
        ),
        (
            {"parameters": {"step_size": ("Double", 300)}}, "parameters",
            "step_size is Double with default 300, was Integer with default 300",
        ),
        ({"periodicity": 500}, "periodicity", "is 500 ms, was 250 ms"),
        ({"periodicity": None}, "periodicity", "is none, was 250 ms"),
        ({"components": {"scoring": "python 3.11"}}, "components", "inference is gone; scoring is new"),
    ],
)  # fmt: skip
def test_a_change_that_breaks_what_is_connected_fails(change: dict[str, Any], part: str, found: str) -> None:
    rows = compare(BEFORE, replace(BEFORE, **change))
    assert [(row.name, row.found.strip(" ")) for row in rows if not row.passed] == [(f"interface: {part}", found)]
    assert not all_pass(rows)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"outputs": {**BEFORE.outputs, "state_name": "String"}}, "state_name is new"),
        ({"metrics": {**BEFORE.metrics, "model_input_max": "String"}}, "model_input_max is new"),
        (
            {"parameters": {**BEFORE.parameters, "threshold": ("Double", 0.5)}},
            "threshold is new",
        ),
    ],
)
def test_an_addition_passes_and_is_said(change: dict[str, Any], found: str) -> None:
    rows = compare(BEFORE, replace(BEFORE, **change))
    assert all(row.passed for row in rows)
    assert [row.found for row in rows if row.found != "as before"] == [found]


def test_another_python_warns() -> None:
    rows = compare(BEFORE, replace(BEFORE, components={"inference": "python 3.12"}))
    assert all_pass(rows)
    assert [row.found for row in rows if not row.passed] == ["inference: python 3.12, was python 3.11"]


def test_both_kinds_of_package_have_the_contract_that_was_declared(built: Built) -> None:
    contract = read_contract(built.config)
    assert contract == read_contract(built.deployment)
    assert contract == Contract(
        {"x": "Double"}, {"y": "Double", "text": "String", "seen": "Integer"}, {"input_last": "String"},
        {"factor": ("Integer", 5)}, 250, {"inference": f"python {built.lock.python}"},
    )  # fmt: skip


def changed(
    package: Path, target: Path, change: Callable[[dict[str, Any]], object], file: str = "pipeline_config.yml"
) -> Path:
    """A copy of a deployment package in which one of its YAML files is another."""
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            data = source.read(name)
            if name == "pipeline_config.yml":
                document = yaml.safe_load(data)
                change(document)
                data = yaml.dump(document, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)).encode()
            copy.writestr(name, data)
    return target


def flow(document: dict[str, Any]) -> dict[str, Any]:
    return document["dataFlowPipeline"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.clear(), "dataFlowPipeline: Field required"),
        (lambda document: flow(document).update(pipelineOutputs="text"), "dataFlowPipeline.pipelineOutputs: "),
        (lambda document: flow(document).update(components=[{"name": "a"}]), "components.0.runtime: Field required"),
        (lambda document: flow(document)["pipelineInputs"][0].update(name="x" * 2_000), "pipelineInputs.0.name: "),
        (lambda document: document.update(more="x" * (9 << 20)), "bytes; at most"),
    ],
)
def test_what_is_no_pipeline_package_is_refused(
    built: Built, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        read_contract(changed(built.deployment, tmp_path / "odd.zip", change))


def before_with_more(plant: Plant, tmp_path: Path) -> None:
    """Register a package of model version 1 that has one output more than the tiny component."""
    more = {"name": "speed", "type": "Double", "metric": False}
    package = changed(
        plant.built.deployment, tmp_path / f"{PACKAGE}_1.zip",
        lambda document: flow(document)["pipelineOutputs"].append(more),
    )  # fmt: skip
    plant.registry.register(Kind.MODEL, PACKAGE, package, {"model_name": MODEL, "model_version": "1"})


def test_a_broken_interface_is_not_registered_without_a_reason(plant: Plant, tmp_path: Path) -> None:
    before_with_more(plant, tmp_path)
    with pytest.raises(EdgepackError, match=r"interface: outputs: speed is gone, wanted .*Tiny-Echo-edge:1 of model"):
        plant.deploy(2)
    assert len(plant.packages()) == 1
    tags = plant.deploy(2, override="line 4 does not read the speed").registered.tags
    assert tags["gates_overridden"] == "line 4 does not read the speed"
    assert "interface: outputs: speed is gone" in tags["gates_overridden_failed"]


def test_a_tag_of_the_model_version_may_say_why(plant: Plant, tmp_path: Path) -> None:
    before_with_more(plant, tmp_path)
    (tmp_path / "model.pkl").write_bytes(b"x")
    for tags in ({}, {"interface_change": " the speed comes from the drive now "}):
        plant.registry.register(Kind.MODEL, MODEL, tmp_path / "model.pkl", tags)
    registered = plant.deploy(2).registered
    assert registered.tags["interface_change"] == "the speed comes from the drive now"
    # The next one has the interface of this one: its tags need no reason.
    assert "interface_change" not in plant.deploy(3).registered.tags


def test_a_package_before_that_cannot_be_read_passes_nothing(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "package.zip").write_bytes(b"no zip")
    plant.registry.register(
        Kind.MODEL, PACKAGE, tmp_path / "package.zip", {"model_name": MODEL, "model_version": "1"}
    )  # fmt: skip
    with pytest.raises(EdgepackError, match=r"interface: cannot be compared: package.zip"):
        plant.deploy(2)
