"""An image classifier on the server's GPU runtime: a package of three components, of which the one in the middle is the
ONNX model, and what stands for the server's runtime here.

The first and the last component are cut from component/: how images are decoded and fitted, and how scores are read, is
the same code as in a package of one component.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import ModelError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.model_types.image_classification.onnx_file import read_onnx
from edgepack_assets.model_types.image_classification.onnx_fixed import tensor_of, write_fixed
from edgepack_assets.model_types.image_classification.settings import ImageClassificationSettings
from edgepack_assets.model_types.interface import (
    ComponentSpec,
    GpuModel,
    GpuTensor,
    ModelSource,
    PipelineComponent,
    Variable,
)

_HERE = Path(__file__).parent
_PINS = "simaticai/testing/gpuruntime_requirements.txt"
_RUNTIME = ("onnxruntime", "protobuf")
"""What of the SDK's pins runs the model alone. Its numpy goes with these; what reads a model is not needed."""
_SHARED = ("decoding.py", "inference.py", "preprocessing.py")
_TYPES: Mapping[str, str] = {
    "float32": "Float32Array", "float64": "Float64Array", "uint8": "UInt8Array", "int8": "Int8Array",
}  # fmt: skip


def configured(settings: ImageClassificationSettings, name: str) -> dict[str, Any]:
    """`gpu` of the arguments of `inspect_model`: empty where the model `name` does not run on the GPU runtime.

    Raises ModelError where it is configured and the model is no .onnx file."""
    if settings.runtime != "gpu":
        return {}
    if not name.lower().endswith(".onnx"):
        raise ModelError(
            f"{name}: runtime: gpu goes with an .onnx file, which is all that the server's GPU runtime takes: remove "
            "it from edgepack.yaml, or register the model exported to ONNX"
        )
    gpu = settings.gpu.model_dump(mode="json", exclude_none=True) if settings.gpu is not None else {}
    return {"gpu": {"max_batch_size": 1, "warmup": False, **gpu}}


def requirements(merged: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what the Python components need, what stands for the server's GPU runtime). The latter is what the SDK's own
    runner pins. Where the configuration names an onnxruntime, it comes with the numpy and protobuf that it asks for,
    which are no older than those."""
    pins = Path(str(distribution("simaticai").locate_file(_PINS))).read_text(encoding="utf-8").splitlines()
    pinned = {_name(line): line.strip() for line in pins if line.strip() and not line.lstrip().startswith("#")}
    server = {name: [pinned[name]] for name in (*_RUNTIME, "numpy")}
    packaged = []
    named: dict[str, list[str]] = {}
    for line in merged:
        if (name := _name(line)) in _RUNTIME:
            named.setdefault(name, []).append(line)
            continue
        packaged.append(line)
        if name != "numpy":
            server.setdefault(name, []).append(line)
    if "onnxruntime" in named:
        server |= {name: [pinned[name].replace("==", ">=")] for name in ("numpy", "protobuf")}
    server |= named
    return tuple(packaged), tuple(line for name in sorted(server) for line in server[name])


def _name(line: str) -> str:
    return canonicalize_name(Requirement(line).name)


def pipeline(
    component: Path, source: ModelSource, inspection: Mapping[str, Any], spec: ComponentSpec, work: Path
) -> tuple[PipelineComponent, ...]:
    """The three components, made in `work` of what was inspected in `component`; `spec` is that of one component.

    Raises ModelError, EdgepackError."""
    given = source.arguments.get("gpu")
    if given is None:
        return ()
    found = inspection["gpu"]
    name = str(source.model["file"])
    file = source.files[name]
    onnx = read_onnx(file)
    most = int(given["max_batch_size"])
    entered, answered = inspection["input"], inspection["output"]
    image = [entered["channels"], entered["height"], entered["width"]]
    image = image if entered["layout"] == "NCHW" else [*image[1:], image[0]]
    first = (None,) if most > 1 else (1,)
    shape = tuple(found["answer_shape"])
    output = next(each for each in onnx.outputs if each.name == answered["name"])
    into = tensor_of(onnx.inputs[0], entered["type"], (*first, *image), "edgepack_image")
    out = tensor_of(output, answered["type"], (*first, *shape[1:]) if most > 1 else shape, "edgepack_scores")
    for tensor in (into, out):
        if tensor.dtype not in _TYPES:
            raise ModelError(f"{file.name}: {tensor.name!r} is {tensor.dtype}, which runtime: gpu does not take")
    with disk_errors(work):
        model = work / "inference" / "1" / "model.onnx"
        model.parent.mkdir(parents=True)
        weights = {location: path for location, path in source.files.items() if location != name}
        write_fixed(file, onnx, model, into, (output.name, out), weights)
        settings = json.loads((component / "model.json").read_text(encoding="utf-8"))
        settings.pop("onnx", None)
        settings["gpu"] = {
            "input": {"name": into.name, "shape": list(into.shape), "dtype": into.dtype},
            "output": {"name": out.name},
            "classes": math.prod(shape[1:] if most > 1 else shape),
            "max_batch_size": most,
        }
        text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
        before, after = work / "preprocessing", work / "postprocessing"
        extra = {each: source.files[each] for each in ("imageset.py",) if each in source.files}
        if extra:
            extra["image_set_decoding.py"] = _HERE / "component_image_set" / "image_set_decoding.py"
        _lay_out(before, {"entrypoint.py": _HERE / "component_gpu_before" / "entrypoint.py", **extra}, text)
        _lay_out(after, {"entrypoint.py": _HERE / "component_gpu_after" / "entrypoint.py"}, text)
    size = f"{entered['width']}x{entered['height']}"
    tensorrt = given.get("tensorrt")
    gpu = GpuModel(
        (into,), (out,), most, bool(given["warmup"]), tensorrt and {k: _text(v) for k, v in tensorrt.items()}
    )
    return (
        PipelineComponent(
            "preprocessing", before,
            ComponentSpec(f"Turns an image into what the model takes, scaled to {size}", spec.inputs,
                          (_variable(into, "the image, flat"),)),
        ),
        PipelineComponent("inference", work / "inference", ComponentSpec(spec.description, (), ()), gpu),
        PipelineComponent(
            "postprocessing", after,
            ComponentSpec("Tells the most probable class from the model's scores", (_variable(out, "the scores"),),
                          spec.outputs, spec.metrics),
        ),
    )  # fmt: skip


def _variable(tensor: GpuTensor, description: str) -> Variable:
    return Variable(tensor.name, _TYPES[tensor.dtype], description)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lay_out(folder: Path, files: Mapping[str, Path], model_json: str) -> None:
    folder.mkdir()
    for name, file in {**{shared: _HERE / "component" / shared for shared in _SHARED}, **files}.items():
        shutil.copyfile(file, folder / name)
    (folder / "model.json").write_text(model_json, encoding="utf-8")


def rows(settings: ImageClassificationSettings) -> list[CheckRow]:
    """What the validation cannot know of the GPU."""
    if settings.runtime != "gpu":
        return []
    precision = settings.gpu.tensorrt.precision_mode if settings.gpu and settings.gpu.tensorrt else None
    return [
        CheckRow(
            "the answers are those of the GPU",
            precision != "FP16",
            "validated on the processor" + (f"; the server computes with TensorRT in {precision}" if precision else ""),
            "answers that do not depend on where they are computed; with TensorRT in FP16 scores are rounded on the "
            "server: try the package there on images of which the classes are known",
            warns=True,
        )
    ]
