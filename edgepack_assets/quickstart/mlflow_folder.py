"""Writes a scikit-learn model's folder in exactly the shape of MLflow 2.22's `mlflow.sklearn.save_model`.

MLflow itself stays out: it brings 70 packages (650 MB) and takes 20 s for what is five small files.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

MLFLOW_VERSION = "2.22.5"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model's signature: type and shape, -1 where any size will do."""

    dtype: str
    shape: tuple[int, ...]

    def spec(self) -> str:
        """As MLflow writes it into the MLmodel file: JSON in YAML."""
        tensor = {"dtype": self.dtype, "shape": list(self.shape)}
        return json.dumps([{"type": "tensor", "tensor-spec": tensor}])


def write_mlflow_folder(
    folder: Path,
    *,
    pickle: Path,
    code: Iterable[Path],
    requirements: Sequence[str],
    python_version: str,
    sklearn_version: str,
    signature: tuple[Tensor, Tensor],
) -> Path:
    """Write the model folder of a cloudpickled scikit-learn model with the packages in `code`; return it."""
    folder.mkdir(parents=True)
    shutil.copyfile(pickle, folder / "model.pkl")
    for package in code:
        shutil.copytree(package, folder / "code" / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    # MLflow counts before it writes the files that describe the environment.
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    pinned = [f"mlflow=={MLFLOW_VERSION}", *requirements]
    (folder / "requirements.txt").write_text("\n".join(pinned), encoding="utf-8")
    _write_yaml(
        folder / "python_env.yaml",
        {
            "python": python_version,
            "build_dependencies": ["pip", "setuptools", "wheel"],
            "dependencies": ["-r requirements.txt"],
        },
    )
    _write_yaml(
        folder / "conda.yaml",
        {
            "channels": ["conda-forge"],
            "dependencies": [f"python={python_version}", "pip", {"pip": pinned}],
            "name": "mlflow-env",
        },
    )
    _write_yaml(folder / "MLmodel", _mlmodel(python_version, sklearn_version, signature, size))
    return folder


def _mlmodel(python_version: str, sklearn_version: str, signature: tuple[Tensor, Tensor], size: int) -> dict[str, Any]:
    taken, given = signature
    return {
        "flavors": {
            "python_function": {
                "code": "code",
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.sklearn",
                "model_path": "model.pkl",
                "predict_fn": "predict",
                "python_version": python_version,
            },
            "sklearn": {
                "code": "code",
                "pickled_model": "model.pkl",
                "serialization_format": "cloudpickle",
                "sklearn_version": sklearn_version,
            },
        },
        "is_signature_from_type_hint": False,
        "mlflow_version": MLFLOW_VERSION,
        "model_size_bytes": size,
        "model_uuid": uuid.uuid4().hex,
        "prompts": None,
        "signature": {"inputs": taken.spec(), "outputs": given.spec(), "params": None},
        "type_hint_from_example": False,
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }


def _write_yaml(file: Path, document: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(document, sort_keys=False, width=float("inf")), encoding="utf-8")
