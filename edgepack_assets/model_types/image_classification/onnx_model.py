"""What a registered .onnx file needs to be packaged: the files of its weights, the options of the component that loads
it, and what its graph says of the scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgepack_assets.errors import ModelError
from edgepack_assets.filesystem.atomic_files import READ_ONLY, disk_errors
from edgepack_assets.model_types.image_classification.onnx_file import OnnxFile, read_onnx
from edgepack_assets.model_types.image_classification.onnx_fixed import refuse_several_files
from edgepack_assets.model_types.image_classification.onnx_split import split_onnx
from edgepack_assets.model_types.image_classification.settings import ImageClassificationSettings
from edgepack_assets.model_types.model_folder.bounded_files import path_inside
from edgepack_assets.model_types.model_folder.model_file import refuse_pointer

LARGE = 192 << 20
"""Bytes of a model from which on it is loaded with care: up to here it may be in memory three times."""
HUGE_TENSOR = 256 << 20
_MODEL = "model.onnx"
_COMPONENT_FILES = (
    "entrypoint.py", "decoding.py", "inference.py", "preprocessing.py", "onnx_options.py", "model.json",
    "image_set_decoding.py", "imageset.py", "envelope.py", "image_features.py",
)  # fmt: skip
"""Of every form of the component: `payload` may change."""
_NAMES_OF_SCORES = ("logit", "prob", "score", "class")
_OPTIONS_FOLDER = Path(__file__).with_name("component_onnx")
_SCORES: Mapping[str, str] = {
    "Softmax": "probabilities",
    "Sigmoid": "probabilities",
    "HardSigmoid": "probabilities",
    "LogSoftmax": "logits",
}
"""What the last operation makes of scores. The softmax of logarithms of probabilities is these probabilities."""


@dataclass(frozen=True)
class OnnxModel:
    """`external_data`: path in the component -> file with weights. `options`: `onnx` of model.json, empty where
    component/ alone can load the file; `component_files`: what else ships then. `arguments` of `inspect_model`."""

    external_data: Mapping[str, Path]
    options: Mapping[str, Any]
    component_files: Mapping[str, Path]
    arguments: Mapping[str, Any]


def read_onnx_model(file: Path, root: Path, settings: ImageClassificationSettings) -> OnnxModel:
    """Find out without loading it. `root` is the folder of the model's files. Raises ModelError."""
    parsed = read_onnx(file)
    external = _external_data(file, root, parsed)
    if settings.runtime == "gpu":
        refuse_several_files(file, parsed, external)
    size = _size(file.name, parsed, settings)
    output = _output(file.name, parsed, settings)
    options: dict[str, Any] = {}
    if len(parsed.outputs) > 1:
        options["output"] = output
    if size is not None:
        options["size"] = list(size)
    with disk_errors(file, "read"):
        total = sum(each.stat().st_size for each in {file, *external.values()})
    if total > LARGE:
        options["is_large"] = True
        sizes = [weights.size for weights in parsed.weights] + [each.length or total for each in parsed.external]
        if max(sizes, default=0) > HUGE_TENSOR:
            options["has_huge_tensor"] = True
    opset = parsed.opsets.get("", parsed.opsets.get("ai.onnx", 0))
    arguments: dict[str, Any] = {"ir_version": parsed.ir_version, "opset": opset}
    operation = parsed.operations.get(output, "")
    if operation in _SCORES:
        configured = settings.output.scores if settings.output is not None else None
        if configured not in (None, _SCORES[operation]):
            raise ModelError(
                f"{file.name}: output.scores is {configured}, but the model's last operation is {operation}, which "
                f"gives {_SCORES[operation]}: remove output.scores from edgepack.yaml"
            )
        arguments |= {"scores": _SCORES[operation], "scores_are": f"the model's last operation is {operation}"}
    shipped = {each.name: each for each in _OPTIONS_FOLDER.glob("*.py")} if options else {}
    return OnnxModel(external, options, shipped, arguments)


def split_large_weights(component: Path, model: Mapping[str, Any]) -> None:
    """Put the weights of a large .onnx file in a component's folder beside it, so that onnxruntime maps them.

    Raises ModelError, EdgepackError."""
    if not model.get("onnx", {}).get("is_large"):
        return
    file = component / str(model["file"])
    parsed = read_onnx(file)
    if not parsed.weights:
        return
    names = (f"{file.name}.data", *(f"{file.name}.{number}.data" for number in range(2, 1000)))
    data = next(component / name for name in names if not (component / name).exists())
    aside = component / f".{file.name}.split"
    split_onnx(file, parsed, aside, data)
    data.chmod(READ_ONLY)  # nobody writes into it any more, so the sandbox need not copy it
    aside.replace(file)


def _output(name: str, parsed: OnnxFile, settings: ImageClassificationSettings) -> str:
    """The output with the scores."""
    wanted = settings.output.name if settings.output is not None else None
    outputs = [output.name for output in parsed.outputs]
    shown = ", ".join(f"{output.name!r} ({output.shape_text})" for output in parsed.outputs[:20])
    if not outputs:
        raise ModelError(f"{name}: its graph has no output; register the exported model again")
    if wanted is None and len(outputs) > 1:
        likely = next((each for each in outputs if any(word in each.lower() for word in _NAMES_OF_SCORES)), outputs[0])
        raise ModelError(
            f"{name}: has {len(outputs)} outputs, {shown}; set the one with a score for each class in edgepack.yaml, "
            f"as output: {{name: {likely}}}"
        )
    if wanted is not None and wanted not in outputs:
        raise ModelError(f"{name}: has no output {wanted!r}, which output.name says; its outputs: {shown}")
    return wanted or outputs[0]


def _size(name: str, parsed: OnnxFile, settings: ImageClassificationSettings) -> tuple[int, int] | None:
    """Height and width that the file leaves open and the configuration says; None where the file fixes them."""
    if len(parsed.inputs) != 1:
        inputs = ", ".join(f"{each.name!r} ({each.shape_text})" for each in parsed.inputs[:20]) or "none"
        raise ModelError(f"{name}: an image classifier has one input, this has {inputs}; export it with that one alone")
    [entered] = parsed.inputs
    if entered.shape is None:
        return None  # what it is shows when the model is inspected
    if len(entered.shape) != 4:
        raise ModelError(
            f"{name}: its input {entered.name!r} is {entered.shape_text}, not batch, height, width and channels: it "
            "takes no images"
        )
    channels_last = entered.shape[3] in (1, 3) and entered.shape[1] not in (1, 3)
    fixed = entered.shape[1:3] if channels_last else entered.shape[2:4]
    if settings.size is None:
        if None in fixed:
            raise ModelError(
                f"{name}: its input {entered.name!r} is {entered.shape_text}, so height and width are not fixed; set "
                "what the model was trained on in edgepack.yaml, as input: {size: [224, 224]}"
            )
        return None
    if any(size not in (None, wanted) for size, wanted in zip(fixed, settings.size, strict=True)):
        wanted = f"[{settings.size[0]}, {settings.size[1]}]"
        raise ModelError(
            f"{name}: its input {entered.name!r} is {entered.shape_text}, but input.size is {wanted}, [height, width]; "
            "remove input.size, or export the model for that size"
        )
    return settings.size if None in fixed else None


def _external_data(file: Path, root: Path, parsed: OnnxFile) -> dict[str, Path]:
    """Path in the component -> file, for the weights that an .onnx file keeps in files beside it."""
    shipped: dict[str, Path] = {}
    ends: dict[Path, int] = {}
    for tensor in parsed.external:
        path = PurePosixPath(tensor.location)
        known = shipped.get(path.as_posix())
        data = known or _external_file(file, root, tensor.location)
        shipped[path.as_posix()] = data
        ends[data] = max(ends.get(data, 0), tensor.offset + (tensor.length or 0))
    for data, end in ends.items():
        with disk_errors(data, "read"):
            size = data.stat().st_size
        if end > size:
            raise ModelError(
                f"{data.name}: has {size} bytes, but {file.name} keeps weights there up to byte {end}: the file is cut "
                "short, or of another export; register both anew"
            )
    return shipped


def _external_file(file: Path, root: Path, location: str) -> Path:
    below = (file.parent.relative_to(root) / location).as_posix() if not location.startswith("/") else location
    data = path_inside(root, below, f"{file.name}: its external data")
    if not data.is_file():
        raise ModelError(
            f"{file.name}: keeps weights in {location!r}, which is not beside it; "
            "register the folder with both, or export the model as one file"
        )
    refuse_pointer(data, location)
    if PurePosixPath(location).as_posix() in (*_COMPONENT_FILES, _MODEL):
        raise ModelError(f"{file.name}: keeps weights in {location!r}, a name that the component itself uses")
    return data
