"""Reads what the packaging must know of an .onnx file from its bytes: versions, inputs, outputs, where weights lie.

The file is not trusted and nothing is loaded: it is mapped, and of its protobuf only lengths and a few small fields are
read, within bounds. onnx itself would build all of it in this process. The numbers are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack_assets.errors import ModelError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.model_types.model_folder.protobuf import Field, ProtobufReader

_IR_VERSION, _GRAPH, _OPSET, _TRAINING, _FUNCTION = 1, 7, 8, 20, 25
_NODE, _INITIALIZER, _SPARSE, _INPUT, _OUTPUT = 1, 5, 15, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 9, 13, 14
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_IS_EXTERNAL = 1

_DEEPEST = 64
_MOST_TENSORS = 1_000
"""Inputs or outputs of a graph."""

_PASSED_ON = frozenset({b"Identity", b"Cast", b"Reshape", b"Flatten", b"Squeeze", b"Unsqueeze"})
"""Operations that leave the values of scores as they are."""


@dataclass(frozen=True)
class Argument:
    """An input or output of the graph; None in the shape: not fixed. `shape` is None where the file does not say it.
    `element`: the number of its type. `start`, `stop`: where the graph's field lies."""

    name: str
    shape: tuple[int | None, ...] | None
    element: int = field(default=0, compare=False)
    start: int = field(default=0, compare=False)
    stop: int = field(default=0, compare=False)

    @property
    def shape_text(self) -> str:
        """The shape as a person reads it."""
        if self.shape is None:
            return "of any shape"
        return "x".join("?" if size is None else str(size) for size in self.shape) or "scalar"


@dataclass(frozen=True)
class ExternalTensor:
    """Weights in a file beside the .onnx file: `location` as the file names it, offset and length in bytes. Of an
    initializer of the main graph: `start`, `stop`, where its field lies, and `kept`, where those of its fields lie that
    do not say where its data is."""

    location: str
    offset: int
    length: int | None
    start: int = field(default=0, compare=False)
    stop: int = field(default=0, compare=False)
    kept: tuple[tuple[int, int], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Weights:
    """Weights of the graph with their bytes in the .onnx file itself: an initializer, or the value of a Constant, with
    the `name` of its output. Positions in the file: of the field of the graph (`start`, `stop`), of the tensor in it
    (`body`, `body_stop`), and of its raw data with its tag (`raw_start`, `raw_stop`) and without (`data`)."""

    start: int
    stop: int
    body: int
    body_stop: int
    raw_start: int
    data: int
    raw_stop: int
    name: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of raw data."""
        return self.raw_stop - self.data


@dataclass
class OnnxFile:
    """What an .onnx file says. `opsets`: domain -> version, "" being ONNX's own. `operations`: name of an output ->
    the operation that computes it, past those that only reshape or cast. `graph`: where the graph's field lies."""

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    inputs: list[Argument] = field(default_factory=list)
    outputs: list[Argument] = field(default_factory=list)
    operations: dict[str, str] = field(default_factory=dict)
    external: list[ExternalTensor] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)
    graph: tuple[int, int, int] = (0, 0, 0)


def read_onnx(file: Path) -> OnnxFile:
    """Read a file. Raises ModelError if it is no ONNX model that can be read within bounds."""
    with disk_errors(file, "read"), file.open("rb") as stream:
        if not file.stat().st_size:
            raise ModelError(f"{file.name}: is empty; register the exported model again")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, file.name).model()


def _weights(item: Field, tensor: Field, raw: Field, name: bytes = b"") -> Weights:
    return Weights(item.start, item.stop, tensor.body, tensor.stop, raw.start, raw.body, raw.stop, name)


class _Reader(ProtobufReader):
    """Walks through one file's protobuf."""

    def __init__(self, data: Any, name: str) -> None:
        super().__init__(data, name, "ONNX model")
        self._found = OnnxFile()
        self._initializers: set[bytes] = set()
        self._computed: dict[bytes, tuple[bytes, bytes]] = {}
        """Output of a node -> its operation, its first input."""

    def model(self) -> OnnxFile:
        model = self._found
        graphs = []
        for item in self.whole():
            if item.number == _IR_VERSION:
                model.ir_version = item.value
            elif item.number == _OPSET:
                opset = {each.number: each for each in self.message(item)}
                model.opsets[self.text(opset.get(1))] = opset[2].value if 2 in opset else 0
            elif item.number == _GRAPH:
                graphs.append(item)
            elif item.number == _TRAINING:
                for each in self.message(item):
                    if each.number in (1, 2):
                        self._graph(each, 1)
            elif item.number == _FUNCTION:
                for each in self.message(item):
                    if each.number == 7:
                        self._node(each, 1)
        if len(graphs) != 1 or not model.ir_version:
            raise self.refused(f"it holds {len(graphs)} graphs and IR version {model.ir_version}")
        model.graph = graphs[0].start, graphs[0].body, graphs[0].stop
        self._main_graph(graphs[0])
        return model

    def _main_graph(self, graph: Field) -> None:
        inputs: list[Field] = []
        outputs: list[Field] = []
        for item in self._graph(graph, 0):
            if item.number in (_INPUT, _OUTPUT):
                (inputs if item.number == _INPUT else outputs).append(item)
                if len(inputs) + len(outputs) > _MOST_TENSORS:
                    raise self.refused(f"its graph has more than {_MOST_TENSORS} inputs and outputs")
        model = self._found
        # Until IR version 4 all initializers were inputs as well.
        model.inputs = [self._argument(item) for item in inputs if bytes(self._name_of(item)) not in self._initializers]
        model.outputs = [self._argument(item) for item in outputs]
        for output in model.outputs:
            operation = self._operation(output.name.encode())
            if operation:
                model.operations[output.name] = operation.decode("utf-8", "replace")

    def _operation(self, name: bytes) -> bytes:
        operation = b""
        for _ in range(_DEEPEST):
            operation, name = self._computed.get(name, (b"", b""))
            if operation not in _PASSED_ON:
                break
        return operation

    def _graph(self, graph: Field, depth: int) -> list[Field]:
        """The fields of a graph that are inputs or outputs; its nodes and tensors are looked at."""
        kept = []
        for item in self.message(graph):
            if item.number == _NODE:
                self._node(item, depth)
            elif item.number == _INITIALIZER:
                raw = self._tensor(item, depth == 0)
                if raw is not None and depth == 0:
                    self._found.weights.append(_weights(item, item, raw))
            elif item.number == _SPARSE:
                self._sparse(item)
            elif item.number in (_INPUT, _OUTPUT) and depth == 0:
                kept.append(item)
        return kept

    def _node(self, node: Field, depth: int) -> None:
        if depth > _DEEPEST:
            raise self.refused(f"its graphs are nested more than {_DEEPEST} deep")
        operation = domain = first = b""
        outputs, values = [], []
        for item in self.message(node):
            if item.number == _ATTRIBUTE:
                values.append(self._attribute(item, depth))
            elif depth == 0:
                if item.number == _NODE_INPUT:
                    first = first or self.bytes_of(item)
                elif item.number == _NODE_OUTPUT:
                    outputs.append(self.bytes_of(item))
                elif item.number == _OP_TYPE:
                    operation = self.bytes_of(item)
                elif item.number == _NODE_DOMAIN:
                    domain = self.bytes_of(item)
        known = operation if domain in (b"", b"ai.onnx") else b""
        for output in outputs[:_MOST_TENSORS]:
            self._computed[output] = known, first
        if known == b"Constant" and len(outputs) == len(values) == 1 and values[0] is not None:
            self._found.weights.append(_weights(node, *values[0], outputs[0]))

    def _attribute(self, attribute: Field, depth: int) -> tuple[Field, Field] | None:
        """The tensor and its raw data, if the attribute has one; what is in it is looked at."""
        value = None
        for item in self.message(attribute):
            if item.number in _ATTRIBUTE_TENSORS:
                raw = self._tensor(item, False)
                value = None if raw is None else (item, raw)
            elif item.number in _ATTRIBUTE_GRAPHS:
                self._graph(item, depth + 1)
            elif item.number in _ATTRIBUTE_SPARSE:
                self._sparse(item)
        return value

    def _sparse(self, sparse: Field) -> None:
        for item in self.message(sparse):
            if item.number in (1, 2):
                self._tensor(item, False)

    def _tensor(self, tensor: Field, is_initializer: bool) -> Field | None:
        """The tensor's raw data, if it has some in the file itself."""
        raw, entries, is_external, kept = None, {}, False, []
        for item in self.message(tensor):
            if item.number not in (_TENSOR_RAW, _TENSOR_LOCATION, _TENSOR_EXTERNAL):
                kept.append((item.start, item.stop))
            if item.number == _TENSOR_NAME and is_initializer:
                self._initializers.add(self.bytes_of(item))
            elif item.number == _TENSOR_RAW:
                raw = item
            elif item.number == _TENSOR_LOCATION:
                is_external = item.value == _IS_EXTERNAL
            elif item.number == _TENSOR_EXTERNAL:
                entry = {each.number: each for each in self.message(item)}
                entries[self.text(entry.get(1))] = self.text(entry.get(2))
        if is_external:
            where = (tensor.start, tensor.stop, tuple(kept)) if is_initializer else (0, 0, ())
            self._found.external.append(self._external(entries, *where))
            return None
        return None if entries else raw

    def _external(
        self, entries: dict[str, str], start: int, stop: int, kept: tuple[tuple[int, int], ...]
    ) -> ExternalTensor:
        numbers = {key: entries[key] for key in ("offset", "length") if key in entries}
        for key, text in numbers.items():
            if not (text.isascii() and text.isdigit() and len(text) < 19):
                raise self.refused(f"the {key} of its external data is {text!r:.50}")
        if not entries.get("location"):
            raise self.refused("a tensor keeps its data in a file without a name")
        length = int(numbers["length"]) if "length" in numbers else None
        return ExternalTensor(entries["location"], int(numbers.get("offset", 0)), length, start, stop, kept)

    def _argument(self, item: Field) -> Argument:
        shape: tuple[int | None, ...] | None = None
        element = 0
        for kind in self.below(item, 2):  # TypeProto
            for tensor in self.below(kind, 1):
                for each in self.message(tensor):
                    if each.number == 1:
                        element = each.value
                    elif each.number == 2:
                        shape = tuple(self._size(dimension) for dimension in self.below(each, 1))
        return Argument(self._name_of(item).decode("utf-8", "replace"), shape, element, item.start, item.stop)

    def _size(self, dimension: Field) -> int | None:
        sizes = [each.value for each in self.message(dimension) if each.number == 1]
        return sizes[-1] if sizes and 0 < sizes[-1] < 1 << 63 else None

    def _name_of(self, item: Field) -> bytes:
        return next((self.bytes_of(each) for each in self.below(item, 1)), b"")
