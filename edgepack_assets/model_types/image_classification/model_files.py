"""What of a registered model ships: the .tflite or .onnx file, and what goes with an .onnx file (onnx_model.py); or the
.tflite file that a Keras or TensorFlow model is converted into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.errors import ModelError
from edgepack_assets.filesystem.atomic_files import is_leftover
from edgepack_assets.model_types.image_classification import gpu, image_sets
from edgepack_assets.model_types.image_classification.keras_conversion import FILE, KerasConversion
from edgepack_assets.model_types.image_classification.onnx_model import OnnxModel, read_onnx_model
from edgepack_assets.model_types.image_classification.settings import ImageClassificationSettings
from edgepack_assets.model_types.interface import ModelSource
from edgepack_assets.model_types.keras_models.original import Original, find_original
from edgepack_assets.model_types.model_folder.model_file import (
    SavedEnvironment,
    find_model_file,
    merge_requirements,
    model_code,
    refuse_pointer,
    saved_environment,
)
from edgepack_assets.registry.base import files_of

_RUNTIMES = {".tflite": ("litert", "ai-edge-litert"), ".onnx": ("onnxruntime", "onnxruntime")}


def read_model(model: Path, entry: ModelTypeSettings) -> ModelSource:
    """Find what ships, without executing or loading it. Raises ModelError."""
    if not _holds_ready_file(model) and (original := find_original(model)) is not None:
        gpu.configured(entry.settings, original.name)
        return _to_convert(original, entry)
    if entry.code_paths:
        raise ModelError(
            f"code_paths: {entry.code_paths[0]} would not be used, as a .tflite or .onnx file runs without code "
            "of its own; remove code_paths from this entry of edgepack.yaml"
        )
    root, file = find_model_file(model, tuple(_RUNTIMES))
    suffix = file.suffix.lower()
    runtime, distribution = _RUNTIMES[suffix]
    name = f"model{suffix}"
    settings: ImageClassificationSettings = entry.settings
    if suffix == ".onnx":
        onnx = read_onnx_model(file, root, settings)
    else:
        _refuse_onnx_settings(file.name, settings)
        onnx = OnnxModel({}, {}, {}, {})
    on_gpu = gpu.configured(settings, file.name)
    arguments = {**onnx.arguments, **_configured_scores(settings), **on_gpu}
    image_set = _image_set(settings)
    needed = ("numpy", "pillow", *image_set.needed) if on_gpu else (distribution, "numpy", "pillow", *image_set.needed)
    saved = SavedEnvironment() if model.is_file() else saved_environment(root, entry, only=_kept(needed))
    required, packaged = merge_requirements(saved.requirements, entry, needed), None
    if on_gpu:
        packaged, required = gpu.requirements(required)
    return ModelSource(
        files={name: file, **onnx.external_data, **image_set.files},
        model={"file": name, "runtime": runtime}
        | ({"input": settings.given} if settings.given else {})
        | ({"onnx": onnx.options} if onnx.options else {})
        | dict(image_set.model),
        requirements=required,
        packaged_requirements=packaged,
        # What Python a model was trained with says nothing of a file that no Python code belongs to.
        python_version=None,
        pinned_with=saved.python_version,
        constraints=(*saved.constraints, *image_set.bounds),
        saved_versions={name: version for name, version in saved.versions.items() if name != "python"},
        parts=saved.parts,
        component_files=onnx.component_files,
        arguments=arguments,
    )


def _configured_scores(settings: ImageClassificationSettings) -> dict[str, Any]:
    output = settings.output
    if output is None:
        return {}
    kind = {"scores": output.scores, "scores_are": "configured"} if output.scores else {}
    return {**kind, **({"classes": output.classes} if output.classes else {})}


def _refuse_onnx_settings(name: str, settings: ImageClassificationSettings) -> None:
    if settings.size is not None:
        raise ModelError(f"{name}: input.size goes with an .onnx file; a .tflite file has a fixed size: remove it")
    if settings.output is not None and settings.output.name is not None:
        raise ModelError(f"{name}: output.name goes with an .onnx file; a .tflite file has one output: remove it")


def _kept(needed: tuple[str, ...]) -> set[str]:
    # An MLflow folder asks for what trained or exported the model (tensorflow, torch, onnx). None of that
    # takes part in running the file, and it would make the package many times larger. Only what runs the
    # file is kept at the version it was saved with.
    return {canonicalize_name(name) for name in (*needed, "mlflow", "mlflow-skinny")}


def _holds_ready_file(model: Path) -> bool:
    return any(file.suffix.lower() in _RUNTIMES for name, file in files_of(model) if not is_leftover(Path(name)))


def _to_convert(original: Original, entry: ModelTypeSettings) -> ModelSource:
    """A Keras or TensorFlow model, of which a .tflite file is made."""
    for name, file in files_of(original.path):
        refuse_pointer(file, name)
    settings: ImageClassificationSettings = entry.settings
    _refuse_onnx_settings(original.name, settings)
    runtime, distribution = _RUNTIMES[".tflite"]
    image_set = _image_set(settings)
    needed = (distribution, "numpy", "pillow", *image_set.needed)
    saved = SavedEnvironment()
    if original.root is not None:
        saved = saved_environment(original.root, entry, only=_kept(needed))
    return ModelSource(
        files=image_set.files,
        model={"file": FILE, "runtime": runtime, **({"input": settings.given} if settings.given else {})}
        | dict(image_set.model),
        requirements=merge_requirements(saved.requirements, entry, needed),
        python_version=None,
        pinned_with=saved.python_version,
        constraints=(*saved.constraints, *image_set.bounds),
        saved_versions={name: version for name, version in saved.versions.items() if name != "python"},
        parts=saved.parts,
        arguments=_configured_scores(settings),
        conversion=KerasConversion(original, model_code(original.root, entry), entry),
    )


@dataclass(frozen=True)
class _ImageSet:
    """What ships where images come as an ImageSet: the SDK's module, and what it needs."""

    files: Mapping[str, Path] = field(default_factory=dict)
    bounds: tuple[str, ...] = ()
    model: Mapping[str, str] = field(default_factory=dict)

    @property
    def needed(self) -> tuple[str, ...]:
        """The names of the distributions."""
        return tuple(Requirement(line).name for line in self.bounds)


def _image_set(settings: ImageClassificationSettings) -> _ImageSet:
    if settings.payload != "image_set":
        return _ImageSet()
    return _ImageSet({"imageset.py": image_sets.sdk_file()}, (image_sets.requirement(),), {"payload": "image_set"})
