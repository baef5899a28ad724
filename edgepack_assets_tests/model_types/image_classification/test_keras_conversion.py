"""What is converted, with which environment and arguments, and what is refused before any of it runs. The jobs
themselves are not done here."""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack_assets.errors import ComponentError, ConfigError, ModelError
from edgepack_assets.model_types.image_classification import MODEL_TYPE
from edgepack_assets.model_types.image_classification.keras_conversion import REQUIREMENTS
from edgepack_assets.model_types.interface import Converted, Payload, SideJob, SideResult
from edgepack_assets.model_types.keras_models.saved_model import read_signatures
from edgepack_assets_tests.model_types.image_classification.helpers import entry, labelled_payload, load_child_tasks
from edgepack_assets_tests.model_types.keras_models.configs import (
    functional,
    layer,
    sequential,
    write_keras,
    write_saved_model,
)

RESCALING = layer("Rescaling", scale=1 / 255, offset=0.0)
IMAGE = (-1, 32, 32, 3)
PLAIN = sequential(layer("Conv2D"))
TOLD = {"versions": {"tensorflow": "2.21.0", "keras": "3.15.1"}, "difference": 1e-6}


class Jobs:
    """Side jobs that say what they would do. `returned`: by function."""

    def __init__(self, folder: Path, returned: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.returned = {"convert": TOLD, **(returned or {})}
        self.done: list[SideJob] = []
        self.asked: list[tuple[str, ...]] = []

    def versions(self, requirements: tuple[str, ...]) -> Mapping[str, str]:
        self.asked.append(requirements)
        return {"keras": "3.15.1", "tf-keras": "2.21.0", "tensorflow": "2.21.0"}

    def payload(self) -> Payload:
        return labelled_payload(self.folder / "payload", [0, 1, 2, 0, 1, 2, 0])

    def run(self, what: str, job: SideJob) -> SideResult:
        self.done.append(job)
        outputs = {}
        for name in job.outputs:
            outputs[name] = self.folder / name
            outputs[name].write_bytes(b"TFL3")
        return SideResult(self.returned[job.function], outputs, kept=False)


def convert(folder: Path, model: Path, jobs: Jobs, **more: Any) -> Converted:
    source = MODEL_TYPE.read_model(model, entry(**more))
    assert source.conversion is not None
    assert source.files == {}
    work = folder / "work"
    work.mkdir()
    return source.conversion.convert(source, MODEL_TYPE.folder / "component", jobs, work)


@pytest.mark.parametrize(("version", "generation"), [("3.15.1", 3), ("2.15.0", 2)])
def test_a_keras_file_is_converted_by_its_own_generation_of_keras(
    tmp_path: Path, version: str, generation: int
) -> None:
    jobs = Jobs(tmp_path)
    model = write_keras(tmp_path / "m.keras", functional(RESCALING, layer("Conv2D")), version)
    converted = convert(tmp_path, model, jobs)
    (job,) = jobs.done
    assert job.requirements == REQUIREMENTS[generation]
    assert job.inputs == {"model": model}
    assert job.arguments == {
        "kind": "keras", "keras": generation, "signature": "serving_default", "allow_lambda": False, "to": "float",
        "input": {"range": [0, 255]},
    }  # fmt: skip
    assert {path.name for path in job.folder.iterdir()} >= {"inference.py", "decoding.py", "preprocessing.py"}
    assert converted.source.files["model.tflite"].read_bytes() == b"TFL3"
    assert converted.original == {"model": model}
    assert sorted(converted.source.requirements) == ["ai-edge-litert", "numpy", "pillow"]
    assert converted.record["arguments"].items() <= job.arguments.items()
    assert [part.name for part in converted.source.parts] == ["converted to TensorFlow Lite"]


def test_tensorflow_and_tensorflow_cpu_are_never_in_one_environment() -> None:
    """They hold the same files; tf-keras requires the former."""
    for lines in REQUIREMENTS.values():
        names = {line.partition(">")[0] for line in lines}
        assert len(names & {"tensorflow", "tensorflow-cpu"}) == 1
        assert ("tf-keras" in names) == ("tensorflow" in names)


@pytest.mark.parametrize(
    ("configured", "entered"),
    [
        ({}, {"range": [0, 255]}),
        ({"channel_order": "bgr"}, {"range": [0, 255], "channel_order": "bgr"}),
        ({"range": [-1, 1]}, {"range": [-1.0, 1.0]}),
        ({"mean": 0.5, "std": 0.5, "resize": "crop"}, {"mean": [0.5], "std": [0.5], "resize": "crop"}),
    ],
)
def test_the_conversion_sees_images_as_the_component_will(
    tmp_path: Path, configured: dict[str, Any], entered: dict[str, Any]
) -> None:
    jobs = Jobs(tmp_path)
    model = write_keras(tmp_path / "m.keras", functional(RESCALING))
    converted = convert(tmp_path, model, jobs, **({"input": configured} if configured else {}))
    assert jobs.done[0].arguments["input"] == entered
    shipped = converted.source.model
    merged = load_child_tasks()._merged(shipped.get("input", {}), shipped["metadata"]["input"], "float32", 3)
    assert merged == entered


def test_means_that_the_model_learned_are_read_in_the_sandbox(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, {"learned_means": {"means": [65.4, 65.4, 66.5]}})
    model = write_keras(tmp_path / "m.keras", functional(layer("Normalization", axis=[-1], mean=None)))
    convert(tmp_path, model, jobs)
    assert [job.function for job in jobs.done] == ["learned_means", "convert"]
    assert jobs.done[1].arguments["input"] == {"range": [0, 255]}


def test_an_hdf5_file_is_read_in_a_small_environment_first(tmp_path: Path) -> None:
    texts = {"keras_version": "2.21.0", "configuration": json.dumps(functional(RESCALING))}
    jobs = Jobs(tmp_path, {"read_hdf5": texts})
    (tmp_path / "m.h5").write_bytes(b"\x89HDF")
    convert(tmp_path, tmp_path / "m.h5", jobs)
    read, converted = jobs.done
    assert (read.function, read.requirements) == ("read_hdf5", ("h5py>=3.11,<4",))
    assert converted.arguments["kind"] == "hdf5"
    assert converted.requirements == REQUIREMENTS[2]


def saved_model(folder: Path) -> Path:
    (folder / "m" / "variables").mkdir(parents=True)
    write_saved_model(folder / "m", {"serve": ({"image": (1, IMAGE)}, {"scores": (1, (-1, 3))})})
    (folder / "m" / "variables" / "variables.index").write_bytes(b"x")
    return folder / "m"


ONE = {"scores": (1, (-1, 3))}


@pytest.mark.parametrize(
    ("signatures", "message"),
    [
        ({}, r"has no signature 'serving_default' \(it has: none\)"),
        ({"serve": ({"a": (1, IMAGE)}, ONE), "b": ({}, {})}, r"\(it has: b, serve\), .* under conversion\.signature"),
        ({"serving_default": ({"a": (1, IMAGE), "b": (1, IMAGE)}, ONE)}, r"has 2 inputs \(a, b\)"),
        ({"serving_default": ({"a": (1, IMAGE)}, {**ONE, "x": (1, (1,))})}, r"has 2 outputs \(scores, x\)"),
        ({"serving_default": ({"text": (7, (-1,))}, ONE)}, r"'text' .* is string \?, .* takes no images"),
        ({"serving_default": ({"audio": (1, (-1, 43844, 1))}, ONE)}, r"is float32 \?x43844x1, .* takes no images"),
        ({"serving_default": ({"text": (7, None)}, ONE)}, r"'text' .* is string of any shape, .* takes no images"),
        ({"serving_default": ({"image": (1, (-1, -1, -1, 3))}, ONE)}, r"its input is \?x\?x\?x3: height, width and"),
    ],
)
def test_a_saved_model_that_cannot_be_called_is_refused_before_tensorflow_is_there(
    tmp_path: Path, signatures: Any, message: str
) -> None:
    jobs = Jobs(tmp_path)
    write_saved_model(tmp_path / "m", signatures)
    with pytest.raises(ModelError, match=rf"^m: .*{message}"):
        convert(tmp_path, tmp_path / "m", jobs)
    assert not jobs.done and not jobs.asked


@pytest.mark.parametrize("data", [b"", b"x", b"\x08\x01", b"\x12\xff\xff\x7f"])
def test_a_damaged_saved_model_is_refused_by_its_file(tmp_path: Path, data: bytes) -> None:
    (saved_model(tmp_path) / "saved_model.pb").write_bytes(data)
    with pytest.raises(ModelError, match=r"^m.*saved_model\.pb"):
        convert(tmp_path, tmp_path / "m", Jobs(tmp_path))


@given(at=st.integers(0, 200), byte=st.integers(0, 255), keep=st.integers(0, 200))
def test_a_saved_model_of_any_bytes_is_read_or_refused(at: int, byte: int, keep: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = write_saved_model(Path(folder), {"serving_default": ({"a": (1, IMAGE)}, ONE)}) / "saved_model.pb"
        data = bytearray(file.read_bytes()[:keep])
        data[at : at + 1] = bytes([byte])
        file.write_bytes(data)
        with contextlib.suppress(ModelError):
            read_signatures(file.parent, "m")


def test_a_saved_model_without_any_known_shape_is_left_to_tensorflow(tmp_path: Path) -> None:
    write_saved_model(tmp_path / "m", {"serving_default": ({"a": (1, None)}, ONE)}, tags=("other",))
    jobs = Jobs(tmp_path)
    convert(tmp_path, tmp_path / "m", jobs)
    assert [job.function for job in jobs.done] == ["convert"]


def test_a_saved_model_is_converted_by_the_signature_that_is_configured(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    converted = convert(tmp_path, saved_model(tmp_path), jobs, settings={"conversion": {"signature": "serve"}})
    (job,) = jobs.done
    assert (job.arguments["kind"], job.arguments["signature"]) == ("saved_model", "serve")
    assert job.inputs["model"].is_dir()
    # nothing says how pixels enter it: `input`, or what is assumed
    assert (job.arguments["input"], converted.source.model["metadata"]["source"]) == ({}, None)


def test_full_integer_is_calibrated_with_records_of_the_whole_payload(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    model = write_keras(tmp_path / "m.keras", PLAIN)
    settings = {"conversion": {"to": "full_integer", "representative_records": 3}}
    converted = convert(tmp_path, model, jobs, settings=settings)
    with gzip.open(jobs.done[-1].inputs["records"]) as chosen, gzip.open(tmp_path / "payload/records.gz") as payload:
        lines = payload.readlines()
        assert chosen.readlines() == [lines[1], lines[3], lines[5]]
    assert "records" not in converted.original
    assert converted.metadata["representative_records"] == 3


def test_the_model_s_own_code_goes_into_the_sandbox_and_not_into_the_package(tmp_path: Path) -> None:
    code = tmp_path / "plant_layers"
    code.mkdir()
    (code / "__init__.py").write_text("x = 1\n")
    model = write_keras(tmp_path / "m.keras", functional(layer("Cus", None, registered="Cus")))
    jobs = Jobs(tmp_path)
    converted = convert(tmp_path, model, jobs, code_paths=[str(code)])
    assert (jobs.done[0].inputs["code"] / "plant_layers" / "__init__.py").read_text() == "x = 1\n"
    assert set(converted.original) == {"model", "code"}
    assert set(converted.source.files) == {"model.tflite"}


LAMBDA = layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEA"}})


@pytest.mark.parametrize(
    ("config", "version", "message"),
    [
        (functional(LAMBDA), "3.15.1", r"Lambda layers \(lambda\) hold Python code.*allow_lambda"),
        (functional(LAMBDA), "2.15.0", r"Lambda layers \(lambda\) hold Python code.*allow_lambda"),
        (functional(layer("Cus", None, registered="my>Cus")), "3.0.0", r"not Keras' own \(my>Cus\).*code_paths"),
        (functional(shape=(None, None, None, 3)), "3.0.0", r"its input is \?x\?x\?x3.*not all fixed"),
        (PLAIN, "3.16.0", r"was saved by Keras 3\.16\.0, and the environment that converts has keras 3\.15\.1"),
        (PLAIN, "2.22.0", r"was saved by Keras 2\.22\.0, and the environment that converts has tf-keras 2\.21\.0"),
        (PLAIN, "3.new", r"was saved by Keras '3\.new', which is no version"),
    ],
)
def test_what_is_refused_by_name_before_anything_runs(
    tmp_path: Path, config: dict[str, Any], version: str, message: str
) -> None:
    jobs = Jobs(tmp_path)
    with pytest.raises(ModelError, match=rf"m\.keras: .*{message}"):
        convert(tmp_path, write_keras(tmp_path / "m.keras", config, version), jobs)
    assert jobs.done == []


def test_a_lambda_runs_only_where_the_configuration_allows_it(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    model = write_keras(tmp_path / "m.keras", functional(LAMBDA))
    convert(tmp_path, model, jobs, settings={"conversion": {"allow_lambda": True}})
    assert jobs.done[0].arguments["allow_lambda"] is True


@pytest.mark.parametrize("version", ["3.15.9", "2.2.4-tf", "2.21.5", "2.0.5"])
def test_older_versions_and_newer_patches_of_keras_are_taken(tmp_path: Path, version: str) -> None:
    convert(tmp_path, write_keras(tmp_path / "m.keras", PLAIN, version), Jobs(tmp_path))


@pytest.mark.parametrize(
    "returned", [None, {}, {**TOLD, "more": 1}, {**TOLD, "difference": -1.0}, {**TOLD, "versions": {"keras": 3}}]
)
def test_what_the_child_tells_is_not_trusted(tmp_path: Path, returned: Any) -> None:
    with pytest.raises(ComponentError, match="returned something else"):
        convert(tmp_path, write_keras(tmp_path / "m.keras", PLAIN), Jobs(tmp_path, {"convert": returned}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conversion": "int4"}, "int4"),
        ({"conversion": {"to": "float", "representative_records": 3}}, "goes with to: full_integer"),
        ({"conversion": {"max_changed": 2}}, "max_changed"),
        ({"conversion": {"tolerance": -0.1}}, "tolerance"),
        ({"conversion": {"signature": ""}}, "signature"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        entry(settings=settings)


def test_a_file_that_is_ready_comes_before_the_one_it_was_made_from(tmp_path: Path) -> None:
    write_keras(tmp_path / "m" / "m.keras", PLAIN)
    (tmp_path / "m" / "m.tflite").write_bytes(b"x")
    source = MODEL_TYPE.read_model(tmp_path / "m", entry())
    assert source.conversion is None
    assert set(source.files) == {"model.tflite"}
