"""Finding the Keras or TensorFlow model in what is registered, and reading a .keras file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.keras_models.original import Original, find_original, read_keras, read_texts
from edgepack_assets_tests.model_types.keras_models.configs import layer, sequential, write_keras

CONFIG = sequential(layer("Conv2D"))


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("names", "kind", "path"),
    [
        (["m.keras"], "keras", "m.keras"),
        (["model/m.H5", "labels.txt"], "hdf5", "model/m.H5"),
        (["m.hdf5"], "hdf5", "m.hdf5"),
        (["saved_model.pb", "keras_metadata.pb", "variables/variables.index", "assets/a"], "saved_model", "."),
        (["export/saved_model.pb", "export/variables/variables.index"], "saved_model", "export"),
    ],
)
def test_what_is_found_in_a_folder(tmp_path: Path, names: list[str], kind: str, path: str) -> None:
    found = find_original(fill(tmp_path / "m", *names))
    assert found is not None
    assert (found.kind, found.path, found.root) == (kind, tmp_path / "m" / path, tmp_path / "m")


MLMODEL = "flavors:\n  {flavor}:\n    data: data\n    code: code\n  python_function:\n    code: code\n    data: data\n"


@pytest.mark.parametrize(
    ("flavor", "names", "kind", "path"),
    [
        (
            "tensorflow",
            ["data/model.keras", "data/keras_module.txt", "data/save_format.txt"],
            "keras",
            "data/model.keras",
        ),
        ("tensorflow", ["data/model.h5", "data/global_custom_objects.cloudpickle"], "hdf5", "data/model.h5"),
        (
            "tensorflow",
            ["data/model/saved_model.pb", "data/model/variables/variables.index"],
            "saved_model",
            "data/model",
        ),
        ("tensorflow", ["tf2model/saved_model.pb"], "saved_model", "tf2model"),
        ("keras", ["data/model.keras", "data/keras_module.txt"], "keras", "data/model.keras"),
        ("keras", ["data/model/saved_model.pb", "code/helper/other.keras"], "saved_model", "data/model"),
    ],
)
def test_mlflow_folders_of_both_flavors(tmp_path: Path, flavor: str, names: list[str], kind: str, path: str) -> None:
    for inside in (".", "model"):
        registered = tmp_path / f"registered-{len(inside)}"
        root = fill(registered / inside, *names)
        (root / "MLmodel").write_text(MLMODEL.format(flavor=flavor))
        found = find_original(registered)
        assert found is not None
        assert (found.kind, found.path, found.root) == (kind, root / path, root)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.keras", "b/c.h5"], r"holds 2 Keras or TensorFlow models \(a\.keras, b/c\.h5\)"),
        (["model.weights.h5"], "holds weights alone; save the whole model"),
        (["net/variables/variables.index", "net/fingerprint.pb"], r"but no net/saved_model\.pb"),
        (["variables/variables.index"], r"but no saved_model\.pb, .* was it copied whole\?"),
        (["frozen_graph.pb"], r"A frozen graph \(\.pb\) does not say how it is called"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_original(fill(tmp_path / "m", *names))


@pytest.mark.parametrize("flavor", ["tensorflow", "keras"])
def test_an_mlflow_folder_without_its_model_is_refused(tmp_path: Path, flavor: str) -> None:
    (tmp_path / "MLmodel").write_text(MLMODEL.format(flavor=flavor))
    with pytest.raises(ModelError, match="without a file that can be converted"):
        find_original(tmp_path)


@pytest.mark.parametrize("names", [["notes.txt"], ["m.pkl", "readme.md"]])
def test_other_folders_hold_none(tmp_path: Path, names: list[str]) -> None:
    assert find_original(fill(tmp_path, *names)) is None


def original(path: Path) -> Original:
    return Original("keras", path, None, path.name)


def test_a_keras_file_is_read_without_keras(tmp_path: Path) -> None:
    found = read_keras(original(write_keras(tmp_path / "m.keras", CONFIG, "3.4.1")))
    assert (found.version, found.keras, found.shape) == ("3.4.1", 3, (None, 32, 32, 3))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"config": b""}, "holds no config.json"),
        ({"metadata": b""}, "holds no metadata.json"),
        ({"weights": b""}, "holds no model.weights.h5"),
        ({"metadata": b"[]"}, "does not say which version"),
        ({"metadata": b'{"keras_version": 3}'}, "does not say which version"),
        ({"metadata": b"\xff\xfe"}, "metadata.json cannot be read"),
        ({"config": b"{" * 10}, "its configuration is not JSON"),
        ({"config": b" " * (17 << 20)}, r"its config\.json has 17825792 bytes; at most"),
    ],
)
def test_a_keras_file_with_one_defect_is_refused_by_name(
    tmp_path: Path, entries: dict[str, bytes], message: str
) -> None:
    with pytest.raises(ModelError, match=rf"m\.keras: .*{message}"):
        read_keras(original(write_keras(tmp_path / "m.keras", CONFIG, replaced=entries)))


@pytest.mark.parametrize("keep", [0, 10, 200, -10])
def test_a_truncated_keras_file_is_refused(tmp_path: Path, keep: int) -> None:
    file = write_keras(tmp_path / "m.keras", CONFIG)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"m\.keras: is not a zip file .*was it copied whole"):
        read_keras(original(file))


def test_a_keras_file_whose_parts_are_damaged_is_refused(tmp_path: Path) -> None:
    file = write_keras(tmp_path / "m.keras", CONFIG)
    data = bytearray(file.read_bytes())
    at = data.index(b'"keras_version"')
    data[at + 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.keras"):
        read_keras(original(file))


def test_an_entry_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    file = write_keras(tmp_path / "m.keras", CONFIG)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("config.json", b"{}")
    with pytest.raises(ModelError, match="occurs twice"):
        read_keras(original(file))


def test_an_hdf5_file_with_weights_alone_is_refused() -> None:
    with pytest.raises(ModelError, match=r"m\.h5: holds weights without the model"):
        read_texts(Original("hdf5", Path("m.h5"), None, "m.h5"), None, None)
