"""Writes the .onnx file that the GPU runtime gets: one file with all its weights, with the one input and the one output
that the package uses, of fixed sizes and of types that the server knows.

The server reads sizes from config.pbtxt, which cannot say that one is open, and takes no further files. Nothing of the
model is computed: the graph's own bytes are copied, and fields at its edges are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgepack_assets.errors import ModelError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.model_types.image_classification.onnx_file import Argument, ExternalTensor, OnnxFile
from edgepack_assets.model_types.model_folder.protobuf import copy_part, varint, with_length
from edgepack_assets.model_types.pipeline import GpuTensor

LARGEST = (1 << 31) - (1 << 20)
"""Bytes of a model and its weights that become one .onnx file, of which protobuf allows 2 GiB."""
_FLOAT, _FLOAT16 = 1, 10
_ELEMENTS: Mapping[str, int] = {"float32": _FLOAT, "uint8": 2, "int8": 3, "float16": _FLOAT16, "float64": 11}
_PLAIN = re.compile(r"[A-Za-z0-9_./:-]{1,200}")
_RESERVED = "timestamp"
_GRAPH, _NODE, _INITIALIZER, _INPUT, _OUTPUT = b"\x3a", b"\x0a", b"\x2a", b"\x5a", b"\x62"
_RAW = b"\x4a"
_Piece = bytes | tuple[int, int] | tuple[Path, int, int]
"""Bytes; a part of the source, from where to where; a part of another file: its offset and length."""


@dataclass(frozen=True)
class _Edge:
    """An input or output of the graph: as the graph has it, as the package has it."""

    argument: Argument
    tensor: GpuTensor

    @property
    def is_cast(self) -> bool:
        """Whether a node between both is needed."""
        return self.argument.name != self.tensor.name or self.argument.element != _ELEMENTS[self.tensor.dtype]


def tensor_of(argument: Argument, dtype: str, shape: tuple[int | None, ...], name: str) -> GpuTensor:
    """The input or output as the package has it: of a type that the server knows, and of a name that may stand in
    config.pbtxt and in a pipeline, else `name`."""
    is_half = dtype == "float16"  # the SDK refuses a Float16Array
    fit = _PLAIN.fullmatch(argument.name) and argument.name.lower() != _RESERVED and not is_half
    return GpuTensor(argument.name if fit else name, "float32" if is_half else dtype, shape)


def refuse_several_files(source: Path, found: OnnxFile, weights: Mapping[str, Path]) -> None:
    """Raise ModelError where `source`, in which `found` was read, cannot be one file with its `weights` (location ->
    file of external data)."""
    nested = next((tensor for tensor in found.external if not tensor.stop), None)
    if nested is not None:
        raise ModelError(
            f"{source.name}: keeps weights of a nested graph in {nested.location!r}, which runtime: gpu does not take: "
            "export the model as one file"
        )
    with disk_errors(source, "read"):
        size = source.stat().st_size + sum(_data_length(each, _file_of(each, weights)) for each in found.external)
    if size > LARGEST:
        raise ModelError(
            f"{source.name}: has {size} bytes with its weights; runtime: gpu takes models of up to {LARGEST} bytes, "
            "which is what one .onnx file may have: export it in float16, or remove runtime: gpu"
        )


def _file_of(tensor: ExternalTensor, weights: Mapping[str, Path]) -> Path:
    return weights[Path(tensor.location).as_posix()]


def _data_length(tensor: ExternalTensor, file: Path) -> int:
    return file.stat().st_size - tensor.offset if tensor.length is None else tensor.length


def write_fixed(  # noqa: PLR0917 - what is read, what is written
    source: Path, found: OnnxFile, target: Path, entered: GpuTensor, answered: tuple[str, GpuTensor],
    weights: Mapping[str, Path],
) -> None:  # fmt: skip
    """Write `source`, in which `found` was read, to `target`. `answered`: the name of the output that is kept, and what
    it becomes. `weights`: as `refuse_several_files` has let them pass.

    Raises EdgepackError if it cannot be written."""
    name, kept = answered
    into = _Edge(found.inputs[0], entered)
    out = _Edge(next(output for output in found.outputs if output.name == name), kept)
    pieces: list[tuple[int, int, list[_Piece]]] = []
    for edge, tag, others in ((into, _INPUT, []), (out, _OUTPUT, found.outputs)):
        pieces.append((edge.argument.start, edge.argument.stop, [with_length(tag, _value_info(edge.tensor))]))
        pieces += [(each.start, each.stop, []) for each in others if each is not edge.argument]
    pieces += [(each.start, each.stop, _inlined(each, weights)) for each in found.external]
    start, body, stop = found.graph
    front = _cast(into.tensor.name, into.argument.name, into.argument.element) if into.is_cast else b""
    back = _cast(out.argument.name, out.tensor.name, _ELEMENTS[out.tensor.dtype]) if out.is_cast else b""
    pieces = [(body, body, [front]), *sorted(pieces, key=lambda piece: piece[0]), (stop, stop, [back])]
    size = stop - body + sum(sum(map(_length, new)) - (end - begin) for begin, end, new in pieces)
    with disk_errors(target), source.open("rb") as content, target.open("wb") as stream:
        copy_part(content, 0, start, stream)
        stream.write(_GRAPH + varint(size))
        position = body
        for begin, end, new in pieces:
            copy_part(content, position, begin, stream)
            for piece in new:
                _write(piece, content, stream)
            position = end
        copy_part(content, position, source.stat().st_size, stream)


def _inlined(tensor: ExternalTensor, weights: Mapping[str, Path]) -> list[_Piece]:
    """The initializer with its data in it."""
    file = _file_of(tensor, weights)
    length = _data_length(tensor, file)
    kept = sum(end - begin for begin, end in tensor.kept)
    raw = _RAW + varint(length)
    return [_INITIALIZER + varint(kept + len(raw) + length), *tensor.kept, raw, (file, tensor.offset, length)]


def _length(piece: _Piece) -> int:
    if isinstance(piece, bytes):
        return len(piece)
    return piece[2] if len(piece) == 3 else piece[1] - piece[0]


def _write(piece: _Piece, content: IO[bytes], stream: IO[bytes]) -> None:
    if isinstance(piece, bytes):
        stream.write(piece)
    elif len(piece) == 3:
        file, offset, length = piece
        with file.open("rb") as data:
            copy_part(data, offset, offset + length, stream)
    else:
        copy_part(content, *piece, stream)


def _value_info(tensor: GpuTensor) -> bytes:
    sizes = (with_length(b"\x12", b"batch") if size is None else b"\x08" + varint(size) for size in tensor.shape)
    dimensions = b"".join(with_length(b"\x0a", size) for size in sizes)
    kind = b"\x08" + varint(_ELEMENTS[tensor.dtype]) + with_length(b"\x12", dimensions)
    return with_length(b"\x0a", tensor.name.encode()) + with_length(b"\x12", with_length(b"\x0a", kind))


def _cast(source: str, target: str, element: int) -> bytes:
    """A node as a field of the graph."""
    to = with_length(b"\x0a", b"to") + b"\x18" + varint(element) + b"\xa0\x01\x02"
    return with_length(
        _NODE,
        with_length(b"\x0a", source.encode()) + with_length(b"\x12", target.encode()) + with_length(b"\x22", b"Cast")
        + with_length(b"\x2a", to),
    )  # fmt: skip
