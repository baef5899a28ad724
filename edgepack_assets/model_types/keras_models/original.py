"""Finding the Keras or TensorFlow model in what is registered, and reading a .keras file's texts, within bounds.

Nothing is loaded. An HDF5 file is only recognised here; its texts are read in the sandbox (child_tasks.read_hdf5).
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from edgepack_assets.errors import ModelError, PackageError
from edgepack_assets.filesystem.atomic_files import is_leftover
from edgepack_assets.filesystem.reproducible_zip import opened_zip
from edgepack_assets.model_types.keras_models import saved_model
from edgepack_assets.model_types.keras_models.keras_config import Described, describe
from edgepack_assets.model_types.model_folder.bounded_files import path_inside
from edgepack_assets.model_types.model_folder.mlflow_files import mlflow_root, read_mlmodel
from edgepack_assets.registry.base import files_of

Kind = Literal["keras", "hdf5", "saved_model"]
_SUFFIXES: dict[str, Kind] = {".keras": "keras", ".h5": "hdf5", ".hdf5": "hdf5"}
_FLAVORS = ("tensorflow", "keras")
_LARGEST_TEXT = 16 << 20
_LISTED = 20


@dataclass(frozen=True)
class Original:
    """`path` is a file, or the folder of a SavedModel; `root` the folder that the model's code lies in, None where one
    file is registered; `name` is for messages."""

    kind: Kind
    path: Path
    root: Path | None
    name: str


def find_original(model: Path) -> Original | None:
    """The one Keras or TensorFlow model among the registered files; None where there is none.

    Raises ModelError on several, and on files from which no model can be loaded."""
    if model.is_file():
        kind = _SUFFIXES.get(model.suffix.lower())
        if kind is None:
            _refuse_others([model.name], model.suffix.lower() == ".pb")
            return None
        _refuse_weights(model.name)
        return Original(kind, model, None, model.name)
    names = [name for name, _ in files_of(model) if not is_leftover(Path(name))]
    root = mlflow_root(model)
    flavors = [flavor for flavor in _FLAVORS if root is not None and flavor in read_mlmodel(root).flavors]
    code = _code_folder(model, root)
    candidates = sorted(_candidates(name for name in names if code is None or not (model / name).is_relative_to(code)))
    if len(candidates) > 1:
        listed = ", ".join(path for path, _ in candidates[:_LISTED])
        raise ModelError(
            f"the model folder holds {len(candidates)} Keras or TensorFlow models ({listed}); register one"
        )
    if not candidates:
        _refuse_half_saved_model(names)
        frozen = any(name.lower().endswith(".pb") for name in names)
        _refuse_others(names, frozen or bool(flavors))
        return None
    path, kind = candidates[0]
    if kind != "saved_model":
        _refuse_weights(path)
    place = path_inside(model, path, "the model folder") if path != "." else model
    return Original(kind, place, root or model, path if path != "." else model.name)


def read_keras(original: Original) -> Described:
    """What the texts in a .keras file tell. Raises ModelError."""
    try:
        with opened_zip(original.path, original.name) as archive:
            metadata, config = (_text(archive, name, original.name) for name in ("metadata.json", "config.json"))
            lacking = {"model.weights.h5"} - set(archive.namelist())
    except PackageError as error:
        raise ModelError(f"{error}; was it copied whole? Save it by model.save('name.keras') again") from None
    if lacking:
        raise ModelError(f"{original.name}: holds no model.weights.h5; save it by model.save('name.keras') again")
    try:
        version = json.loads(metadata)["keras_version"]
    except (ValueError, RecursionError, TypeError, KeyError):
        version = None
    if not isinstance(version, str):
        raise ModelError(f"{original.name}: its metadata.json does not say which version of Keras saved it")
    return describe(original.name, config, version[:50])


def read_texts(original: Original, version: str | None, config: str | None) -> Described:
    """What the texts in an HDF5 file tell. Raises ModelError."""
    if config is None:
        raise ModelError(
            f"{original.name}: holds weights without the model they belong to; save the whole model, by "
            "model.save('name.keras')"
        )
    return describe(original.name, config, version or "2.0")


def _candidates(names: Iterable[str]) -> set[tuple[str, Kind]]:
    candidates: set[tuple[str, Kind]] = set()
    for name in names:
        path = PurePosixPath(name)
        if path.name == saved_model.FILE:
            candidates.add((str(path.parent), "saved_model"))
        elif path.suffix.lower() in _SUFFIXES:
            candidates.add((name, _SUFFIXES[path.suffix.lower()]))
    return candidates


def _code_folder(model: Path, root: Path | None) -> Path | None:
    if root is None:
        return None
    return path_inside(root, read_mlmodel(root).flavor("python_function").code or "code", "MLmodel: code")


def _refuse_weights(name: str) -> None:
    if name.lower().endswith(".weights.h5"):
        raise ModelError(f"{name}: holds weights alone; save the whole model, by model.save('name.keras')")


def _refuse_half_saved_model(names: Iterable[str]) -> None:
    for name in names:
        if name.endswith("variables/variables.index"):
            folder = name.removesuffix("variables/variables.index")
            raise ModelError(
                f"the model folder holds {name} but no {folder}{saved_model.FILE}, which a SavedModel consists of as "
                "well: was it copied whole? Register the whole folder that model.export wrote"
            )


def _refuse_others(names: list[str], are_of_tensorflow: bool) -> None:
    if are_of_tensorflow:
        raise ModelError(
            f"a TensorFlow model without a file that can be converted ({', '.join(names)[:400]}): register a .keras or "
            ".h5 file, a SavedModel folder (model.export), or a .tflite or .onnx file. A frozen graph (.pb) does not "
            "say how it is called"
        )


def _text(archive: zipfile.ZipFile, name: str, subject: str) -> str:
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise ModelError(
            f"{subject}: holds no {name}, so it is no Keras model; save it by model.save('name.keras')"
        ) from None
    if entry.file_size > _LARGEST_TEXT:
        raise ModelError(f"{subject}: its {name} has {entry.file_size} bytes; at most {_LARGEST_TEXT} are read")
    try:
        with archive.open(entry) as stream:
            return stream.read(_LARGEST_TEXT + 1).decode("utf-8")
    except (UnicodeDecodeError, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise ModelError(f"{subject}: its {name} cannot be read ({error})") from None
