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
from edgepack_assets.model_types.pipeline import GpuTensor

LARGEST = (1 << 31) - (1 << 20)
"""Bytes of one .onnx file, of which protobuf allows 2 GiB."""
_FLOAT, _FLOAT16 = 1, 10
_ELEMENTS: Mapping[str, int] = {"float32": _FLOAT, "uint8": 2, "int8": 3, "float16": _FLOAT16, "float64": 11}
_PLAIN = re.compile(r"[A-Za-z0-9_./:-]{1,200}")
_RESERVED = "timestamp"
_GRAPH, _NODE, _INITIALIZER, _INPUT, _OUTPUT = b"\x3a", b"\x0a", b"\x2a", b"\x5a", b"\x62"
_RAW = b"\x4a"
_PIECE = 1 << 20
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


def write_fixed(  # noqa: PLR0917 - what is read, what is written
    source: Path, found: OnnxFile, target: Path, entered: GpuTensor, answered: tuple[str, GpuTensor],
    weights: Mapping[str, Path],
) -> None:  # fmt: skip
    """Write `source`, in which `found` was read, to `target`. `answered`: the name of the output that is kept, and what
    it becomes. `weights`: location -> file of external data.

    Raises ModelError where it cannot be one file; EdgepackError if it cannot be written."""
    name, kept = answered
    into = _Edge(found.inputs[0], entered)
    out = _Edge(next(output for output in found.outputs if output.name == name), kept)
    pieces: list[tuple[int, int, list[_Piece]]] = []
    for edge, tag, others in ((into, _INPUT, []), (out, _OUTPUT, found.outputs)):
        pieces.append((edge.argument.start, edge.argument.stop, [_bytes(tag, _value_info(edge.tensor))]))
        pieces += [(each.start, each.stop, []) for each in others if each is not edge.argument]
    pieces += [(each.start, each.stop, _inlined(each, source.name, weights)) for each in found.external]
    start, body, stop = found.graph
    front = _cast(into.tensor.name, into.argument.name, into.argument.element) if into.is_cast else b""
    back = _cast(out.argument.name, out.tensor.name, _ELEMENTS[out.tensor.dtype]) if out.is_cast else b""
    pieces = [(body, body, [front]), *sorted(pieces, key=lambda piece: piece[0]), (stop, stop, [back])]
    size = stop - body + sum(sum(map(_length, new)) - (end - begin) for begin, end, new in pieces)
    if size + source.stat().st_size - (stop - start) > LARGEST:
        raise ModelError(
            f"{source.name}: has {size} bytes with its weights; runtime: gpu takes models of up to {LARGEST} bytes, "
            "which is what one .onnx file may have: export it in float16, or remove runtime: gpu"
        )
    with disk_errors(target), source.open("rb") as content, target.open("wb") as stream:
        _copy(content, 0, start, stream)
        stream.write(_GRAPH + _varint(size))
        position = body
        for begin, end, new in pieces:
            _copy(content, position, begin, stream)
            for piece in new:
                _write(piece, content, stream)
            position = end
        _copy(content, position, source.stat().st_size, stream)


def _inlined(tensor: ExternalTensor, name: str, weights: Mapping[str, Path]) -> list[_Piece]:
    """The initializer with its data in it."""
    if not tensor.stop:
        raise ModelError(
            f"{name}: keeps weights of a nested graph in {tensor.location!r}, which runtime: gpu does not take: export "
            "the model as one file"
        )
    file = weights[Path(tensor.location).as_posix()]
    length = file.stat().st_size - tensor.offset if tensor.length is None else tensor.length
    kept = sum(end - begin for begin, end in tensor.kept)
    raw = _RAW + _varint(length)
    return [_INITIALIZER + _varint(kept + len(raw) + length), *tensor.kept, raw, (file, tensor.offset, length)]


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
            _copy(data, offset, offset + length, stream)
    else:
        _copy(content, *piece, stream)


def _value_info(tensor: GpuTensor) -> bytes:
    dimensions = b"".join(
        _bytes(b"\x0a", _bytes(b"\x12", b"batch") if size is None else b"\x08" + _varint(size)) for size in tensor.shape
    )
    kind = b"\x08" + _varint(_ELEMENTS[tensor.dtype]) + _bytes(b"\x12", dimensions)
    return _bytes(b"\x0a", tensor.name.encode()) + _bytes(b"\x12", _bytes(b"\x0a", kind))


def _cast(source: str, target: str, element: int) -> bytes:
    """A node as a field of the graph."""
    to = _bytes(b"\x0a", b"to") + b"\x18" + _varint(element) + b"\xa0\x01\x02"
    return _bytes(
        _NODE,
        _bytes(b"\x0a", source.encode()) + _bytes(b"\x12", target.encode()) + _bytes(b"\x22", b"Cast")
        + _bytes(b"\x2a", to),
    )  # fmt: skip


def _bytes(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _copy(content: IO[bytes], start: int, stop: int, target: IO[bytes]) -> None:
    content.seek(start)
    while start < stop:
        piece = content.read(min(_PIECE, stop - start))
        if not piece:
            raise ModelError(f"{getattr(content, 'name', 'a file')}: was cut short while it was read")
        target.write(piece)
        start += len(piece)
