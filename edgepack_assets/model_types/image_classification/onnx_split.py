"""Moves the large weights of an .onnx file into a file beside it.

onnxruntime maps a file with external data into memory. Weights inside the .onnx file it reads: the whole file, and then
each tensor once more. Only where weights lie changes; all else in the file is copied byte by byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.model_types.image_classification.onnx_file import OnnxFile, Weights
from edgepack_assets.model_types.model_folder.protobuf import copy_part, varint, with_length

SMALLEST = 1 << 20
"""Bytes from which on weights are moved."""
_ALIGNMENT = 4096
"""Of each tensor, as onnx aligns them: the size of a page, so that it can be mapped."""
_INITIALIZER, _GRAPH = b"\x2a", b"\x3a"
_NAME, _LOCATION_IS_EXTERNAL = b"\x42", b"\x70\x01"
_FREE_INITIALIZERS = 4
"""The IR version from which on an initializer need not be an input of the graph."""


def split_onnx(source: Path, parsed: OnnxFile, target: Path, data: Path) -> None:
    """Write `source`, in which `parsed` was read, to `target` with its large weights in `data`, a file in the same
    folder. Raises EdgepackError if it cannot be written."""
    large = (w for w in parsed.weights if w.size >= SMALLEST)
    if parsed.ir_version < _FREE_INITIALIZERS:
        large = (w for w in large if not w.name)
    moved = sorted(large, key=lambda weights: weights.start)
    start, body, stop = parsed.graph
    with (
        disk_errors(target),
        source.open("rb") as content,
        target.open("wb") as model,
        data.open("wb") as beside,
    ):
        fields = []
        for weights in moved:
            offset = beside.tell() + -beside.tell() % _ALIGNMENT
            beside.write(bytes(offset - beside.tell()))
            copy_part(content, weights.data, weights.raw_stop, beside)
            fields.append(_external(content, weights, data.name, offset))
        saved = sum(weights.stop - weights.start for weights in moved) - sum(map(len, fields))
        copy_part(content, 0, start, model)
        model.write(_GRAPH + varint(stop - body - saved))
        position = body
        for weights, field in zip(moved, fields, strict=True):
            copy_part(content, position, weights.start, model)
            model.write(field)
            position = weights.stop
        copy_part(content, position, source.stat().st_size, model)


def _external(content: IO[bytes], weights: Weights, name: str, offset: int) -> bytes:
    """The initializer with its data elsewhere, as a field of the graph. A Constant becomes an initializer: what uses
    its output finds it by the same name."""
    entries = {"location": name, "offset": str(offset), "length": str(weights.size)}
    tensor = _read(content, weights.body, weights.raw_start) + _read(content, weights.raw_stop, weights.body_stop)
    if weights.name:
        tensor += with_length(_NAME, weights.name)  # of several, the last counts
    for key, value in entries.items():
        tensor += with_length(b"\x6a", with_length(b"\x0a", key.encode()) + with_length(b"\x12", value.encode()))
    return with_length(_INITIALIZER, tensor + _LOCATION_IS_EXTERNAL)


def _read(content: IO[bytes], start: int, stop: int) -> bytes:
    content.seek(start)
    return content.read(stop - start)
