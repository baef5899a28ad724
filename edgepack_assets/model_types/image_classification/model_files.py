"""What of a registered model ships: the .tflite or .onnx file, and the weights an .onnx file keeps beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.errors import ModelError
from edgepack_assets.filesystem.atomic_files import is_leftover
from edgepack_assets.model_types.interface import ModelSource
from edgepack_assets.model_types.model_folder.bounded_files import path_inside
from edgepack_assets.model_types.model_folder.model_file import (
    SavedEnvironment,
    find_model_file,
    merge_requirements,
    mlflow_root,
    read_mlmodel,
    refuse_pointer,
    saved_environment,
)
from edgepack_assets.registry.base import files_of

_RUNTIMES = {".tflite": ("litert", "ai-edge-litert"), ".onnx": ("onnxruntime", "onnxruntime")}
_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5", ".pb")
_KERAS_FLAVORS = ("tensorflow", "keras")
_COMPONENT_FILES = ("entrypoint.py", "decoding.py", "inference.py", "preprocessing.py", "model.json")
# In ONNX's protobuf: TensorProto.external_data (field 13), an entry {"key": "location", "value": path}, each with
# its length before it in one or two bytes.
_LENGTH = rb"[\x01-\x7f]|[\x80-\xff][\x01-\x7f]"
_LOCATION = re.compile(rb"\x6a(?:" + _LENGTH + rb")\x0a\x08location\x12(" + _LENGTH + rb")", re.DOTALL)
_CHUNK, _OVERLAP = 2**24, 2**16


def read_model(model: Path, entry: ModelTypeSettings) -> ModelSource:
    """Find what ships, without executing or loading it. Raises ModelError."""
    if entry.code_paths:
        raise ModelError(
            f"code_paths: {entry.code_paths[0]} would not be used, as a .tflite or .onnx file runs without code "
            "of its own; remove code_paths from this entry of edgepack.yaml"
        )
    _refuse_keras(model)
    root, file = find_model_file(model, tuple(_RUNTIMES))
    suffix = file.suffix.lower()
    runtime, distribution = _RUNTIMES[suffix]
    name = f"model{suffix}"
    files = {name: file}
    if suffix == ".onnx":
        files |= _external_data(file, root)
    needed = (distribution, "numpy", "pillow")
    saved = SavedEnvironment() if model.is_file() else saved_environment(root, entry, only=_kept(needed))
    return ModelSource(
        files=files,
        model={"file": name, "runtime": runtime}
        | ({"input": entry.settings.input.given} if entry.settings.input is not None else {}),
        requirements=merge_requirements(saved.requirements, entry, needed),
        # What Python a model was trained with says nothing of a file that no Python code belongs to.
        python_version=None,
        constraints=saved.constraints,
        saved_versions={name: version for name, version in saved.versions.items() if name != "python"},
        parts=saved.parts,
    )


def _kept(needed: tuple[str, ...]) -> set[str]:
    # An MLflow folder asks for what trained or exported the model (tensorflow, torch, onnx). None of that
    # takes part in running the file, and it would make the package many times larger. Only what runs the
    # file is kept at the version it was saved with.
    return {canonicalize_name(name) for name in (*needed, "mlflow", "mlflow-skinny")}


def _refuse_keras(model: Path) -> None:
    files = [file for name, file in files_of(model) if not is_leftover(Path(name))]
    if any(file.suffix.lower() in _RUNTIMES for file in files):
        return
    kinds = [file.name for file in files if file.suffix.lower() in _KERAS_SUFFIXES]
    root = None if model.is_file() else mlflow_root(model)
    if root is not None:
        flavors = read_mlmodel(root).flavors
        kinds += [f"MLflow flavor {name}" for name in _KERAS_FLAVORS if name in flavors]
    if kinds:
        raise ModelError(
            f"{model.name}: a Keras or TensorFlow model ({kinds[0]}); its conversion comes later. "
            "Until then export it as .tflite or .onnx and register that file"
        )


def _external_data(file: Path, root: Path) -> dict[str, Path]:
    """Path in the component -> file, for the weights that an .onnx file keeps in files beside it."""
    files: dict[str, Path] = {}
    for location in _locations(file):
        below = (file.parent.relative_to(root) / location).as_posix() if not location.startswith("/") else location
        data = path_inside(root, below, f"{file.name}: its external data")
        path = PurePosixPath(location)
        if not data.is_file():
            raise ModelError(
                f"{file.name}: keeps weights in {location!r}, which is not beside it; "
                "register the folder with both, or export the model as one file"
            )
        refuse_pointer(data, location)
        if path.as_posix() in (*_COMPONENT_FILES, f"model{file.suffix.lower()}"):
            raise ModelError(f"{file.name}: keeps weights in {location!r}, a name that the component itself uses")
        files[path.as_posix()] = data
    return files


def _locations(file: Path) -> Iterator[str]:
    """The external files that an .onnx file names, found in its bytes: parsing it would need onnx itself."""
    seen: set[bytes] = set()
    window = b""
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            window = window[-_OVERLAP:] + chunk
            for match in _LOCATION.finditer(window):
                size = match[1]
                length = size[0] if len(size) == 1 else (size[0] & 0x7F) | size[1] << 7
                location = window[match.end() : match.end() + length]
                if len(location) == length and location not in seen:
                    seen.add(location)
                    yield _decoded(location, file)


def _decoded(location: bytes, file: Path) -> str:
    try:
        return location.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{file.name}: names a file with weights as {location!r}, which is not UTF-8") from error
