"""Configurations as Keras 2 and 3 save them, and .keras files around them, without Keras."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SHAPE = (None, 32, 32, 3)
NAMED = "input"


def layer(
    kind: str, module: str | None = "keras.layers", registered: str | None = None, **config: Any
) -> dict[str, Any]:
    """A layer as Keras 3 saves it."""
    return {
        "module": module,
        "class_name": kind,
        "config": {"name": kind.lower(), **config},
        "registered_name": registered,
    }


def operation(kind: str, *constants: float) -> dict[str, Any]:
    """An operation on a tensor, of Keras 3; its inputs are filled in by `functional`."""
    found = layer(kind, "keras.src.ops.numpy", registered=kind)
    return {**found, "constants": list(constants)}


def operation_2(function: str, **constants: Any) -> dict[str, Any]:
    """An operation on a tensor, of Keras 2."""
    found = layer("TFOpLambda", "tf_keras.src.layers.core.tf_op_layer", registered="TFOpLambda", function=function)
    return {**found, "keywords": constants}


def sequential(*layers: dict[str, Any], shape: Sequence[int | None] = SHAPE) -> dict[str, Any]:
    """A Sequential model."""
    first = layer("InputLayer", batch_shape=list(shape), dtype="float32")
    return layer("Sequential", "keras", layers=[first, *layers])


def functional(*layers: dict[str, Any], shape: Sequence[int | None] = SHAPE) -> dict[str, Any]:
    """A model of layers one after the other, wired as Keras 3 does."""
    return _wired(layers, "batch_shape", shape, _node_3)


def functional_2(*layers: dict[str, Any], shape: Sequence[int | None] = SHAPE) -> dict[str, Any]:
    """A model of layers one after the other, wired as Keras 2 does."""
    return _wired(layers, "batch_input_shape", shape, _node_2)


def _wired(layers: Sequence[dict[str, Any]], key: str, shape: Sequence[int | None], node: Any) -> dict[str, Any]:
    found = [{**layer("InputLayer", **{key: list(shape)}), "name": NAMED, "inbound_nodes": []}]
    for number, each in enumerate(layers):
        more = {name: value for name, value in each.items() if name not in ("constants", "keywords")}
        nodes = node(found[-1]["name"], each.get("constants", []), each.get("keywords", {}))
        found.append({**more, "name": f"layer_{number}", "inbound_nodes": nodes})
    return layer("Functional", "keras.src.models.functional", layers=found)


def _node_3(before: str, constants: list[float], keywords: dict[str, Any]) -> list[Any]:
    tensor = {"class_name": "__keras_tensor__",
              "config": {"shape": list(SHAPE), "dtype": "float32", "keras_history": [before, 0, 0]}}  # fmt: skip
    return [{"args": [tensor, *constants], "kwargs": keywords}]


def _node_2(before: str, constants: list[float], keywords: dict[str, Any]) -> list[Any]:
    return [[before, 0, 0, {**keywords, "name": None}]]


def write_keras(path: Path, config: Any, version: str = "3.15.1", replaced: Mapping[str, bytes] | None = None) -> Path:
    """A .keras file. `replaced` are others in place of its parts: metadata, config, weights; an empty one leaves it
    out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {
        "metadata": json.dumps({"keras_version": version, "date_saved": "2026-11-26@17:34:02"}).encode(),
        "config": json.dumps(config).encode(),
        "weights": b"weights",
        **(replaced or {}),
    }
    names = {"metadata": "metadata.json", "config": "config.json", "weights": "model.weights.h5"}
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            if content:
                archive.writestr(names[part], content)
    return path


Tensors = Mapping[str, tuple[int, tuple[int, ...] | None]]
"""Name -> number of the type, sizes (-1: open; None: not known)."""


def write_saved_model(
    folder: Path, signatures: Mapping[str, tuple[Tensors, Tensors]], tags: tuple[str, ...] = ("serve",)
) -> Path:
    """A SavedModel of which only the file that says how it is called is real."""

    def tensor(dtype: int, shape: tuple[int, ...] | None) -> bytes:
        sizes = b"".join(_field(2, b"\x08" + _varint(size % 2**64)) for size in shape or ())
        return b"\x10" + _varint(dtype) + _field(3, b"\x18\x01" if shape is None else sizes)

    def entries(number: int, values: Mapping[str, bytes]) -> bytes:
        return b"".join(_field(number, _field(1, key.encode()) + _field(2, value)) for key, value in values.items())

    called = {
        name: b"".join(entries(number, {key: tensor(*each) for key, each in tensors.items()})
                       for number, tensors in ((1, inputs), (2, outputs)))
        for name, (inputs, outputs) in {**signatures, "__saved_model_init_op": ({}, {})}.items()
    }  # fmt: skip
    graph = _field(1, b"".join(_field(4, tag.encode()) for tag in tags)) + entries(5, called)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01" + _field(2, graph))
    return folder


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
