"""Run by the `variants` fixture in an environment of its own: state identifier models of many kinds, each as a
registry would hold it. Arguments: the module with the transformers, a recording (.npy), the folder to write into."""

import pickle
import shutil
import sys
from pathlib import Path

import cloudpickle
import joblib
import numpy
import pandas
import sklearn
import skops
import skops.io

PYTHON = ".".join(map(str, sys.version_info[:3]))
PINS = {
    "scikit-learn": sklearn.__version__,
    "numpy": numpy.__version__,
    "pandas": pandas.__version__,
    "cloudpickle": cloudpickle.__version__,
    "skops": skops.__version__,  # which one of them needs; with the same requirements, all share an environment
}


def folder(path: Path, code: Path, model: str = "model.pkl") -> Path:
    """An MLflow folder but for its model file."""
    path.mkdir(parents=True)
    (path / "MLmodel").write_text(
        "flavors:\n  python_function:\n    code: code\n    loader_module: mlflow.sklearn\n"
        f"    model_path: {model}\n    python_version: {PYTHON}\n"
        f"  sklearn:\n    code: code\n    pickled_model: {model}\n    serialization_format: cloudpickle\n"
        f"    sklearn_version: {sklearn.__version__}\nmlflow_version: 2.20.0\n"
    )
    lines = ["mlflow==2.20.0", *(f"{name}=={version}" for name, version in PINS.items())]
    (path / "requirements.txt").write_text("\n".join(lines) + "\n")
    (path / "python_env.yaml").write_text(f"python: {PYTHON}\ndependencies:\n- -r requirements.txt\n")
    shutil.copytree(code, path / "code", ignore=shutil.ignore_patterns("__pycache__"))
    return path


def main(module: Path, recording: Path, out: Path) -> None:
    """Write every variant."""
    rows = numpy.load(recording)
    code = out / "code"
    package = code / "plant_training"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    shutil.copyfile(module, package / "preprocessing.py")
    sys.path.insert(0, str(code))
    from plant_training import preprocessing as plant
    from sklearn.pipeline import Pipeline

    steps = plant.fitted(300, 100, rows=rows)
    (folder(out / "overlapping", code) / "model.pkl").write_bytes(cloudpickle.dumps(steps))
    (folder(out / "sparse", code) / "model.pkl").write_bytes(pickle.dumps(plant.fitted(120, 400, 0.0, rows=rows)))
    (folder(out / "looks_ahead", code) / "model.pkl").write_bytes(
        pickle.dumps(plant.fitted(300, 300, "bfill", rows=rows))
    )
    skops_folder = folder(out / "skops", code, "model.skops")
    skops.io.dump(plant.fitted(300, 300, rows=rows), skops_folder / "model.skops")

    frame = plant.fitted(300, 300, rows=rows)
    preprocessing = frame.named_steps["preprocessing"]
    named = Pipeline([("select", plant.Columns()), *preprocessing.steps])
    frame = Pipeline([("preprocessing", named), ("clustering", frame.named_steps["clustering"])])
    (folder(out / "frame", code) / "model.pkl").write_bytes(pickle.dumps(frame))

    joblib.dump(plant.fitted(300, 300, rows=rows), out / "bare.joblib", compress=3)
    shutil.rmtree(folder(out / "code_missing", code) / "code")
    mlmodel = out / "code_missing" / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace("    code: code\n", ""))
    (out / "code_missing" / "model.pkl").write_bytes(pickle.dumps(plant.fitted(300, 300, rows=rows)))
    (folder(out / "no_pipeline", code) / "model.pkl").write_bytes(pickle.dumps({"not": "a model"}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
