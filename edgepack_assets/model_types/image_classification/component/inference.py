"""From a record's text to a class: decoding the image, giving it to the model as the model wants it, reading
its scores. What the model wants (size, layout, type, quantization) is read from the model file itself.

Runs on the edge, with numpy, Pillow and the one runtime that the model needs: nothing else may be imported.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_IMAGE_BYTES = 64 * 2**20
"""The largest PNG or JPEG file that is decoded."""
MAX_PAYLOAD_CHARACTERS = MAX_IMAGE_BYTES // 3 * 4 + 2**20
"""The longest vision_payload that is parsed: such an image in base64, and a megabyte of what goes with it."""
MAX_PIXELS = 80_000_000
"""The largest image that is unpacked: a file of a few kilobytes can claim to be one of many gigabytes."""

PROBABILITIES, LOGITS = "probabilities", "logits"

_DATA_URI = re.compile(r"data:image/(?:png|jpe?g)(?:;[^;,]{0,100}){0,5};base64\Z", re.IGNORECASE)
_ONNX_TYPES = {"float": "float32", "double": "float64"}
_FLOATS = ("float16", "float32", "float64")


class NoAnswer(ValueError):
    """A record that cannot be classified; the text says why."""


class UnfitModel(ValueError):
    """The model cannot classify images as this component does; the text says what to change."""

    is_for_user = True


def decode(payload: object) -> Image.Image:
    """The RGB image in a vision_payload: JSON text whose `image` is a data URI of a PNG or JPEG."""
    if payload is None:
        raise NoAnswer("it has no vision_payload")
    if not isinstance(payload, str):
        raise NoAnswer(f"its vision_payload is not text but {type(payload).__name__}")
    if len(payload) > MAX_PAYLOAD_CHARACTERS:
        raise NoAnswer(f"its vision_payload has {len(payload)} characters; at most {MAX_PAYLOAD_CHARACTERS} are read")
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise NoAnswer(f"its vision_payload is not JSON ({error})") from error
    if not isinstance(document, dict) or "image" not in document:
        raise NoAnswer("its vision_payload is JSON without an image")
    return unpack(image_bytes(document["image"]))


def image_bytes(uri: object) -> bytes:
    """The bytes in a data URI of a PNG or JPEG. Any other kind of URL is refused, never opened."""
    if not isinstance(uri, str):
        raise NoAnswer(f"its image is not text but {type(uri).__name__}")
    header, comma, encoded = uri.partition(",")
    if not comma or not _DATA_URI.match(header):
        # Only the beginning, and no more than a scheme of a foreign URL: it may hold a password.
        seen = header[:40] if header[:5].lower() == "data:" else header.partition(":")[0][:20]
        raise NoAnswer(f"its image is no data URI of a PNG or JPEG in base64, but begins with {seen!r}")
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoAnswer(f"its image is not valid base64 ({error})") from error


def unpack(data: bytes) -> Image.Image:
    """The RGB image in the bytes of a PNG or JPEG file."""
    if len(data) > MAX_IMAGE_BYTES:
        raise NoAnswer(f"its image has {len(data)} bytes; at most {MAX_IMAGE_BYTES} are read")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise NoAnswer(f"its image is {image.width}x{image.height}; at most {MAX_PIXELS} pixels are read")
            image.load()
            return to_rgb(image)
    except NoAnswer:
        raise
    except UnidentifiedImageError as error:
        raise NoAnswer("its image is neither PNG nor JPEG") from error
    except Exception as error:  # what Pillow raises on a broken file has no common base
        raise NoAnswer(f"its image cannot be decoded ({type(error).__name__}: {error})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PNG or JPEG mode as RGB. Transparency is dropped, as training libraries do when they load RGB."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # 16 bit grey: Pillow would clip at 255, so that nearly all of it turns white.
        grey = np.clip(np.asarray(image), 0, 65535) // 256
        image = Image.fromarray(grey.astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about the direct way
    return image.convert("RGB")


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


def _only(tensors: list[Any], kind: str) -> Any:
    if len(tensors) != 1:
        raise UnfitModel(f"it has {len(tensors)} {kind}s; an image classifier has one: export it with that one alone")
    return tensors[0]


_RUNTIMES: dict[str, type[LiteRt] | type[Onnx]] = {"litert": LiteRt, "onnxruntime": Onnx}


class ImageInput:
    """How an image enters the model. `levels` is what each of a pixel's 256 values is to the model; `tensor`
    is filled anew for each image."""

    def __init__(self, tensor: Tensor, default_layout: str) -> None:
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
        self.levels = pixel_levels(tensor)
        self.tensor = np.zeros([1, *(int(size or 1) for size in tensor.shape[1:])], self.levels.dtype)

    def fill(self, image: Image.Image) -> np.ndarray:
        """The tensor that shows this RGB image."""
        if self.channels == 1:
            image = image.convert("L")
        scaled = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        pixels = np.asarray(scaled).reshape(self.height, self.width, self.channels)
        if self.layout == "NCHW":
            pixels = pixels.transpose(2, 0, 1)
        np.take(self.levels, pixels, out=self.tensor[0], mode="clip")
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


def pixel_levels(tensor: Tensor) -> np.ndarray:
    """What the pixel values 0 to 255 are to a model with this input: 256 numbers of the model's own type."""
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

    def __init__(self, model: Runtime, scores: str | None = None) -> None:
        self.model = model
        self.input = ImageInput(model.input, model.default_layout)
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
    """The classifier that model.json in this folder describes: {"file", "runtime"} and, once inspected, "scores"."""
    settings = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    file = folder / settings["file"]
    try:
        model = _RUNTIMES[settings["runtime"]](file)
    except (UnfitModel, ImportError):
        raise
    except Exception as error:  # the runtimes' own errors have no common base
        raise UnfitModel(f"{settings['runtime']} cannot load it: {error}") from error
    return Classifier(model, settings.get("scores"))
