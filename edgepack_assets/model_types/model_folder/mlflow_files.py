"""The files in which MLflow describes a model: MLmodel, conda.yaml and python_env.yaml, validated.

What an empty key means in MLflow it means here. Every value is text: model_files.read_yaml reads no numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from edgepack_assets.errors import ModelError
from edgepack_assets.filesystem.atomic_files import is_leftover
from edgepack_assets.model_types.model_folder.bounded_files import path_inside, read_yaml

_NULLS = ("", "~", "null", "Null", "NULL")

DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "tf": "tensorflow",
    "pytorch": "torch",
    "xgb": "xgboost",
    "lgb": "lightgbm",
}
"""Names that MLflow's `<name>_version` keys use -> distribution on the index, where they differ."""


def _text(value: object) -> object:
    if value is None or value in _NULLS:
        return None
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def _line(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be text such as scikit-learn==1.5.2")
    return value


def _mapping(value: object) -> object:
    if value is None or value in _NULLS:
        return {}
    if not isinstance(value, dict):
        raise ValueError("must be a mapping")
    return value


def _list(value: object) -> object:
    if value is None or value in _NULLS:
        return []
    if not isinstance(value, list):
        raise ValueError("must be a list")
    return value


def _environments(value: object) -> object:
    # MLflow 1.x names the conda file alone.
    return {"conda": value} if isinstance(value, str) and value not in _NULLS else _mapping(value)


def _dependency(value: object) -> object:
    if isinstance(value, dict):
        if set(value) != {"pip"}:
            raise ValueError("must be text such as numpy=1.26.4, or a mapping with the one key pip")
        return value
    if not isinstance(value, str):
        raise ValueError("must be text such as numpy=1.26.4, or a mapping with the one key pip")
    return {"conda": value}


_OptionalText = Annotated[str | None, BeforeValidator(_text)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True)


class EnvironmentFiles(_Section):
    """`python_function.env`: the names of the environment's files."""

    conda: _OptionalText = None
    virtualenv: _OptionalText = None


class Flavor(_Section):
    """One flavor of an MLmodel. What it says beyond these keys is kept as it is."""

    model_config = ConfigDict(extra="allow", frozen=True)
    code: _OptionalText = None
    pickled_model: _OptionalText = None
    model_path: _OptionalText = None
    python_version: _OptionalText = None
    env: Annotated[EnvironmentFiles, BeforeValidator(_environments)] = EnvironmentFiles()


class Signature(_Section):
    """`signature`: what the model takes, as JSON in a text."""

    inputs: _OptionalText = None

    @property
    def columns(self) -> list[str]:
        """The names of the columns that the model is called with, in their order; none where it takes tensors."""
        try:
            parsed = json.loads(self.inputs or "[]")
        except (ValueError, RecursionError):
            raise ModelError("MLmodel: signature.inputs: is not JSON") from None
        columns = parsed if isinstance(parsed, list) else []
        names = [column.get("name") for column in columns if isinstance(column, dict) and "tensor-spec" not in column]
        texts = [name for name in names if isinstance(name, str)]
        return texts if len(texts) == len(columns) else []


class MLmodel(_Section):
    """The file MLmodel: how each framework reads the model, and its signature."""

    flavors: Annotated[dict[str, Annotated[Flavor, BeforeValidator(_mapping)]], BeforeValidator(_mapping)] = {}
    signature: Annotated[Signature, BeforeValidator(_mapping)] = Signature()

    def flavor(self, name: str) -> Flavor:
        """A flavor, empty where the model has none of that name."""
        return self.flavors.get(name, Flavor())

    @property
    def versions(self) -> dict[str, str]:
        """Distribution -> version that the model was saved with, of every library that its flavors name."""
        versions = {}
        for flavor in self.flavors.values():
            for key, value in (flavor.model_extra or {}).items():
                name = key.removesuffix("_version")
                if name != key and isinstance(value, str) and value not in _NULLS:
                    versions[DISTRIBUTIONS.get(name, name)] = value
        return versions


class _Dependency(_Section):
    """An entry of conda.yaml's dependencies: one conda package, or a list of pip's."""

    conda: str = ""
    pip: Annotated[list[Annotated[str, BeforeValidator(_line)]], BeforeValidator(_list)] = []


class CondaFile(_Section):
    """conda.yaml: the packages of a conda environment, and those that pip installs into it."""

    dependencies: Annotated[
        list[Annotated[_Dependency, BeforeValidator(_dependency)]], BeforeValidator(_list)
    ] = Field(default=[])  # fmt: skip

    @property
    def conda(self) -> list[str]:
        """The lines that conda installs."""
        return [entry.conda.strip() for entry in self.dependencies if entry.conda.strip()]

    @property
    def pip(self) -> list[str]:
        """The lines that pip installs."""
        return [line for entry in self.dependencies for line in entry.pip]


class PythonEnvFile(_Section):
    """python_env.yaml: the Python that MLflow would make a virtual environment with, and what pip installs into it.

    Its `build_dependencies` are tools that install packages, and run no model."""

    python: _OptionalText = None
    dependencies: Annotated[list[Annotated[str, BeforeValidator(_line)]], BeforeValidator(_list)] = []


def mlflow_root(model: Path) -> Path | None:
    """The folder with the MLmodel file: `model` itself or one level below. Raises ModelError on two."""
    named = [path for path in (model / "MLmodel", *sorted(model.glob("*/MLmodel"))) if path.is_file()]
    roots = [path.parent for path in named if not is_leftover(path.relative_to(model))]
    if len(roots) > 1:
        raise ModelError(
            f"the model folder holds {len(roots)} MLflow models "
            f"({', '.join(root.relative_to(model).as_posix() for root in roots[:20])}); register one of them"
        )
    return roots[0] if roots else None


def read_mlmodel(root: Path) -> MLmodel:
    """The MLmodel file of an MLflow folder; an empty one where there is none. Raises ModelError."""
    path = root / "MLmodel"
    return read_yaml(root, path, MLmodel) if path.is_file() else MLmodel()


def read_conda(root: Path, mlmodel: MLmodel) -> tuple[str, CondaFile]:
    """(name, content) of the conda file, empty where there is none. Raises ModelError."""
    name, path = _environment_file(root, mlmodel.flavor("python_function").env.conda, "conda", "conda.yaml")
    return name, read_yaml(root, path, CondaFile) if path.is_file() else CondaFile()


def read_python_env(root: Path, mlmodel: MLmodel) -> tuple[str, PythonEnvFile]:
    """(name, content) of the file python_env.yaml, empty where there is none. Raises ModelError."""
    named = mlmodel.flavor("python_function").env.virtualenv
    name, path = _environment_file(root, named, "virtualenv", "python_env.yaml")
    return name, read_yaml(root, path, PythonEnvFile) if path.is_file() else PythonEnvFile()


def _environment_file(root: Path, named: str | None, key: str, usual: str) -> tuple[str, Path]:
    path = path_inside(root, named or usual, f"MLmodel: flavors.python_function.env.{key}")
    return path.relative_to(root).as_posix(), path
