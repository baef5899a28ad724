"""From an image to a class: giving it to the model as the model wants it, reading its scores.

What the model wants (size, layout, type, quantization) is read from the model file itself. How it was trained to see
pixels is in no model file, but under `input` in model.json (preprocessing.py).

Runs on the edge, with numpy, Pillow and the one runtime that the model needs: nothing else may be imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from decoding import NoAnswer
from PIL import Image
from preprocessing import Preprocessing

PROBABILITIES, LOGITS = "probabilities", "logits"

_ONNX_TYPES = {"float": "float32", "double": "float64"}
_FLOATS = ("float16", "float32", "float64")


class UnfitModel(ValueError):
    """The model cannot classify images as this component does; the text says what to change."""

    is_for_user = True


@dataclass(frozen=True)
class Tensor:
    """What the model file says of an input or output. None in the shape: not fixed. `quantization` is
    (scale, zero point) of real = scale * (stored - zero point)."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    quantization: tuple[float, int] | None = None

    @property
    def shape_text(self) -> str:
        """The shape as a person reads it."""
        return "x".join("?" if size is None else str(size) for size in self.shape) or "scalar"


class Runtime(Protocol):
    """A loaded model file."""

    input: Tensor
    output: Tensor
    default_layout: str

    def run(self, tensor: np.ndarray) -> np.ndarray:
        """The output for one input."""
        ...

    def properties(self) -> Mapping[str, str]:
        """What the file says about itself, as far as the runtime tells it."""
        ...


class LiteRt:
    """A .tflite file."""

    default_layout = "NHWC"

    def __init__(self, file: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(file))
        self._interpreter.allocate_tensors()
        source = _only(self._interpreter.get_input_details(), "input")
        target = _only(self._interpreter.get_output_details(), "output")
        self._source, self._target = source["index"], target["index"]
        self.input, self.output = self._describe(source), self._describe(target)

    @staticmethod
    def _describe(details: dict[str, Any]) -> Tensor:
        parameters = details["quantization_parameters"]
        if len(parameters["scales"]) > 1:
            raise UnfitModel(f"its tensor {details['name']!r} is quantized per channel; export it per tensor")
        quantization = None
        if len(parameters["scales"]) == 1:
            quantization = (float(parameters["scales"][0]), int(parameters["zero_points"][0]))
        shape = tuple(int(size) if size >= 0 else None for size in details["shape_signature"])
        return Tensor(details["name"], shape, np.dtype(details["dtype"]).name, quantization)

    def run(self, tensor: np.ndarray) -> np.ndarray:
        """The output for one input."""
        self._interpreter.set_tensor(self._source, tensor)
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._target))

    def properties(self) -> Mapping[str, str]:
        """Nothing: the runtime does not read a .tflite file's metadata."""
        return {}


class Onnx:
    """A .onnx file."""

    default_layout = "NCHW"

    def __init__(self, file: Path) -> None:
        import onnxruntime

        # It would tell its maker of every session. Older versions have nothing to switch off.
        getattr(onnxruntime, "disable_telemetry_events", lambda: None)()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; its warnings are about optimisations that it left out
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.input = self._describe(_only(self._session.get_inputs(), "input"))
        self.output = self._describe(_only(self._session.get_outputs(), "output"))

    @staticmethod
    def _describe(argument: Any) -> Tensor:
        shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in argument.shape)
        kind = argument.type.removeprefix("tensor(").removesuffix(")")
        return Tensor(argument.name, shape, _ONNX_TYPES.get(kind, kind))

    def run(self, tensor: np.ndarray) -> np.ndarray:
        """The output for one input."""
        return np.asarray(self._session.run([self.output.name], {self.input.name: tensor})[0])

    def properties(self) -> Mapping[str, str]:
        """The file's metadata_props."""
        found: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        return found


def _only(tensors: list[Any], kind: str) -> Any:
    if len(tensors) != 1:
        raise UnfitModel(f"it has {len(tensors)} {kind}s; an image classifier has one: export it with that one alone")
    return tensors[0]


_RUNTIMES: dict[str, type[LiteRt] | type[Onnx]] = {"litert": LiteRt, "onnxruntime": Onnx}


class ImageInput:
    """How an image enters the model. `levels` is what each of a pixel's 256 values is to the model, one row for each
    channel, or for all of them; `tensor` is filled anew for each image."""

    def __init__(self, tensor: Tensor, default_layout: str, preprocessing: Preprocessing | None = None) -> None:
        self.preprocessing = preprocessing or Preprocessing()
        self.layout = _layout(tensor, default_layout)
        _, *sizes = tensor.shape
        if self.layout == "NCHW":
            sizes = [*sizes[1:], sizes[0]]
        height, width, channels = sizes
        if not height or not width:
            raise UnfitModel(
                f"its input {tensor.name!r} is {tensor.shape_text}: height and width are not fixed; "
                "export it for one image size"
            )
        if tensor.shape[0] not in (1, None):
            raise UnfitModel(
                f"its input {tensor.name!r} is {tensor.shape_text}: it takes {tensor.shape[0]} images at a time; "
                "export it with batch size 1"
            )
        self.height, self.width, self.channels = int(height), int(width), int(channels or 0)
        self.levels = channel_levels(tensor, self.preprocessing)
        self._check(tensor)
        self.tensor = np.zeros([1, *(int(size or 1) for size in tensor.shape[1:])], self.levels.dtype)
        self._by_channel = np.moveaxis(self.tensor[0], 0 if self.layout == "NCHW" else 2, 0)

    def _check(self, tensor: Tensor) -> None:
        if len(self.levels) not in (1, self.channels):
            raise UnfitModel(
                f"its input {tensor.name!r} is {tensor.shape_text}, with {self.channels} channel(s), but input.mean "
                f"and input.std name {len(self.levels)}; name one number for each channel"
            )
        box = self.preprocessing.box(self.width, self.height)
        if self.preprocessing.resize == "crop" and (box[0] < self.width or box[1] < self.height):
            raise UnfitModel(
                f"its input {tensor.name!r} is {self.width}x{self.height} pixels, but input.shorter_side is "
                f"{self.preprocessing.shorter_side}; it must be at least {max(self.width, self.height)}"
            )

    def fill(self, image: Image.Image) -> np.ndarray:
        """The tensor that shows this RGB image."""
        if self.channels == 1:
            image = image.convert("L")
        scaled = self.preprocessing.fit(image, self.width, self.height)
        pixels = np.asarray(scaled).reshape(self.height, self.width, self.channels)
        if self.preprocessing.channel_order == "bgr":
            pixels = pixels[:, :, ::-1]
        if len(self.levels) > 1:
            for channel, levels in enumerate(self.levels):
                self._by_channel[channel] = levels[pixels[:, :, channel]]
            return self.tensor
        if self.layout == "NCHW":
            pixels = pixels.transpose(2, 0, 1)
        np.take(self.levels[0], pixels, out=self.tensor[0], mode="clip")
        return self.tensor


def _layout(tensor: Tensor, default: str) -> str:
    if len(tensor.shape) != 4:
        raise UnfitModel(f"its input {tensor.name!r} is {tensor.shape_text}, not batch, height, width and channels")
    found = [name for name, axis in (("NHWC", 3), ("NCHW", 1)) if tensor.shape[axis] in (1, 3)]
    if not found:
        raise UnfitModel(
            f"its input {tensor.name!r} is {tensor.shape_text}: neither the second nor the last number is 1 (grey) "
            "or 3 (colour); export it with such a fixed number of channels"
        )
    return found[0] if len(found) == 1 else default


def channel_levels(tensor: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """What the pixel values 0 to 255 are to a model with this input: 256 numbers of the model's own type, in a row for
    each channel or in one for all."""
    suggested = pixel_levels(tensor)
    wanted = preprocessing.values()
    if wanted is None:
        return suggested[None]
    if tensor.dtype in _FLOATS:
        with np.errstate(over="ignore"):
            levels = wanted.astype(tensor.dtype)
        if not np.isfinite(levels).all():
            raise UnfitModel(f"its input {tensor.name!r} is {tensor.dtype}, which the configured values go beyond")
        return levels
    lowest = int(np.iinfo(tensor.dtype).min)
    if tensor.quantization is None:
        if not np.allclose(wanted, np.arange(lowest, lowest + 256)):
            raise UnfitModel(
                f"its input {tensor.name!r} is {tensor.dtype} without a scale: it takes pixels as they are; remove "
                f"mean and std from input, and write range: [{lowest}, {lowest + 255}] or none"
            )
        return suggested[None]
    scale, zero_point = tensor.quantization
    return np.clip(np.rint(wanted / scale) + zero_point, lowest, lowest + 255).astype(tensor.dtype)


def pixel_levels(tensor: Tensor) -> np.ndarray:
    """What the pixel values 0 to 255 are to a model of which no more is known than this input's type: 256 numbers of
    that type."""
    pixels = np.arange(256)
    if tensor.dtype in _FLOATS:
        return (pixels / 255).astype(tensor.dtype)
    if tensor.dtype not in ("uint8", "int8"):
        raise UnfitModel(
            f"its input {tensor.name!r} has the type {tensor.dtype}; images enter as float32, float16, uint8 or int8"
        )
    lowest = int(np.iinfo(tensor.dtype).min)
    if tensor.quantization is not None:
        scale, zero_point = tensor.quantization
        darkest, brightest = scale * (lowest - zero_point), scale * (lowest + 255 - zero_point)
        if brightest > 0 and darkest > -0.05 * brightest:
            # Trained on [0, 1] or on [0, 255]: store exactly these. For scale 1/255 that is the pixel itself.
            top = 1.0 if brightest <= 2 else 255.0
            stored = np.rint(pixels / 255 * top / scale) + zero_point
            return np.clip(stored, lowest, lowest + 255).astype(tensor.dtype)
    # Not quantized, or trained on values about zero such as [-1, 1]: darkest to brightest is the type's whole
    # range, so the pixel itself is what is stored.
    return (pixels + lowest).astype(tensor.dtype)


class Classifier:
    """A loaded model and the way its scores are read, which is found out by probing where it is not known."""

    def __init__(self, model: Runtime, scores: str | None = None, preprocessing: Preprocessing | None = None) -> None:
        self.model = model
        self.input = ImageInput(model.input, model.default_layout, preprocessing)
        self._quantization = _score_quantization(model.output)
        self.scores = scores or kind_of_scores(self.probe())

    def classify(self, image: Image.Image) -> tuple[int, float]:
        """The most probable class of an RGB image, and its probability."""
        return read_scores(self._real(self._run(image)), self.scores)

    def probe(self) -> list[np.ndarray]:
        """The scores for images that have little in common. Raises UnfitModel where they are no scores."""
        found = [self._run(image) for image in test_images(self.input.width, self.input.height)]
        for output in found:
            if output.size == 0 or sum(size > 1 for size in output.shape) > 1:
                raise UnfitModel(
                    f"its output {self.model.output.name!r} is {'x'.join(map(str, output.shape))}, "
                    "not one score for each class"
                )
        return [self._real(output) for output in found]

    def _run(self, image: Image.Image) -> np.ndarray:
        return self.model.run(self.input.fill(image))

    def _real(self, output: np.ndarray) -> np.ndarray:
        scores = output.reshape(-1).astype(np.float32)
        if self._quantization is not None:
            scale, zero_point = self._quantization
            scores = (scores - np.float32(zero_point)) * np.float32(scale)
        return scores


def test_images(width: int, height: int) -> list[Image.Image]:
    """Black, white, a ramp and two of noise."""
    ramp = np.linspace(0, 255, width * height * 3).astype(np.uint8).reshape(height, width, 3)
    noise = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    return [Image.fromarray(pixels) for pixels in (np.zeros_like(ramp), np.full_like(ramp, 255), ramp, *noise)]


def _score_quantization(output: Tensor) -> tuple[float, int] | None:
    if output.dtype in _FLOATS:
        return None
    if output.quantization is None or output.dtype not in ("uint8", "int8"):
        raise UnfitModel(
            f"its output {output.name!r} has the type {output.dtype} and no scale; "
            "export it with floating point or quantized scores, one for each class"
        )
    return output.quantization


def kind_of_scores(probed: list[np.ndarray]) -> str:
    """Whether a model's scores are probabilities already, judged by its scores for several images.

    All within 0 and 1 says so, whether they sum to 1 (softmax), roughly (quantized softmax: a thousand
    classes each rounded to 1/256) or not at all (a sigmoid for each class, or one for two classes)."""
    finite = [scores for scores in probed if np.isfinite(scores).all()]
    if not finite:
        raise UnfitModel("its scores for test images are not finite numbers")
    return PROBABILITIES if all(_are_probabilities(scores) for scores in finite) else LOGITS


def _are_probabilities(scores: np.ndarray) -> bool:
    return bool(scores.min() >= -1e-3 and scores.max() <= 1 + 1e-3)


def read_scores(scores: np.ndarray, kind: str) -> tuple[int, float]:
    """The most probable class and its probability. A single score is that of class 1 against class 0."""
    if not np.isfinite(scores).all():
        raise NoAnswer("the model's scores for its image are not finite numbers")
    ready = kind == PROBABILITIES and _are_probabilities(scores)
    if len(scores) == 1:
        score = np.float64(scores[0])
        one = float(score if ready else np.exp(-np.logaddexp(0, -score)))
        label, probability = (1, one) if one > 0.5 else (0, 1 - one)
    else:
        label = int(scores.argmax())
        best = scores[label]
        probability = float(best if ready else 1 / np.exp(scores - best).sum())
    return label, min(max(probability, 0.0), 1.0)


def load(folder: Path) -> Classifier:
    """The classifier that model.json in this folder describes: {"file", "runtime"}, "input" where something is known
    of it and, once inspected, "scores"."""
    settings = read_settings(folder)
    return Classifier(load_model(folder), settings.get("scores"), Preprocessing.of(settings.get("input", {})))


def read_settings(folder: Path) -> dict[str, Any]:
    """What model.json in this folder says."""
    settings: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return settings


def load_model(folder: Path) -> Runtime:
    """The model that model.json in this folder names, in its runtime."""
    settings = read_settings(folder)
    try:
        return _RUNTIMES[settings["runtime"]](folder / settings["file"])
    except (UnfitModel, ImportError):
        raise
    except Exception as error:  # the runtimes' own errors have no common base
        raise UnfitModel(f"{settings['runtime']} cannot load it: {error}") from error
