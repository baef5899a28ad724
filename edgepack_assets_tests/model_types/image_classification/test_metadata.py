"""What a model's file says of its input, and that no file, however damaged, makes reading it fail."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .helpers import load_child_tasks
from .onnx_models import build

child_tasks = load_child_tasks()

NOTHING = {"source": None, "input": {}, "labels": None, "notes": []}


def _table(builder: Any, fields: Mapping[int, tuple[str, Any]]) -> int:
    builder.StartObject(max(fields, default=0) + 1)
    for slot, (kind, value) in fields.items():
        if kind == "table":
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        elif kind == "uint":
            builder.PrependUint32Slot(slot, value, 0)
        else:
            builder.PrependUint8Slot(slot, value, 0)
    return int(builder.EndObject())


def _vector(builder: Any, tables: Sequence[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())


def _floats(builder: Any, values: Sequence[float]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return int(builder.EndVector())


def metadata(mean: Sequence[float], std: Sequence[float], labels: str | None = None) -> bytes:
    """TFLite metadata (metadata_schema.fbs) with a process unit that is none, and a normalization."""
    b = flatbuffers.Builder(256)
    options = _table(b, {0: ("table", _floats(b, mean)), 1: ("table", _floats(b, std))})
    threshold = _table(b, {})
    units = [_table(b, {0: ("byte", 3), 1: ("table", threshold)}), _table(b, {0: ("byte", 1), 1: ("table", options)})]
    image = _table(b, {0: ("table", b.CreateString("image")), 4: ("table", _vector(b, units))})
    output = {0: ("table", b.CreateString("scores"))}
    if labels is not None:
        file = _table(b, {0: ("table", b.CreateString(labels)), 2: ("byte", 2)})
        output[6] = ("table", _vector(b, [file]))
    scores = _table(b, output)
    graph = _table(b, {2: ("table", _vector(b, [image])), 3: ("table", _vector(b, [scores]))})
    b.Finish(_table(b, {3: ("table", _vector(b, [graph]))}), b"M001")
    return bytes(b.Output())


def tflite(content: bytes | None, name: str = "TFLITE_METADATA", buffer: int = 1) -> bytes:
    """A .tflite file (schema.fbs) that holds nothing but metadata."""
    b = flatbuffers.Builder(256)
    buffers = [_table(b, {})]
    if content is not None:
        buffers.append(_table(b, {0: ("table", b.CreateByteVector(content))}))
    other = _table(b, {0: ("table", b.CreateString("min_runtime_version")), 1: ("uint", 0)})
    entry = _table(b, {0: ("table", b.CreateString(name)), 1: ("uint", buffer)})
    model = {4: ("table", _vector(b, buffers)), 6: ("table", _vector(b, [other, entry]))}
    b.Finish(_table(b, model), b"TFL3")
    return bytes(b.Output())


def read(folder: Path, content: bytes) -> dict[str, Any]:
    """What is read of a file, which can always be told in JSON."""
    file = folder / "model.tflite"
    file.write_bytes(content)
    found = child_tasks.read_metadata(file, dict)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found.keys() == NOTHING.keys()
    return dict(found)


@pytest.mark.parametrize(
    ("mean", "std", "wanted"),
    [
        ([127.5], [127.5], {"mean": [0.5], "std": [0.5]}),
        ([0.0], [255.0], {"mean": [0.0], "std": [1.0]}),
        (
            [123.675, 116.28, 103.53],
            [58.395, 57.12, 57.375],
            {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        ),
    ],
)
def test_tflite_normalization_is_of_pixels_and_ours_of_units(
    tmp_path: Path, mean: list[float], std: list[float], wanted: Any
) -> None:
    found = read(tmp_path, tflite(metadata(mean, std)))
    assert found == {**NOTHING, "source": "TFLite metadata", "input": wanted}


def test_labels_in_the_zip_behind_a_tflite_model_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(tflite(metadata([0.0], [1.0], labels="labels.txt")))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", "cat\ndog\nbird\n")
    assert child_tasks.read_metadata(file, dict)["labels"] == 3


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([], [1.0]), ([0.0], []), ([0.0], [0.0]), ([0.0], [-1.0]), ([0.0, 0.0], [1.0, 1.0]), ([float("nan")], [1.0]),
        ([0.0], [float("inf")]), ([0.0], [1.0, float("nan"), 1.0]), ([0.0] * 1000, [1.0] * 1000), ([0.0], [1e-40]),
    ],
)  # fmt: skip
def test_a_normalization_that_makes_no_sense_is_noted(tmp_path: Path, mean: list[float], std: list[float]) -> None:
    found = read(tmp_path, tflite(metadata(mean, std)))
    assert found["input"] == {}
    assert "is not understood" in found["notes"][0] and len(found["notes"][0]) < 200


@pytest.mark.parametrize(
    "content",
    [b"x", b"TFL3" * 3, b"garbage " * 9, tflite(None, buffer=0), tflite(b"", buffer=1), tflite(None, "other", 0)],
)
def test_a_tflite_file_without_metadata(tmp_path: Path, content: bytes) -> None:
    assert {**read(tmp_path, content), "notes": []} == NOTHING


@pytest.mark.parametrize("content", [b"", tflite(None, buffer=7), tflite(b"short"), tflite(b"\xff" * 64)])
def test_metadata_that_cannot_be_read_is_noted(tmp_path: Path, content: bytes) -> None:
    assert "cannot be read" in read(tmp_path, content)["notes"][0]


_SOUND = tflite(metadata([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], labels="labels.txt"))


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(8, len(_SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(8, len(_SOUND)),
)
def test_damage_of_any_kind_ends_in_a_note(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(_SOUND)
    for position, value in damage:
        content[position] = value
    found = read(tmp_path_factory.getbasetemp(), bytes(content[:length] if length % 2 else content))
    for key in found["input"]:
        assert len(found["input"][key]) in (1, 3)


@pytest.mark.parametrize(
    ("properties", "wanted", "notes"),
    [
        ({}, {}, []),
        ({"author": "somebody", "description": "x"}, {}, []),
        (
            {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"},
            {"range": [0, 255], "channel_order": "bgr"}, [],
        ),
        (
            {"image.bitmappixelformat": "RGB8", "IMAGE.NOMINALPIXELRANGE": "normalized_1_1",
             "Image.ColorSpaceGamma": "SRGB"},
            {"range": [-1, 1], "channel_order": "rgb"}, [],
        ),
        ({"Image.NominalPixelRange": "Normalized_0_1"}, {"range": [0, 1]}, []),
        ({"Image.NominalPixelRange": "NominalRange_16_235"}, {"range": [16, 235]}, []),
        ({"Image.BitmapPixelFormat": "Yuv"}, {}, ["BitmapPixelFormat 'yuv' is not carried out"]),
        ({"Image.ColorSpaceGamma": "Linear"}, {}, ["ColorSpaceGamma 'linear' is not carried out"]),
        (
            {"author": "Ultralytics", "task": "classify", "names": "{0: 'cat'}", "imgsz": "[224, 224]"},
            {"range": [0, 1], "channel_order": "rgb", "resize": "crop", "interpolation": "bilinear"}, [],
        ),
        (
            {"author": "Ultralytics", "task": "classify", "imgsz": "[128, 256]"},
            {"range": [0, 1], "channel_order": "rgb", "resize": "squeeze", "interpolation": "bilinear"}, [],
        ),
        ({"author": "Ultralytics", "task": "detect"}, {}, []),
    ],
)  # fmt: skip
def test_onnx_metadata(tmp_path: Path, properties: dict[str, str], wanted: Any, notes: list[str]) -> None:
    import onnxruntime

    model = onnx.load(build(tmp_path / "m.onnx"))
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    found = child_tasks.read_metadata(tmp_path / "m.onnx", lambda: session.get_modelmeta().custom_metadata_map)
    assert found["input"] == wanted
    assert len(found["notes"]) == len(notes)
    for note, text in zip(found["notes"], notes, strict=True):
        assert text in note
    assert (found["source"] is None) == (not wanted and not notes)


@pytest.mark.parametrize(
    ("configured", "read", "dtype", "channels", "wanted"),
    [
        ({}, {"range": [0, 255]}, "float32", 3, {"range": [0, 255]}),
        ({}, {"range": [0, 255], "channel_order": "bgr"}, "uint8", 3, {"channel_order": "bgr"}),
        ({"range": [0, 1]}, {"mean": [0.5], "std": [0.5]}, "float32", 3, {"range": [0, 1]}),
        ({"mean": [0], "std": [1]}, {"range": [0, 255]}, "float32", 3, {"mean": [0], "std": [1]}),
        ({}, {"mean": [0.1, 0.2, 0.3], "std": [0.5]}, "float32", 1, {}),
        ({}, {"mean": [0.1], "std": [0.1, 0.2, 0.3]}, "float32", 1, {}),
        ({}, {"mean": [0.1], "std": [0.1, 0.2, 0.3]}, "float16", 3, {"mean": [0.1], "std": [0.1, 0.2, 0.3]}),
        (
            {"interpolation": "bicubic"}, {"resize": "crop", "interpolation": "bilinear"}, "float32", 3,
            {"interpolation": "bicubic", "resize": "crop"},
        ),
        ({"resize": "squeeze"}, {"resize": "letterbox", "fill": [1]}, "float32", 3, {"resize": "squeeze"}),
    ],
)  # fmt: skip
def test_metadata_fills_what_is_not_configured(
    configured: Any, read: Any, dtype: str, channels: int, wanted: Any
) -> None:
    assert child_tasks._merged(configured, read, dtype, channels) == wanted


def test_properties_that_are_not_text_are_noted(tmp_path: Path) -> None:
    """onnxruntime loads and runs such a model."""
    import onnxruntime

    model = onnx.load(build(tmp_path / "m.onnx"))
    onnx.helper.set_model_props(model, {"Image.NominalPixelRange": "Normalized_0_1"})
    content = model.SerializeToString().replace(b"Normalized_0_1", b"Normalized\xff\xfe_1")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = child_tasks.read_metadata(tmp_path / "m.onnx", lambda: session.get_modelmeta().custom_metadata_map)
    assert found["input"] == {} and "cannot be read" in found["notes"][0]
