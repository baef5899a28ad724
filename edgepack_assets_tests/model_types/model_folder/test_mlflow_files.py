"""MLmodel, conda.yaml and python_env.yaml: what is empty means nothing, what is wrong is named by file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.model_folder.mlflow_files import mlflow_root, read_conda, read_mlmodel, read_python_env


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flavors: [sklearn]", r"MLmodel: flavors: must be a mapping \(found \['sklearn'\]\)"),
        ("flavors: sklearn", r"MLmodel: flavors: must be a mapping \(found 'sklearn'\)"),
        ("flavors: {sklearn: yes}", r"MLmodel: flavors.sklearn: must be a mapping \(found 'yes'\)"),
        ("flavors: {sklearn: []}", r"MLmodel: flavors.sklearn: must be a mapping"),
        ("flavors: {sklearn: {pickled_model: [a]}}", r"MLmodel: flavors.sklearn.pickled_model: must be text"),
        ("flavors: {python_function: {code: {a: b}}}", r"MLmodel: flavors.python_function.code: must be text"),
        ("flavors: {python_function: {env: [a]}}", r"MLmodel: flavors.python_function.env: must be a mapping"),
        ("flavors: {python_function: {env: {conda: [a]}}}", r"python_function.env.conda: must be text"),
    ],
)
def test_an_mlmodel_of_another_shape_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_mlmodel(written(tmp_path, MLmodel=text))


@pytest.mark.parametrize(
    "text",
    ["flavors:\n", "flavors: null\n", "flavors: {}\n", "x: 2\n", "flavors: {sklearn: , python_function: ~}"],
)  # fmt: skip
def test_an_empty_mlmodel_says_nothing(tmp_path: Path, text: str) -> None:
    mlmodel = read_mlmodel(written(tmp_path, MLmodel=text))
    assert mlmodel.flavor("sklearn").pickled_model is None
    assert mlmodel.flavor("python_function").env.conda is None
    assert mlmodel.versions == {}


@pytest.mark.parametrize(
    "text",
    ["dependencies:\n", "dependencies: []\n", "dependencies:\n- pip:\n", "dependencies:\n- pip: []\n-\n", "name: e\n"],
)  # fmt: skip
def test_an_empty_conda_file_says_nothing(tmp_path: Path, text: str) -> None:
    name, conda = read_conda(written(tmp_path, conda__yaml=text), read_mlmodel(tmp_path))
    assert (name, conda.conda, conda.pip) == ("conda.yaml", [], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dependencies: numpy", r"conda.yaml: dependencies: must be a list \(found 'numpy'\)"),
        ("dependencies: {pip: [a]}", r"conda.yaml: dependencies: must be a list"),
        ("dependencies: [[numpy]]", r"conda.yaml: dependencies.0: must be text such as numpy=1.26.4"),
        ("dependencies: [numpy, {npm: [a]}]", r"conda.yaml: dependencies.1: must be text .* or a mapping .* pip"),
        ("dependencies: [{pip: numpy}]", r"conda.yaml: dependencies.0.pip: must be a list"),
        ("dependencies: [{pip: [{a: b}]}]", r"conda.yaml: dependencies.0.pip.0: must be text"),
    ],
)
def test_a_conda_file_of_another_shape_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_conda(written(tmp_path, conda__yaml=text), read_mlmodel(tmp_path))


def test_environment_files_are_those_that_the_mlmodel_names_inside_its_folder(tmp_path: Path) -> None:
    env = "flavors: {python_function: {env: %s}}"
    root = written(tmp_path, other__yaml="dependencies: [numpy]\npython: 3.12", MLmodel=env % "other.yaml")
    assert read_conda(root, read_mlmodel(root))[1].conda == ["numpy"]
    written(root, other__yaml="dependencies: [numpy]\npython: 3.12", MLmodel=env % "{virtualenv: other.yaml}")
    name, found = read_python_env(root, read_mlmodel(root))
    assert (name, found.python) == ("other.yaml", "3.12")
    for named in ("/etc/hostname", "../conda.yaml"):
        written(root, MLmodel=env % f"{{conda: {named}, virtualenv: {named}}}")
        with pytest.raises(ModelError, match=r"python_function.env.conda names .* outside the model folder"):
            read_conda(root, read_mlmodel(root))
        with pytest.raises(ModelError, match=r"python_function.env.virtualenv names .* outside the model folder"):
            read_python_env(root, read_mlmodel(root))


def test_every_version_that_a_flavor_states_is_known_by_the_distribution_s_name(tmp_path: Path) -> None:
    text = (
        "flavors:\n  python_function: {cloudpickle_version: 3.1.0, python_version: 3.10}\n"
        "  sklearn: {sklearn_version: 1.4.2, serialization_format: cloudpickle}\n"
        "  onnx: {onnx_version: 1.16.0, providers: [a]}\n  xgboost: {xgb_version: 2.0.3}\n"
        "  pytorch: {pytorch_version: }\n"
    )
    mlmodel = read_mlmodel(written(tmp_path, MLmodel=text))
    assert mlmodel.versions == {
        "cloudpickle": "3.1.0", "scikit-learn": "1.4.2", "onnx": "1.16.0", "xgboost": "2.0.3",
    }  # fmt: skip
    assert mlmodel.flavor("python_function").python_version == "3.10"


def test_what_systems_leave_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "__MACOSX" / "MLmodel").write_bytes(b"\0\5\26\7")
    written(tmp_path / "model", MLmodel="flavors:\n")
    assert mlflow_root(tmp_path) == tmp_path / "model"


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        ('[{"type": "double", "name": "ph3"}, {"type": "double", "name": "ph1"}]', ["ph3", "ph1"]),
        ('[{"type": "double"}, {"type": "double"}]', []),
        ('[{"type": "double", "name": "ph3"}, {"type": "double", "name": 1}]', []),
        ('[{"type": "tensor", "name": "x", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]', []),
        ("{}", []),
        ("[1, null, []]", []),
        ("null", []),
    ],
)
def test_the_columns_of_a_signature(tmp_path: Path, inputs: str, names: list[str]) -> None:
    assert read_mlmodel(written(tmp_path, MLmodel=f"signature: {{inputs: '{inputs}'}}")).signature.columns == names


@pytest.mark.parametrize("inputs", ["[", "[" * 100_000])
def test_a_signature_that_is_no_json_is_refused(tmp_path: Path, inputs: str) -> None:
    with pytest.raises(ModelError, match=r"MLmodel: signature\.inputs"):
        _ = read_mlmodel(written(tmp_path, MLmodel=f"signature: {{inputs: '{inputs}'}}")).signature.columns
