"""What ships in a component's folder, and what of the model's files would hide a module of the component's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.image_classification.model_type import ImageClassification
from edgepack_assets.model_types.interface import ModelSource
from edgepack_assets.model_types.state_identifier.model_type import StateIdentifier
from edgepack_assets.tasks.component_files import assemble


def assembled(folder: Path, *names: str) -> Path:
    file = folder / "file"
    file.write_bytes(b"x")
    source = ModelSource(dict.fromkeys(names, file), {"file": names[0]}, (), None)
    assemble(folder / "component", [StateIdentifier().folder / "component"], source, folder)
    return folder / "component"


@pytest.mark.parametrize(
    "names",
    [
        ("inference.joblib",),
        ("entrypoint.pkl",),
        ("inference.skops", "inference.txt", "inference"),
        ("model.json.pkl",),
        ("plant/inference.py", "plant/entrypoint/__init__.py"),
        ("inference_of_plant.py", "inference.v2/data.csv"),
    ],
)
def test_a_file_that_hides_no_module_ships(tmp_path: Path, names: tuple[str, ...]) -> None:
    component = assembled(tmp_path, *names)
    assert all((component / name).is_file() for name in names)
    assert (component / "inference.py").is_file()


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("inference.py", "inference.py"),
        ("inference/__init__.py", "inference.py"),
        ("entrypoint/data.csv", "entrypoint.py"),
        ("inference.pyc", "inference.py"),
        ("inference.so", "inference.py"),
        ("entrypoint.cpython-311-x86_64-linux-gnu.so", "entrypoint.py"),
        ("model.json", "model.json"),
        ("model.json/x", "model.json"),
    ],
)
def test_a_file_that_hides_a_module_is_refused(tmp_path: Path, name: str, hidden: str) -> None:
    with pytest.raises(ModelError, match=rf"ships {name}, which would hide the component's own {hidden}"):
        assembled(tmp_path, name)


def test_files_of_the_model_type_take_the_place_of_component_files_and_hide_what_they_may(tmp_path: Path) -> None:
    own, model = tmp_path / "own.py", tmp_path / "work" / "model.skops"
    own.write_text("own = True")
    model.parent.mkdir()
    model.write_bytes(b"model")
    files = {"entrypoint.py": own, "options.py": own}
    source = ModelSource({"m.skops": model}, {"file": "m.skops"}, (), None, component_files=files)
    assemble(tmp_path / "component", [StateIdentifier().folder / "component"], source, model.parent)
    assert (tmp_path / "component" / "entrypoint.py").read_text() == "own = True"
    assert (tmp_path / "component" / "inference.py").read_bytes() != own.read_bytes()
    assert (tmp_path / "component" / "m.skops").samefile(model), "the run's own copy of the model is not copied again"
    assert not (tmp_path / "component" / "options.py").samefile(own), "a file that may change is copied"
    hidden = ModelSource({"options.py": model}, {"file": "options.py"}, (), None, component_files=files)
    with pytest.raises(ModelError, match=r"would hide the component's own options\.py"):
        assemble(tmp_path / "hidden", [StateIdentifier().folder / "component"], hidden, model.parent)


def test_image_sets_go_together_with_options_of_an_onnx_file(tmp_path: Path) -> None:
    """Both bring an entrypoint. The one of image sets ships, and loads the model through the options."""
    folder = ImageClassification().folder
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x")
    options = {file.name: file for file in (folder / "component_onnx").glob("*.py")}
    source = ModelSource({"model.onnx": model}, {"file": "model.onnx"}, (), None, component_files=options)
    component = tmp_path / "component"
    assemble(component, [folder / "component", folder / "component_image_set"], source, tmp_path)
    entrypoint = (component / "entrypoint.py").read_text()
    assert entrypoint == (folder / "component_image_set" / "entrypoint.py").read_text()
    assert 'import_module("onnx_options" if' in entrypoint
    assert (component / "onnx_options.py").is_file()
