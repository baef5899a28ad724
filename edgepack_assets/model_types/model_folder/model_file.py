"""Reading a registered model's folder without executing any of it: which file is the model, and which code ships
with it. What environment it was saved with is read in saved_environment.py."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from pathlib import Path

from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.errors import ModelError
from edgepack_assets.filesystem.atomic_files import is_leftover, is_lfs_pointer
from edgepack_assets.model_types.model_folder.bounded_files import path_inside
from edgepack_assets.model_types.model_folder.mlflow_files import mlflow_root, read_mlmodel
from edgepack_assets.model_types.model_folder.saved_environment import (
    SavedEnvironment,
    configured_requirements,
    merge_requirements,
    saved_environment,
)
from edgepack_assets.registry.base import files_of
from edgepack_assets.text_format import counted

__all__ = [
    "SavedEnvironment",
    "configured_requirements",
    "find_model_file",
    "merge_requirements",
    "mlflow_root",
    "model_code",
    "read_mlmodel",
    "refuse_pointer",
    "saved_environment",
]


def find_model_file(model: Path, suffixes: tuple[str, ...]) -> tuple[Path, Path]:
    """(root, model file): the folder whose files belong to the model, and the one file that is the model.

    `model` is a file, or a folder that holds the model at its top or one level down (as a registry's
    download of a folder does). Raises ModelError if there is no model file, or more than one, or a Git LFS pointer.
    """
    root, file = _find_model_file(model, suffixes)
    refuse_pointer(file, file.relative_to(root).as_posix())
    return root, file


def refuse_pointer(file: Path, shown: str) -> None:
    """Raise ModelError if a file of the model is a Git LFS pointer."""
    if is_lfs_pointer(file):
        raise ModelError(
            f"{shown}: is a Git LFS pointer, not the file itself; run `git lfs pull` where it was cloned, and register "
            "the model again"
        )


def _find_model_file(model: Path, suffixes: tuple[str, ...]) -> tuple[Path, Path]:
    wanted = " or ".join(suffixes)
    if model.is_file():
        if model.suffix.lower() not in suffixes:
            raise ModelError(f"{model.name}: not a model file this model type knows; it takes {wanted}")
        return model.parent, model
    root = mlflow_root(model) or _folder_with_models(model, suffixes)
    models = _models_in(root, suffixes)
    if len(models) > 1:
        names = ", ".join(sorted(path.relative_to(model).as_posix() for path in models[:20]))
        raise ModelError(
            f"the model folder holds {counted(len(models), 'model file')} ({names}); register a folder with one"
        )
    named = _named_by_mlflow(root)
    if named is not None and not named.exists():
        raise ModelError(f"MLmodel names {named.relative_to(root).as_posix()}, but the folder does not hold it")
    if named is not None and named.is_file() and named.suffix.lower() in suffixes:
        if models and models[0] != named:
            raise ModelError(
                f"MLmodel names {named.relative_to(root).as_posix()}, but the folder also holds {models[0].name}; "
                "register a folder with one model file"
            )
        return root, named
    if not models:
        listing = ", ".join(name for name, _ in files_of(model))[:400] or "nothing"
        raise ModelError(f"the model folder holds no model file ({wanted}); it holds: {listing}")
    return root, path_inside(root, models[0].name, "the model folder")


def model_code(
    root: Path | None, entry: ModelTypeSettings, shipped: Mapping[str, Path] | None = None
) -> dict[str, Path]:
    """Path in the component -> file of the model's own code: the code/ folder of a model folder `root`, then
    the configured code_paths, each under the import path that the pickle knows. What is `shipped` already comes first.

    Raises ModelError if two files would collide, or a named folder is missing."""
    files: dict[str, Path] = dict(shipped or {})
    if root is not None:
        named = read_mlmodel(root).flavor("python_function").code
        folder = path_inside(root, named or "code", "MLmodel: flavors.python_function.code")
        if folder.is_dir():
            _collect(files, dict(files_of(folder)), folder)
        elif named:
            raise ModelError(f"MLmodel names the code folder {named!r}, but the model does not hold it")
    for path in entry.code_paths:
        prefix = "" if path.is_file() else f"{path.name}/"
        _collect(files, {f"{prefix}{name}": file for name, file in files_of(path)}, path)
    return files


def _collect(files: dict[str, Path], more: Mapping[str, Path], origin: Path) -> None:
    for name, file in more.items():
        if is_leftover(Path(name)) or file.suffix == ".pyc":
            continue
        refuse_pointer(file, name)
        if name in files and not filecmp.cmp(files[name], file, shallow=False):
            raise ModelError(f"{origin} and {files[name]} both give the component's {name}, with other content")
        files[name] = file


def _folder_with_models(model: Path, suffixes: tuple[str, ...]) -> Path:
    below = [path for path in _entries(model) if path.is_dir() and _models_in(path, suffixes)]
    return below[0] if len(below) == 1 and not _models_in(model, suffixes) else model


def _models_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return [path for path in _entries(folder) if path.is_file() and path.suffix.lower() in suffixes]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_leftover(path.relative_to(folder)))


def _named_by_mlflow(root: Path) -> Path | None:
    mlmodel = read_mlmodel(root)
    sklearn, python_function = mlmodel.flavor("sklearn"), mlmodel.flavor("python_function")
    if sklearn.pickled_model is not None:
        return path_inside(root, sklearn.pickled_model, "MLmodel: flavors.sklearn.pickled_model")
    if python_function.model_path is not None:
        return path_inside(root, python_function.model_path, "MLmodel: flavors.python_function.model_path")
    return None
