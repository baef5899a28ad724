"""A model that is converted for its config package, and compared later, by its own bytes and the same environment. The
children are real. What they run stands in for TensorFlow, which is heavy: e2e/test_keras_models.py has that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.lock import generation_for
from edgepack_assets.model_types.image_classification import keras_conversion
from edgepack_assets.model_types.interface import ModelSource
from edgepack_assets.operations.garbage import find_garbage
from edgepack_assets.operations.lock_usage import lock_uses
from edgepack_assets.registry.base import Kind
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.conversion import ConversionRecord, compare_answers, convert_model
from edgepack_assets_tests.model_types.image_classification.helpers import labelled_payload, photos, results
from edgepack_assets_tests.model_types.keras_models.configs import functional, layer, write_keras, write_saved_model
from edgepack_assets_tests.tasks.side import KEY, context

CODE = """
import gzip, pathlib, struct

def convert(arguments):
    model = pathlib.Path(arguments["model"])
    names = sorted(path.name for path in model.rglob("*")) if model.is_dir() else [model.name]
    records = len(gzip.open(arguments["records"]).readlines()) if "records" in arguments else 0
    pathlib.Path(arguments["converted"]).write_text(f"{names} {records} {arguments['input']}")
    return {"versions": {"stand-in": "1"}, "difference": 0.0}

def answer_original(arguments):
    assert pathlib.Path(arguments["model"]).exists()
    if "code" in arguments:
        assert (pathlib.Path(arguments["code"]) / "mine.py").is_file()
    with gzip.open(arguments["records"]) as records, open(arguments["answers"], "wb") as answers:
        for number, _ in enumerate(records):
            answers.write(struct.pack("<if", number % 3, 0.5))
    return {}
"""
INSPECTION = {"component": {"scores": "probabilities", "input": {}}, "output": {"classes": 3}}


@pytest.fixture
def tools(tmp_path: Path, plain_settings: RuntimeSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskContext]:
    code = tmp_path / "stand_in.py"
    code.write_text(CODE)
    (tmp_path / "mine.py").write_text("x = 1\n")
    monkeypatch.setattr(keras_conversion, "CHILD_TASKS", code)
    monkeypatch.setattr(keras_conversion, "REQUIREMENTS", {2: (), 3: ()})
    settings = {"conversion": {"to": "full_integer", "representative_records": 2}}
    found = context(tmp_path, plain_settings.environments, settings=settings, code_paths=[str(tmp_path / "mine.py")])
    found.registry.register(Kind.DATA, "raw", photos(tmp_path / "raw", {"a": 2, "b": 2}), {"a": "0", "b": "1"})
    with found.sandbox:
        yield found


def source(tools: TaskContext, model: Path) -> ModelSource:
    return tools.model_type(KEY).read_model(model, tools.entry(KEY))


def keras_file(folder: Path) -> Path:
    return write_keras(folder / "m.keras", functional(layer("Rescaling", scale=1 / 255)))


def saved_model(folder: Path) -> Path:
    (folder / "m" / "variables").mkdir(parents=True)
    image, scores = {"image": (1, (-1, 32, 32, 3))}, {"scores": (1, (-1, 3))}
    write_saved_model(folder / "m", {"serving_default": (image, scores)})
    (folder / "m" / "variables" / "variables.index").write_bytes(b"y")
    return folder / "m"


@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_a_model_is_converted_and_compared_by_its_own_bytes_and_environment(
    tools: TaskContext, tmp_path: Path, kind: str
) -> None:
    model = keras_file(tmp_path) if kind == "keras" else saved_model(tmp_path)
    for name in ("first", "second", "validation"):
        (tmp_path / name).mkdir()
    shipping = convert_model(KEY, source(tools, model), tools, tmp_path / "first")
    text = shipping.source.files["model.tflite"].read_text()
    assert "m.keras" in text or "saved_model.pb" in text
    assert " 2 " in text  # two representative records of the registry's raw data
    assert shipping.facts["representative_data"]["name"] == "raw"
    assert shipping.metadata["conversion_reused"] is False
    assert convert_model(KEY, source(tools, model), tools, tmp_path / "second").metadata["conversion_reused"] is True

    package = Artefact(asset="config_package", partition=str(KEY), parts=dict(shipping.parts))
    tools.store.save(package)
    document = ConversionRecord.model_validate(tools.store.read_json(package.parts["conversion"]))
    (used,) = document.locks
    generation, _ = generation_for((), used.lock.python, tools.store, tools.settings.runtime)
    assert used.lock == generation.lock
    assert used.lock.key in {use.key for use in lock_uses(tools.store, tools.registry, tmp_path / "none")}

    assert len(document.jobs) == 1
    kept = [file.path for file in find_garbage(tools.store, tools.registry, tmp_path / "none", grace=-1)]
    assert not any(job in path for path in kept for job in document.jobs)  # however old: the package was made from it

    component = tmp_path / "component"
    component.mkdir()
    (component / "inference.py").write_text("x = 1\n")
    payload = labelled_payload(tmp_path / "payload", [0, 1, 2, 0])
    answers = results(tmp_path, [(0, 0), (1, 1), (2, 2), (3, 1)], 0.5)
    comparison = compare_answers(
        KEY, package, tools, tmp_path / "validation",
        component=component, payload=payload, results=answers, inspection=INSPECTION,
    )  # fmt: skip
    assert comparison.table == ({"record": 3, "original": "0 (0.5000)", "converted": "1 (0.5000)"},)
    assert not comparison.rows[0].passed


def test_a_model_that_needs_no_conversion_ships_as_it_is(tools: TaskContext, tmp_path: Path) -> None:
    ready = ModelSource({}, {"file": "m"}, (), None)
    shipping = convert_model(KEY, ready, tools, tmp_path)
    assert (shipping.source, shipping.parts, shipping.facts, shipping.metadata) == (ready, {}, {}, {})
    package = Artefact(asset="config_package", partition=str(KEY), parts={})
    payload, answers = labelled_payload(tmp_path / "payload", [0]), results(tmp_path, [(0, 0)])
    found = compare_answers(
        KEY, package, tools, tmp_path, component=tmp_path, payload=payload, results=answers, inspection=INSPECTION
    )
    assert (found.rows, found.table) == ((), ())
