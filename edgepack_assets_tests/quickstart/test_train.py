"""The trained models: the shape that a registry holds them in, and that they are good enough to be shown."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx.reference import ReferenceEvaluator

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import EDGE_PYTHONS, RuntimeSettings
from edgepack_assets.errors import EdgepackError
from edgepack_assets.model_types import model_type
from edgepack_assets.model_types.model_folder.model_file import saved_environment
from edgepack_assets.quickstart import samples, train
from edgepack_assets.quickstart.train import Trainer, pinned_versions

# What `mlflow.sklearn.save_model(model, path, code_paths=..., signature=...)` of MLflow 2.22.5 writes.
MLMODEL_KEYS = {
    "flavors", "is_signature_from_type_hint", "mlflow_version", "model_size_bytes", "model_uuid", "prompts",
    "signature", "type_hint_from_example", "utc_time_created",
}  # fmt: skip
PYFUNC_KEYS = {"code", "env", "loader_module", "model_path", "predict_fn", "python_version"}
SKLEARN_KEYS = {"code", "pickled_model", "serialization_format", "sklearn_version"}


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer.find(RuntimeSettings())


@pytest.fixture(scope="module")
def state_identifier(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainer.state_identifier(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def digits(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainer.digits_classifier(tmp_path_factory.mktemp("trained"))


def test_the_state_identifier_is_an_mlflow_folder(state_identifier: Path) -> None:
    files = {f.relative_to(state_identifier).as_posix() for f in state_identifier.rglob("*") if f.is_file()}
    assert files == {
        "MLmodel",
        "conda.yaml",
        "python_env.yaml",
        "requirements.txt",
        "model.pkl",
        "code/si_training/__init__.py",
        "code/si_training/preprocessing.py",
    }
    mlmodel = yaml.safe_load((state_identifier / "MLmodel").read_text())
    assert mlmodel.keys() == MLMODEL_KEYS
    assert mlmodel["flavors"].keys() == {"python_function", "sklearn"}
    assert mlmodel["flavors"]["python_function"].keys() == PYFUNC_KEYS
    assert mlmodel["flavors"]["sklearn"].keys() == SKLEARN_KEYS
    assert mlmodel["signature"]["inputs"] == (
        '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]'
    )


def test_its_requirements_are_those_it_was_trained_with(state_identifier: Path) -> None:
    lines = (state_identifier / "requirements.txt").read_text().splitlines()
    assert lines[0].startswith("mlflow==2.")
    pins = pinned_versions()
    assert lines[1:] == [f"{name}=={pins[name]}" for name in ("cloudpickle", "numpy", "scikit-learn", "scipy")]
    conda = yaml.safe_load((state_identifier / "conda.yaml").read_text())
    assert conda["dependencies"][-1] == {"pip": lines}


def test_its_python_runs_on_the_edge(state_identifier: Path) -> None:
    assert saved_environment(state_identifier).python_version in EDGE_PYTHONS


def test_its_pickle_names_the_code_that_ships(state_identifier: Path) -> None:
    assert b"si_training.preprocessing" in (state_identifier / "model.pkl").read_bytes()


def test_the_model_type_takes_the_state_identifier(state_identifier: Path) -> None:
    entry = load_settings().model_type("state_identifier")
    source = model_type("state_identifier").read_model(state_identifier, entry)
    assert {"model.pkl", "si_training/__init__.py", "si_training/preprocessing.py"} == source.files.keys()
    assert not any(line.startswith("mlflow") for line in source.requirements)


def test_the_classifier_knows_digits_it_has_not_seen(digits: Path) -> None:
    _, validation = samples.digits()
    graph = ReferenceEvaluator(onnx.load(digits))
    right = 0
    for grey, label in zip(validation.images, validation.labels, strict=True):
        pixels = np.repeat(grey[np.newaxis, :, :, np.newaxis].astype(np.float32) / 255, 3, axis=3)
        probabilities = np.asarray(next(iter(graph.run(None, {"image": pixels}))))
        assert probabilities.shape == (1, 10)
        right += int(probabilities.argmax() == label)
    assert right / len(validation.labels) > 0.9


def test_the_classifier_runs_on_old_runtimes(digits: Path) -> None:
    model = onnx.load(digits)
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 13)]
    assert {node.op_type for node in model.graph.node} == {"ReduceMean", "Reshape", "Gemm", "Relu", "Softmax"}


def test_a_training_that_takes_too_long_says_so(tmp_path: Path) -> None:
    hasty = Trainer.find(RuntimeSettings(time_limit=0.001))
    with pytest.raises(EdgepackError, match=r"train_digits\.py took longer than runtime\.time_limit, 0\.001 s"):
        hasty.digits_classifier(tmp_path)


def test_a_training_that_fails_says_why(trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    (tmp_path / "train_digits.py").write_text("raise SystemExit('the data are no good')")
    monkeypatch.setattr(train, "TRAINING", tmp_path)
    with pytest.raises(EdgepackError, match=r"train_digits\.py failed:[\s\S]*the data are no good"):
        trainer.digits_classifier(tmp_path)
