"""Reads from a SavedModel's saved_model.pb how it is called, before TensorFlow is installed for it.

The numbers are those of TensorFlow's saved_model.proto, meta_graph.proto and tensor_shape.proto."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack_assets.errors import ModelError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.model_types.model_folder.protobuf import Field, ProtobufReader

FILE = "saved_model.pb"
_META_GRAPH, _META_INFO, _TAGS, _SIGNATURE = 2, 1, 4, 5
_KEY, _VALUE = 1, 2
_INPUTS, _OUTPUTS, _DTYPE, _SHAPE, _DIMENSION, _SIZE, _UNKNOWN_RANK = 1, 2, 2, 3, 2, 1, 3
_SERVE = "serve"
_TYPES: Mapping[int, str] = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 9: "int64", 10: "bool",
    14: "bfloat16", 19: "float16",
}  # fmt: skip
_OF_IMAGES = frozenset({"float32", "float16", "uint8", "int8"})
_LISTED = 10


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: its type, and its sizes, None where one is open; no sizes where not even their number is
    known."""

    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        return f"{self.dtype} {'of any shape' if self.shape is None else shape_text(self.shape)}"


def shape_text(shape: Sequence[int | None]) -> str:
    """As a person reads it."""
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"


@dataclass(frozen=True)
class Signature:
    """A way to call the model: what it takes and gives, by name."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


def read_signatures(folder: Path, name: str) -> dict[str, Signature]:
    """The signatures of a SavedModel; `name` is for errors. Raises ModelError if its file is not one."""
    file = folder / FILE
    with disk_errors(file, "read"), file.open("rb") as stream:
        if not file.stat().st_size:
            raise ModelError(f"{name}: its {FILE} is empty; register the whole folder that model.export wrote")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, f"{name}/{FILE}", "SavedModel").signatures()


def refuse_call(name: str, signatures: Mapping[str, Signature], wanted: str) -> None:
    """Raise ModelError if the signature `wanted` is not there, or takes no images."""
    if wanted not in signatures:
        raise ModelError(
            f"{name}: this SavedModel has no signature {wanted!r} (it has: {_listed(signatures)}), so nothing says how "
            "it is called; save it by model.export(folder), or with signatures=, or name one of its signatures under "
            "conversion.signature"
        )
    signature = signatures[wanted]
    for source, tensor in signature.inputs.items():
        if tensor.dtype not in _OF_IMAGES or (tensor.shape is not None and len(tensor.shape) != 4):
            raise ModelError(
                f"{name}: the input {source!r} of its signature {wanted!r} is {tensor}, not numbers for batch, height, "
                "width and channels: it takes no images, so it is no image classifier"
            )
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        if len(tensors) != 1:
            raise ModelError(
                f"{name}: its signature {wanted!r} has {len(tensors)} {kind}s ({_listed(tensors)}); an image "
                "classifier has one: save it with that"
            )


class _Reader(ProtobufReader):
    def signatures(self) -> dict[str, Signature]:
        graphs = [item for item in self.whole() if item.number == _META_GRAPH]
        if not graphs:
            raise self.refused("it holds no graph")
        served = [graph for graph in graphs if _SERVE in self._tags(graph)]
        found = {}
        for name, value in self._map((served or graphs)[0], _SIGNATURE):
            if not name.startswith("__"):  # TensorFlow keeps operations of its own there
                found[name] = Signature(
                    {key: self._tensor(each) for key, each in self._map(value, _INPUTS)},
                    {key: self._tensor(each) for key, each in self._map(value, _OUTPUTS)},
                )
        return found

    def _tags(self, graph: Field) -> set[str]:
        return {self.text(tag) for info in self.below(graph, _META_INFO) for tag in self.below(info, _TAGS)}

    def _map(self, item: Field, number: int) -> list[tuple[str, Field]]:
        entries = [{each.number: each for each in self.message(entry)} for entry in self.below(item, number)]
        return [(self.text(entry.get(_KEY)), entry[_VALUE]) for entry in entries if _VALUE in entry]

    def _tensor(self, item: Field) -> TensorInfo:
        fields: dict[int, Any] = {each.number: each for each in self.message(item)}
        dtype = fields[_DTYPE].value if _DTYPE in fields else 0
        shape: tuple[int | None, ...] | None = None
        if _SHAPE in fields and not any(each.value for each in self.below(fields[_SHAPE], _UNKNOWN_RANK)):
            shape = tuple(map(self._size, self.below(fields[_SHAPE], _DIMENSION)))
        return TensorInfo(_TYPES.get(dtype, f"type {dtype}"), shape)

    def _size(self, dimension: Field) -> int | None:
        sizes = [each.value for each in self.below(dimension, _SIZE)]
        return sizes[-1] if sizes and 0 < sizes[-1] < 1 << 63 else None  # -1: open


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)[:_LISTED]) or "none"
