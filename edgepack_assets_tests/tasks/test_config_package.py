"""Putting a component together: what of the model's files would hide one of the component's own modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.base import ModelSource
from edgepack_assets.model_types.state_identifier.model_type import StateIdentifier
from edgepack_assets.tasks.config_package import _assemble


def assembled(folder: Path, *names: str) -> Path:
    file = folder / "file"
    file.write_bytes(b"x")
    source = ModelSource(dict.fromkeys(names, file), {"file": names[0]}, (), None)
    _assemble(folder / "component", StateIdentifier(), source)
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
