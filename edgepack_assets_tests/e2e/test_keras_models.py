"""Keras and TensorFlow models of every kind, converted by the real TensorFlow, against what Keras itself answers.

Their environments are heavy (1.6 and 2.1 GB, minutes to build), so these tests run only where
EDGEPACK_TESTS_TENSORFLOW is set. All else about them is tested without TensorFlow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.artefacts.store import ArtefactStore, open_store
from edgepack_assets.config.loader import load_settings
from edgepack_assets.model_types.interface import read_lines
from edgepack_assets.tasks.side_jobs import KIND
from edgepack_assets_tests.e2e.conftest import Plant, run_with
from edgepack_assets_tests.e2e.test_packaging_models import run_in_process

pytestmark = pytest.mark.skipif(
    not os.environ.get("EDGEPACK_TESTS_TENSORFLOW"),
    reason="builds environments with TensorFlow: set EDGEPACK_TESTS_TENSORFLOW=1",
)
LIBRARIES = {3: ["tensorflow-cpu==2.21.0"], 2: ["tensorflow==2.21.0", "tf-keras==2.21.0"]}
TOLERANCE = {"float": 1e-5, "float16": 0.01, "dynamic_range": 0.05, "full_integer": 0.15}
OUTSIDE = {"input": {"range": [-1, 1]}}
RAW = {"input": {"range": [0, 255]}}


@pytest.fixture(scope="module", params=[3, 2], ids=["keras3", "keras2"])
def models(request: pytest.FixtureRequest, plant: Plant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models of one generation of Keras (make_keras_models.py); its photos are registered."""
    out: Path = tmp_path_factory.mktemp("keras") / f"keras{request.param}"
    run_with([*LIBRARIES[request.param], "pillow"], "make_keras_models.py", str(request.param), out)
    tags = [option for label in range(3) for option in ("--tag", f"colour-{label}={label}")]
    plant.edgepack("data", "add", out.name, str(out / "photos"), *tags, "--force")
    return out


def package(plant: Plant, models: Path, name: str, entry: str, **more: Any) -> tuple[str, bool, str]:
    """(partition, success, what was said) of packaging a model."""
    plant.configure(**{entry: {"implementation": "image_classification", "model_name": entry, "package_name": entry,
                               "raw_data": {"name": models.name}, "gates": {"accuracy_validation": {"min": 0.9}},
                               **more}})  # fmt: skip
    version = plant.add_model(entry, models / name)
    success, said = run_in_process(plant, f"{entry}:{version}")
    return f"{entry}:{version}", success, said


def store_of(plant: Plant) -> ArtefactStore:
    return open_store(load_settings(plant.config))


def answers(plant: Plant, partition: str) -> dict[str, tuple[int, float]]:
    """Name of the photo -> class and probability that the package gave."""
    store = store_of(plant)
    sources = store.fetch(store.load("payload_data", partition).parts["sources"])
    results = store.fetch(store.load("validation_results", partition).parts["results"])
    names = {source["record"]: Path(source["file"]).stem for source in read_lines(sources)}
    return {
        names[line["record"]]: (int(given["prediction"]), json.loads(given["ic_probability"])["value"])
        for line in read_lines(results) if (given := line["outputs"])
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected", "more"),
    [
        ("inside.keras", "inside", {}),
        ("inside.h5", "inside", {}),
        ("sequential.keras", "inside", {}),
        ("mlflow_tensorflow", "inside", {}),
        ("mlflow_keras", "inside", {}),
        ("outside.keras", "outside", OUTSIDE),
        ("export", "inside", RAW),
        ("saved", "inside", RAW),
        *(("inside.keras", "inside", {"conversion": option}) for option in TOLERANCE if option != "float"),
    ],
)
def test_the_package_answers_as_keras_itself(
    plant: Plant, models: Path, name: str, expected: str, more: dict[str, Any]
) -> None:
    option = more.get("conversion", "float")
    entry = f"{models.name}_{name.replace('.', '_')}_{option}"
    partition, success, said = package(plant, models, name, entry, **more)
    assert success, said
    wanted = json.loads((models / "expected.json").read_text())[expected]
    found = answers(plant, partition)
    assert len(found) == len(wanted) == 60
    for number, scores in enumerate(wanted):
        label, probability = found[str(number)]
        assert scores[label] == pytest.approx(max(scores), abs=TOLERANCE[option])
        assert probability == pytest.approx(scores[label], abs=TOLERANCE[option])
    assert len(plant.packages(f"{entry}-edge")) == 1

    before = store_of(plant).named(KIND)
    plant.materialize(partition, "config_package")
    assert store_of(plant).named(KIND) == before  # a second packaging converts nothing


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lambda.h5", "Lambda layers (lambda) hold Python code"),
        ("custom.h5", "Twice"),
        ("bicubic.keras", "TensorFlow Lite lacks operations that it needs: ResizeBicubic"),
        ("any_size.keras", "height, width and channels are not all fixed"),
        ("no_signature", "has no signature 'serving_default'"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(plant: Plant, models: Path, name: str, message: str) -> None:
    entry = f"{models.name}_{name.replace('.', '_')}"
    _, success, said = package(plant, models, name, entry)
    assert not success
    assert message in said
    assert plant.packages(f"{entry}-edge") == []


def test_a_conversion_that_changes_more_than_is_allowed_is_not_registered(plant: Plant, models: Path) -> None:
    strict = {"to": "dynamic_range", "tolerance": 1e-9, "max_changed": 0}
    entry = f"{models.name}_strict"
    _, success, said = package(plant, models, "inside.keras", entry, conversion=strict)
    assert not success
    assert "the conversion to dynamic_range keeps the original model's answers" in said
    assert plant.packages(f"{entry}-edge") == []
