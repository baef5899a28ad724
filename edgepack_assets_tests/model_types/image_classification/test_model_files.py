"""Reading a registered model: which files ship, what runs them, what is refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.image_classification import MODEL_TYPE, onnx_model
from edgepack_assets_tests.model_types.image_classification.helpers import entry
from edgepack_assets_tests.model_types.image_classification.onnx_models import build


def _names(requirements: tuple[str, ...]) -> list[str]:
    return sorted(requirements)


@pytest.mark.parametrize("name", ["m.tflite", "m.TFLITE"])
def test_a_bare_tflite_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1c\0\0\0TFL3")

    found = MODEL_TYPE.read_model(tmp_path / name, entry())

    assert found.files == {"model.tflite": tmp_path / name}
    assert found.model == {"file": "model.tflite", "runtime": "litert"}
    assert _names(found.requirements) == ["ai-edge-litert", "numpy", "pillow"]
    assert found.python_version is None


def test_a_bare_file_s_neighbours_are_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    (tmp_path / "requirements.txt").write_text("numpy==1.0\n")
    assert "numpy" in MODEL_TYPE.read_model(tmp_path / "m.tflite", entry()).requirements


def test_an_onnx_file_in_a_folder(tmp_path: Path) -> None:
    build(tmp_path / "net.onnx")
    (tmp_path / "labels.txt").write_text("a\nb\n")

    found = MODEL_TYPE.read_model(tmp_path, entry())

    assert found.files == {"model.onnx": tmp_path / "net.onnx"}
    assert found.model == {"file": "model.onnx", "runtime": "onnxruntime"}
    assert _names(found.requirements) == ["numpy", "onnxruntime", "pillow"]


def _mlflow(folder: Path, flavor: str, requirements: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "MLmodel").write_text(
        f"flavors:\n  {flavor}:\n    data: model.onnx\n"
        f"  python_function:\n    data: model.onnx\n    loader_module: mlflow.{flavor}\n    python_version: 3.9.18\n"
    )
    (folder / "requirements.txt").write_text(requirements)
    (folder / "python_env.yaml").write_text("python: 3.9.18\ndependencies:\n- -r requirements.txt\n")
    return folder


def test_an_mlflow_folder_gives_only_the_pins_of_what_runs_the_model(tmp_path: Path) -> None:
    folder = _mlflow(
        tmp_path / "m",
        "onnx",
        "--extra-index-url https://a.b\nmlflow==2.9\nonnx==1.15\nonnxruntime==1.20.1\nNumPy==1.26.4\ntorch==2.1\n",
    )
    build(folder / "model.onnx")

    found = MODEL_TYPE.read_model(folder, entry())

    assert _names(found.requirements) == ["NumPy==1.26.4", "onnxruntime==1.20.1", "pillow"]
    assert (found.python_version, found.pinned_with) == (None, "3.9")


def test_the_configuration_s_pins_win(tmp_path: Path) -> None:
    folder = _mlflow(tmp_path / "m", "onnx", "onnxruntime==1.16.0\nnumpy==1.26.4\n")
    build(folder / "model.onnx")
    more = tmp_path / "more.txt"
    more.write_text("onnxruntime==1.20.1\nscipy>=1.11\n")

    found = MODEL_TYPE.read_model(folder, entry(requirements=["Pillow==11.0.0"], requirements_file=more))

    assert _names(found.requirements) == ["Pillow==11.0.0", "numpy==1.26.4", "onnxruntime==1.20.1", "scipy>=1.11"]


def _with_external_data(folder: Path, location: str) -> Path:
    folder.mkdir(exist_ok=True)
    model = onnx.load(build(folder / "model.onnx"))
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location=location, size_threshold=0)
    return folder


@pytest.mark.parametrize("location", ["model.onnx.data", "8f2c1e0a-5a53-11ee-9f7a-0242ac120002", "w" * 200])
def test_weights_beside_an_onnx_file_ship(tmp_path: Path, location: str) -> None:
    folder = _with_external_data(tmp_path / "m", location)
    (folder / "other.data").write_bytes(b"not named by the model")

    found = MODEL_TYPE.read_model(folder, entry())

    assert found.files == {"model.onnx": folder / "model.onnx", location: folder / location}


def test_weights_that_are_cut_short(tmp_path: Path) -> None:
    folder = _with_external_data(tmp_path / "m", "weights.bin")
    (folder / "weights.bin").write_bytes((folder / "weights.bin").read_bytes()[:-1])
    with pytest.raises(
        ModelError, match=r"weights.bin: has 35 bytes, but model.onnx keeps weights there up to byte 36"
    ):
        MODEL_TYPE.read_model(folder, entry())


def test_weights_that_are_missing(tmp_path: Path) -> None:
    folder = _with_external_data(tmp_path / "m", "weights.bin")
    (folder / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"model.onnx: keeps weights in 'weights.bin', which is not beside it"):
        MODEL_TYPE.read_model(folder, entry())


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname"])
def test_weights_outside_the_model(tmp_path: Path, location: str) -> None:
    folder = _with_external_data(tmp_path / "m", "weights.bin")
    (tmp_path / "secret.bin").write_bytes(b"x")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    next(e for e in model.graph.initializer[0].external_data if e.key == "location").value = location
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside the model folder"):
        MODEL_TYPE.read_model(folder, entry())


@pytest.mark.parametrize(
    "location", ["entrypoint.py", "decoding.py", "inference.py", "preprocessing.py", "model.json", "onnx_options.py"]
)
def test_weights_with_a_name_of_the_component(tmp_path: Path, location: str) -> None:
    folder = _with_external_data(tmp_path / "m", location)
    with pytest.raises(ModelError, match="a name that the component itself uses"):
        MODEL_TYPE.read_model(folder, entry())


def test_the_names_of_the_component_are_known() -> None:
    folders = [*MODEL_TYPE.folder.glob("component*"), MODEL_TYPE.folder.parent / "envelope" / "component"]
    shipped = {file.name for folder in folders for file in folder.iterdir() if file.suffix == ".py"}
    assert shipped | {"model.json", "imageset.py"} == set(onnx_model._COMPONENT_FILES)


def test_a_note_called_location_is_no_file(tmp_path: Path) -> None:
    model = onnx.load(build(tmp_path / "model.onnx"))
    helper.set_model_props(model, {"location": "Karlsruhe"})
    onnx.save(model, tmp_path / "model.onnx")
    assert list(MODEL_TYPE.read_model(tmp_path, entry()).files) == ["model.onnx"]


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "saved_model.pb"])
@pytest.mark.parametrize("inside", ["", "model/", "data/model/"])
def test_keras_and_tensorflow_models_are_to_be_converted(tmp_path: Path, name: str, inside: str) -> None:
    file = tmp_path / "registered" / inside / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    found = MODEL_TYPE.read_model(tmp_path / "registered", entry())
    assert found.conversion is not None
    assert found.model == {"file": "model.tflite", "runtime": "litert"}


@pytest.mark.parametrize("name", ["m.keras", "variables/variables.data-00000-of-00001"])
def test_a_git_lfs_pointer_in_place_of_a_keras_model_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "m"
    (folder / "variables").mkdir(parents=True)
    if name != "m.keras":
        (folder / "saved_model.pb").write_bytes(b"x")
    (folder / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")
    with pytest.raises(ModelError, match=rf"{name}: is a Git LFS pointer"):
        MODEL_TYPE.read_model(folder, entry())


def test_an_mlflow_folder_s_tensorflow_does_not_ship(tmp_path: Path) -> None:
    folder = _mlflow(tmp_path / "m", "tensorflow", "tensorflow==2.15\nnumpy==1.26.4\n")
    (folder / "data").mkdir()
    (folder / "data" / "model.keras").write_bytes(b"x")
    assert _names(MODEL_TYPE.read_model(folder, entry()).requirements) == ["ai-edge-litert", "numpy==1.26.4", "pillow"]


def test_no_model_file(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "notes.txt").write_text("x")
    with pytest.raises(ModelError, match=r"\.tflite or \.onnx"):
        MODEL_TYPE.read_model(tmp_path / "m", entry())


def test_two_model_files(tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(b"x")
    build(tmp_path / "b.onnx")
    with pytest.raises(ModelError, match=r"a\.tflite, b\.onnx"):
        MODEL_TYPE.read_model(tmp_path, entry())


def test_code_that_would_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    with pytest.raises(ModelError, match="code_paths"):
        MODEL_TYPE.read_model(tmp_path / "m.tflite", entry(code_paths=[tmp_path]))
