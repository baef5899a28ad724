"""Image classifiers of every kind, on photos of every mode; and raw data that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from edgepack_assets_tests.e2e.conftest import Plant, run_with
from edgepack_assets_tests.e2e.test_packaging_models import run_in_process, run_with_warnings

pytestmark = pytest.mark.usefixtures("kept_helpers")

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


@pytest.fixture(scope="module")
def image_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models that tell red, green and blue apart (make_image_models.py)."""
    out = tmp_path_factory.mktemp("image_models")
    run_with(["ai-edge-litert", "flatbuffers", "onnx", "numpy"], "make_image_models.py", out)
    return out


def write_photos(folder: Path) -> Path:
    """Class folders of plain photos in many modes, sizes and suffixes."""
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        plain = Image.new("RGB", (37, 21), colour)
        plain.save(folder / name / "plain.png")
        plain.convert("RGBA").save(folder / name / "alpha.PNG")
        plain.quantize(8).save(folder / name / "palette.png")
        plain.resize((640, 480)).save(folder / name / "large.jpeg")
        plain.convert("CMYK").save(folder / name / "print.JPG")
    return folder


@pytest.fixture(scope="module")
def photos(plant: Plant, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a data asset with photos."""
    folder = write_photos(tmp_path_factory.mktemp("photos") / "photos")
    tags = [option for label, name in enumerate(COLOURS) for option in ("--tag", f"{name}={label}")]
    plant.edgepack("data", "add", "photos", str(folder), *tags)
    return "photos"


@pytest.mark.parametrize("model", ["float.tflite", "uint8.tflite", "int8.tflite", "nhwc.onnx", "nchw.onnx"])
def test_models_of_every_kind_answer_photos_of_every_mode(
    plant: Plant, image_models: Path, photos: str, model: str
) -> None:
    name = model.replace(".", "_")
    entry = {"implementation": "image_classification", "raw_data": {"name": photos}}
    plant.configure(**{name: {**entry, "model_name": name, "package_name": name,
                              "gates": {"accuracy_validation": {"min": 1.0}}}})  # fmt: skip
    version = plant.add_model(name, image_models / model)
    assert run_in_process(plant, f"{name}:{version}") == (True, "")
    (package,) = plant.packages(f"{name}-edge")
    assert float(package.tags["accuracy_validation"]) == 1.0
    assert float(package.tags["avg_f1_score_validation"]) == 1.0


def test_an_open_float16_export_with_two_outputs_and_external_data(
    plant: Plant, image_models: Path, photos: str
) -> None:
    entry = {"implementation": "image_classification", "raw_data": {"name": photos}, "model_name": "open",
             "gates": {"accuracy_validation": {"min": 1.0}}}  # fmt: skip
    plant.configure(
        open_told={**entry, "package_name": "told", "output": {"name": "logits"},
                   "input": {"range": [0, 1], "size": [12, 16]}},
        open_untold={**entry, "package_name": "untold", "input": {"size": [12, 16]}},
    )  # fmt: skip
    version = plant.add_model("open", image_models / "open")

    assert run_with_warnings(plant, f"open_told:{version}") == (True, "", "")
    (package,) = plant.packages("told-edge")
    assert float(package.tags["accuracy_validation"]) == 1.0

    success, said = run_in_process(plant, f"open_untold:{version}")
    assert not success and "has 2 outputs, 'features' (?x3), 'logits' (?x3)" in said
    assert plant.packages("untold-edge") == []


def test_a_model_trained_on_bgr_is_packaged_as_it_was_trained(plant: Plant, image_models: Path, photos: str) -> None:
    entry = {"implementation": "image_classification", "raw_data": {"name": photos}, "model_name": "bgr",
             "gates": {"accuracy_validation": {"min": 1.0}}}  # fmt: skip
    plant.configure(
        assumed={**entry, "package_name": "assumed"},
        configured={**entry, "package_name": "configured", "input": {"channel_order": "bgr", "range": [0, 1]}},
    )
    version = plant.add_model("bgr", image_models / "bgr.onnx")

    success, said, warned = run_with_warnings(plant, f"assumed:{version}")
    assert not success and "accuracy_validation" in said
    assert plant.packages("assumed-edge") == []
    assert "how images enter the model is known: pixel values 0 to 255 become 0 to 1 (assumed)" in warned
    assert "no other usual image input answers clearly better: of 15 images, 0.333 are right as packaged" in warned
    assert "1.000 with input: {range: [0, 1], channel_order: bgr, resize: squeeze" in warned

    assert run_with_warnings(plant, f"configured:{version}") == (True, "", "")
    (package,) = plant.packages("configured-edge")
    assert float(package.tags["accuracy_validation"]) == 1.0


def test_a_keras_file_that_was_not_copied_whole_is_refused(plant: Plant, tmp_path: Path, photos: str) -> None:
    (tmp_path / "model.keras").write_bytes(b"PK")
    entry = {"implementation": "image_classification", "raw_data": {"name": photos}}
    plant.configure(keras={**entry, "model_name": "keras", "package_name": "keras"})
    version = plant.add_model("keras", tmp_path / "model.keras")
    success, said = run_in_process(plant, f"keras:{version}")
    assert not success
    assert "model.keras: is not a zip file that can be read" in said
    assert plant.packages("keras-edge") == []


def bad_images(folder: Path, defect: str) -> tuple[Path, list[str]]:
    """(folder, tags) of photos with one thing wrong."""
    write_photos(folder)
    tags = [f"{name}={label}" for label, name in enumerate(COLOURS)]
    if defect == "bitmap":
        Image.new("RGB", (4, 4)).save(folder / "red" / "photo.bmp")
    elif defect == "unreadable":
        (folder / "red" / "torn.png").write_bytes((folder / "red" / "plain.png").read_bytes()[:40])
    elif defect == "unknown class":
        tags = tags[:-1]
    elif defect == "empty":
        for path in folder.rglob("*.*"):
            path.unlink()
        (folder / "red" / ".DS_Store").write_text("")
    return folder, tags


@pytest.mark.parametrize(
    ("defect", "message"),
    [("bitmap", "photo.bmp"), ("unreadable", "torn.png"), ("unknown class", "blue"), ("empty", "no image")],
)
def test_images_that_cannot_be_used_are_named(plant: Plant, tmp_path: Path, defect: str, message: str) -> None:
    folder, tags = bad_images(tmp_path / "photos", defect)
    data = f"photos_{defect.replace(' ', '_')}"
    plant.edgepack("data", "add", data, str(folder), *[part for tag in tags for part in ("--tag", tag)])
    entry = {"implementation": "image_classification", "model_name": "image_classification"}
    plant.configure(bad_photos={**entry, "package_name": "bad photos", "raw_data": {"name": data}})
    success, said = run_in_process(plant, "bad_photos:1")
    assert not success
    assert "payload_data of bad_photos:1" in said
    assert message in said
    assert plant.packages("bad-photos-edge") == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ph2": None}, "column ph2 is missing"),
        ({"ph2": ["a", "b"]}, "column ph2 holds"),
    ],
)
def test_a_recording_that_cannot_be_used_is_named(
    plant: Plant, tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    frame = pd.DataFrame({"ph1": [1.0, 2.0], "ph2": [1.0, 2.0], "ph3": [1.0, 2.0]})
    for name, values in columns.items():
        frame = frame.drop(columns=name) if values is None else frame.assign(**{name: values})
    frame.to_parquet(tmp_path / "bad.parquet")
    plant.edgepack("data", "add", "bad_recording", str(tmp_path / "bad.parquet"), "--force")
    entry = {"implementation": "state_identifier", "model_name": "state_identifier"}
    plant.configure(bad_recording={**entry, "package_name": "bad recording", "raw_data": {"name": "bad_recording"}})
    manifest = (
        Path(plant.environment["DAGSTER_HOME"]).parent / "artefacts/manifests/payload_data/state_identifier/1.json"
    )
    before = manifest.read_bytes()
    success, said = run_in_process(plant, "bad_recording:1")
    assert not success
    assert "bad.parquet" in said
    assert message in said
    assert plant.packages("bad-recording-edge") == []
    assert manifest.read_bytes() == before
    assert json.loads(before)["asset"] == "payload_data"
