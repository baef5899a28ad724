"""What runs in the component's environment while packaging, in the sandbox: finding out what the model is, by loading
it and by reading what its file says of its input; and trying other inputs on a few images.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import importlib
import json
import mmap
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

_PIXELS = ("range", "mean", "std")
_RESIZE = ("resize", "shorter_side", "crop_fraction", "fill")
_LONGEST_NOTE = 200
_UNIT = 1e-3
_SUM = 1e-2
"""How far scores may be from a sum of 1: float16 and quantized ones are rounded."""


def inspect_model(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the packaged model takes and gives, in JSON. Raises ValueError where it classifies no images.

    The working directory is the component's folder, whose inference.py does the work: what is told here is
    what the edge will do. `component` goes into model.json, so that the edge need not find it out again.
    `arguments`: `ir_version` and `opset` of an .onnx file; `scores`, and `scores_are` how that is known; `classes` as
    configured; `gpu` as configured, where the model is for the GPU runtime."""
    inference, loader = importlib.import_module("inference"), _loader()
    folder = Path.cwd()
    settings = inference.read_settings(folder)
    try:
        model = loader.load_model(folder)
    except inference.UnfitModel as error:
        if refused := importlib.import_module("child_versions").beyond_onnxruntime(settings, arguments):
            raise inference.UnfitModel(refused) from error
        raise
    source, target = model.input, model.output
    channels = inference.ImageInput(source, model.default_layout).channels
    # A file that we converted holds none of its own; what the layers of the original tell is known instead.
    metadata = settings.get("metadata") or read_metadata(folder / settings["file"], model.properties)
    given = _merged(settings.get("input", {}), metadata["input"], source.dtype, channels)
    classifier = inference.Classifier(model, arguments.get("scores"), inference.Preprocessing.of(given))
    entered = classifier.input
    probed = classifier.probe()
    classes = max(2, len(probed[0]))
    if arguments.get("classes", classes) != classes:
        raise inference.UnfitModel(
            f"it tells {classes} classes apart, and output.classes in edgepack.yaml says {arguments['classes']}: "
            "correct that, or register the model of these classes"
        )
    sums_to_one = all(abs(float(scores.astype(float).sum()) - 1) < _SUM for scores in probed)
    scores_are = arguments.get("scores_are") or ("they sum to 1" if sums_to_one else "judged by test images")
    return {
        "runtime": settings["runtime"],
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "input": {
            "name": source.name,
            "shape": list(source.shape),
            "layout": entered.layout,
            "type": source.dtype,
            "height": entered.height,
            "width": entered.width,
            "channels": entered.channels,
            "quantization": _quantization(source.quantization),
            "black": _for_channels(entered.levels[:, 0].tolist()),
            "white": _for_channels(entered.levels[:, 255].tolist()),
            "preprocessing": given,
            "metadata": metadata,
        },
        "output": {
            "name": target.name,
            "shape": list(target.shape),
            "type": target.dtype,
            "classes": classes,
            **({"classes_are_configured": True} if "classes" in arguments else {}),
            "quantization": _quantization(target.quantization),
            "scores": classifier.scores,
            "scores_are": scores_are,
            "sums_to_one": sums_to_one,
            "within_one": inference.kind_of_scores(probed) == inference.PROBABILITIES,
            "never_negative": all(bool((scores >= 0).all()) for scores in probed),
            "unit_length": _have_unit_length(probed),
        },
        "component": {"scores": classifier.scores, "input": given},
        **({"payload": settings["payload"]} if "payload" in settings else {}),
        **_for_gpu_runtime(classifier, arguments.get("gpu")),
    }


def try_inputs(arguments: dict[str, Any]) -> dict[str, Any]:
    """The class that the model in the working directory gives to each of the records, for each of the `inputs` (as in
    model.json); None where there is none. `records` is a file of JSON lines, gzipped."""
    inference, decoding = importlib.import_module("inference"), importlib.import_module("decoding")
    classifier = _loader().load(Path.cwd())
    model = classifier.model
    inputs = [
        inference.ImageInput(model.input, model.default_layout, inference.Preprocessing.of(given))
        for given in arguments["inputs"]
    ]
    classes_of_inputs: list[list[int | None]] = [[] for _ in inputs]
    with gzip.open(arguments["records"], "rb") as lines:
        for line in lines:
            image = None
            with contextlib.suppress(decoding.NoAnswer):
                image = _image_of(json.loads(line, object_hook=_with_bytes).get("vision_payload"))
            for classes, classifier.input in zip(classes_of_inputs, inputs, strict=True):
                classes.append(None)
                if image is not None:
                    with contextlib.suppress(decoding.NoAnswer):
                        classes[-1] = classifier.classify(image)[0]
    return {"classes": classes_of_inputs}


def _for_gpu_runtime(classifier: Any, configured: Mapping[str, Any] | None) -> dict[str, Any]:
    if configured is None:
        return {}
    return {"gpu": importlib.import_module("child_batches").inspect_batches(classifier, configured["max_batch_size"])}


def _loader() -> Any:
    """The component's module that loads the model."""
    return importlib.import_module("onnx_options" if Path("onnx_options.py").is_file() else "inference")


def _image_of(payload: Any) -> Any:
    """The image of a record, the first one of an image set."""
    if not isinstance(payload, dict):
        return importlib.import_module("decoding").decode(payload)
    return next(importlib.import_module("image_set_decoding").images_of(payload))


def _with_bytes(value: dict[str, Any]) -> Any:
    """Bytes are {"$bytes": base64} in a payload."""
    return base64.b64decode(value["$bytes"]) if value.keys() == {"$bytes"} else value


def _have_unit_length(probed: list[Any]) -> bool:
    """Whether all have the length 1 (or 0: what cannot be scaled), and not only as one of their numbers is 1."""
    lengths = [float((scores.astype(float) ** 2).sum()) for scores in probed]
    peaks = [float(abs(scores).max()) for scores in probed]
    return all(abs(length - 1) < _UNIT or length == 0 for length in lengths) and any(
        0 < peak < 1 - _UNIT for peak in peaks
    )


def _quantization(scale_and_zero: tuple[float, int] | None) -> dict[str, float] | None:
    return None if scale_and_zero is None else {"scale": scale_and_zero[0], "zero_point": scale_and_zero[1]}


def _for_channels(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _merged(configured: Mapping[str, Any], read: Mapping[str, Any], dtype: str, channels: int) -> dict[str, Any]:
    """What is configured, and what the model's file says of the rest."""
    merged = dict(configured)
    for keys in (_PIXELS, ("channel_order",), _RESIZE, ("interpolation",)):
        if any(key in configured for key in keys):
            continue
        for_others = any(len(read.get(key, [0])) not in (1, channels) for key in ("mean", "std"))
        if keys is _PIXELS and (not dtype.startswith("float") or for_others):
            continue  # what a quantized model stores is judged by its quantization, which the runtime itself uses
        merged |= {key: read[key] for key in keys if key in read}
    return merged


def read_metadata(file: Path, properties: Callable[[], Mapping[str, str]]) -> dict[str, Any]:
    """What the model's file says beside the model: `source`, the kind of metadata, or None; `input`, as in model.json;
    `labels`, how many classes it names, or None; `notes` on what is not understood or not carried out. `properties`:
    what the runtime gives of an .onnx file."""
    try:
        return read_tflite_metadata(file) if file.suffix == ".tflite" else read_onnx_metadata(properties())
    except Exception as error:  # noqa: BLE001 - whatever the file holds: the model itself was loaded
        return _metadata(None, notes=[f"its metadata cannot be read ({type(error).__name__}: {error})"[:_LONGEST_NOTE]])


def _metadata(
    source: str | None,
    given: Mapping[str, Any] | None = None,
    labels: int | None = None,
    notes: list[str] | None = None,
) -> dict[str, Any]:
    return {"source": source, "input": dict(given or {}), "labels": labels, "notes": notes or []}


# ONNX: https://onnx.ai/onnx/repo-docs/MetadataProps.html; keys and values in any case

_ONNX_RANGES = {
    "nominalrange_0_255": [0, 255],
    "normalized_0_1": [0, 1],
    "normalized_1_1": [-1, 1],
    "nominalrange_16_235": [16, 235],
}
_ONNX_ORDERS = {"rgb8": "rgb", "bgr8": "bgr", "gray8": "rgb"}


def read_onnx_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """ONNX's own keys, else those that Ultralytics writes for a classifier."""
    known = {key.lower(): value.strip().lower() for key, value in metadata.items()}
    image = {key.removeprefix("image."): value for key, value in known.items() if key.startswith("image.")}
    if not image and "ultralytics" in known.get("author", "") and known.get("task") == "classify":
        # its classify_transforms: Resize to the shorter side, or, where the size is not square, to both; CenterCrop
        resize = "crop" if len(set(re.findall(r"\d+", known.get("imgsz", "")))) <= 1 else "squeeze"
        given = {"range": [0, 1], "channel_order": "rgb", "resize": resize, "interpolation": "bilinear"}
        return _metadata("Ultralytics metadata", given)
    given, notes = {}, []
    for key, into, values in (
        ("NominalPixelRange", "range", _ONNX_RANGES),
        ("BitmapPixelFormat", "channel_order", _ONNX_ORDERS),
    ):
        value = image.get(key.lower())
        if value is not None and value in values:
            given[into] = values[value]
        elif value is not None:
            notes.append(f"its Image.{key} {value!r:.60} is not carried out")
    if image.get("colorspacegamma", "srgb") != "srgb":
        notes.append(f"its Image.ColorSpaceGamma {image['colorspacegamma']!r:.60} is not carried out: pixels stay sRGB")
    return _metadata("ONNX metadata" if image else None, given, notes=notes)


# TFLite: schema.fbs and metadata_schema.fbs, of which these are the numbers of the fields that are read

_MODEL_BUFFERS, _MODEL_METADATA = 4, 6
_ENTRY_NAME, _ENTRY_BUFFER = 0, 1
_SUBGRAPHS, _INPUTS, _OUTPUTS = 3, 2, 3
_PROCESS_UNITS, _ASSOCIATED_FILES = 4, 6
_OPTIONS_TYPE, _OPTIONS, _NORMALIZATION, _MEAN, _STD = 0, 1, 1, 0, 1
_FILE_NAME, _FILE_TYPE, _AXIS_LABELS = 0, 2, 2
_MOST = 64
"""Tables or numbers of one vector that are read."""
_LARGEST = 1e6
_LARGEST_LABEL_FILE = 16 << 20


def read_tflite_metadata(file: Path) -> dict[str, Any]:
    """The normalization and the number of labels in a .tflite file's metadata."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        metadata = _tflite_metadata(data)
    if metadata is None:
        return _metadata(None)
    subgraph = next(_Table.root(metadata).tables(_SUBGRAPHS), None)
    source = None if subgraph is None else next(subgraph.tables(_INPUTS), None)
    target = None if subgraph is None else next(subgraph.tables(_OUTPUTS), None)
    labels = None if target is None else _count_labels(file, target)
    unit = None if source is None else next(_normalizations(source), None)
    if unit is None:
        return _metadata("TFLite metadata", labels=labels)
    mean, std = unit.floats(_MEAN), unit.floats(_STD)
    sound = len(mean) in (1, 3) and len(std) in (1, 3) and all(abs(value) < _LARGEST for value in (*mean, *std))
    if not sound or not all(value > 1 / _LARGEST for value in std):
        note = f"its normalization, mean {mean[:4]} and std {std[:4]}, is not understood"
        return _metadata("TFLite metadata", labels=labels, notes=[note])
    # Its formula is (pixel - mean) / std; seven digits are what its floats hold.
    given = {"mean": mean, "std": std}
    given = {key: [float(f"{value / 255:.7g}") for value in values] for key, values in given.items()}
    return _metadata("TFLite metadata", given, labels)


def _normalizations(tensor: _Table) -> Iterator[_Table]:
    for unit in tensor.tables(_PROCESS_UNITS):
        if unit.number(_OPTIONS_TYPE, "B") == _NORMALIZATION:
            yield from unit.table(_OPTIONS)


def _tflite_metadata(data: mmap.mmap) -> bytes | None:
    if data[4:8] != b"TFL3":
        return None
    model = _Table.root(data)
    for entry in model.tables(_MODEL_METADATA):
        if entry.text(_ENTRY_NAME) == b"TFLITE_METADATA":
            return model.item(_MODEL_BUFFERS, entry.number(_ENTRY_BUFFER, "I")).text(0) or None
    return None


def _count_labels(file: Path, output: _Table) -> int | None:
    """How many lines the output's label file has, which lies in a zip behind the model."""
    import zipfile

    for associated in output.tables(_ASSOCIATED_FILES):
        if associated.number(_FILE_TYPE, "b") == _AXIS_LABELS and zipfile.is_zipfile(file):
            name = associated.text(_FILE_NAME).decode("utf-8")
            with zipfile.ZipFile(file) as archive:
                if name in archive.namelist() and archive.getinfo(name).file_size <= _LARGEST_LABEL_FILE:
                    with archive.open(name) as stream:
                        return len(stream.read(_LARGEST_LABEL_FILE).decode("utf-8").splitlines())
    return None


class _Table:
    """A table of a flatbuffer. Whatever lies outside the data raises struct.error; nothing is followed by itself."""

    def __init__(self, data: Any, position: int) -> None:
        self._data, self._at = data, position
        self._fields = position - self._read("i", position)
        self._size = self._read("H", self._fields)

    @classmethod
    def root(cls, data: Any) -> _Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _read(self, kind: str, position: int) -> Any:
        if position < 0:  # struct would count from the end
            raise ValueError("a flatbuffer's offset lies before its beginning")
        return struct.unpack_from(f"<{kind}", self._data, position)[0]

    def _field(self, number: int) -> int | None:
        slot = 4 + 2 * number
        offset = self._read("H", self._fields + slot) if slot + 2 <= self._size else 0
        return self._at + offset if offset else None

    def _vector(self, number: int) -> tuple[int, int]:
        """(first position, length)"""
        position = self._field(number)
        if position is None:
            return 0, 0
        start = position + self._read("I", position)
        return start + 4, self._read("I", start)

    def number(self, number: int, kind: str) -> int:
        position = self._field(number)
        return 0 if position is None else self._read(kind, position)

    def text(self, number: int) -> bytes:
        start, length = self._vector(number)
        if start + length > len(self._data):
            raise ValueError("a flatbuffer's vector is longer than the file")
        return bytes(self._data[start : start + length])

    def floats(self, number: int) -> list[float]:
        start, length = self._vector(number)
        return [self._read("f", start + 4 * i) for i in range(min(length, _MOST))]

    def table(self, number: int) -> Iterator[_Table]:
        position = self._field(number)
        if position is not None:
            yield _Table(self._data, position + self._read("I", position))

    def item(self, number: int, index: int) -> _Table:
        start, length = self._vector(number)
        if index >= length:
            raise ValueError(f"a flatbuffer's vector has no item {index}")
        position = start + 4 * index
        return _Table(self._data, position + self._read("I", position))

    def tables(self, number: int) -> Iterator[_Table]:
        for index in range(min(self._vector(number)[1], _MOST)):
            yield self.item(number, index)
