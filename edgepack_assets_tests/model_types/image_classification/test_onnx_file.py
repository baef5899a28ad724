"""What is read of an .onnx file's bytes, against onnx itself; and files that are damaged or made to mislead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.image_classification import onnx_file
from edgepack_assets.model_types.image_classification.onnx_file import Argument, ExternalTensor, read_onnx
from edgepack_assets.model_types.image_classification.onnx_split import split_onnx
from edgepack_assets.model_types.model_folder import protobuf

from .onnx_models import build

_NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)
_SIZES = st.one_of(st.integers(1, 2**40), st.sampled_from(["n", "height", ""]))
_IN_FOLDER = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _external(tensor: Any, location: str, offset: int, length: int) -> Any:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    for key, value in {"location": location, "offset": str(offset), "length": str(length)}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


@_IN_FOLDER
@given(
    st.lists(_NAMES, min_size=4, max_size=4, unique=True),
    st.lists(_SIZES, max_size=5),
    st.integers(3, 20),
    st.lists(st.tuples(_NAMES, st.integers(1, 60)), max_size=3, unique_by=lambda each: each[0]),
    st.sampled_from(["Softmax", "Sigmoid", "Relu"]),
    st.booleans(),
)
def test_the_reader_says_what_onnx_says(  # noqa: PLR0917 - hypothesis passes what it draws
    tmp_path: Path, names: list[str], shape: list[Any], ir: int, opsets: list[Any], last: str, as_inputs: bool
) -> None:
    image, scores, other, weights = names
    graph = helper.make_graph(
        [
            helper.make_node(last, [image], [other + "."]),
            helper.make_node("Cast", [other + "."], [scores], to=TensorProto.FLOAT),
            helper.make_node("Relu", [image], [other], domain="com.example"),
        ],
        "g",
        [
            helper.make_tensor_value_info(image, TensorProto.FLOAT, shape),
            *([helper.make_tensor_value_info(weights, TensorProto.FLOAT, [2])] if as_inputs else []),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in (scores, other)],
        [numpy_helper.from_array(np.zeros(2, np.float32), weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*each) for each in opsets], ir_version=ir)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())

    found = read_onnx(tmp_path / "m.onnx")

    fixed = tuple(size if isinstance(size, int) else None for size in shape)
    assert (found.ir_version, found.opsets) == (ir, dict(opsets))
    assert found.inputs == [Argument(image, fixed)]
    assert found.outputs == [Argument(scores, fixed), Argument(other, fixed)]
    assert found.operations == {scores: last}, "past the cast; an operation of another domain is not known"
    assert [each.size for each in found.weights] == [8]


def _nested(location: str, depth: int) -> Any:
    """A graph with weights elsewhere, in a constant within `depth` branches."""
    tensor = _external(numpy_helper.from_array(np.zeros(1, np.float32), "w"), location, 0, 4)
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
    for _ in range(depth):
        inner = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "branch", [], [])
    return inner


def test_external_data_is_found_wherever_a_tensor_may_be(tmp_path: Path) -> None:
    sparse = helper.make_sparse_tensor(
        _external(numpy_helper.from_array(np.ones(1, np.float32), "s"), "sparse", 8, 4),
        numpy_helper.from_array(np.zeros(1, np.int64)),
        [3],
    )
    graph = _nested("nested", 5)
    graph.sparse_initializer.append(sparse)
    graph.initializer.append(_external(numpy_helper.from_array(np.ones(1, np.float32), "i"), "initial", 4096, 4))
    function = helper.make_function("d", "f", [], ["c"], [_nested("function", 0).node[0]], [])
    model = helper.make_model(graph, functions=[function])
    unused = model.graph.initializer.add()
    unused.CopyFrom(_external(numpy_helper.from_array(np.ones(1, np.float32), "u"), "not external", 0, 4))
    unused.data_location = TensorProto.DEFAULT
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())

    assert set(read_onnx(tmp_path / "m.onnx").external) == {
        ExternalTensor("nested", 0, 4),
        ExternalTensor("sparse", 8, 4),
        ExternalTensor("function", 0, 4),
        ExternalTensor("initial", 4096, 4),
    }


@_IN_FOLDER
@given(st.integers(0, 10_000), st.binary(max_size=8), st.integers(0, 8))
def test_no_damage_makes_reading_fail_otherwise(tmp_path: Path, position: int, noise: bytes, removed: int) -> None:
    content = build(tmp_path / "m.onnx", last="Softmax").read_bytes()
    position %= len(content)
    (tmp_path / "m.onnx").write_bytes(content[:position] + noise + content[position + removed :])
    try:
        read_onnx(tmp_path / "m.onnx")
    except ModelError as error:
        assert str(error).startswith("m.onnx: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 a zip file", "is no ONNX model that can be read"),
        (b"\x08\x08", "it holds 0 graphs"),
        (b"\x08\x08\x3a\x00\x3a\x00", "it holds 2 graphs"),
        (b"\x3a\x00", "IR version 0"),
        (b"\x08\x08\x3a\x7f", "may be cut short"),
        (b"\x08" + b"\xff" * 11, "has no end"),
        (b"\x08\x08\x0b", "there is no field at byte 2"),
        (b"\x08\x08\x3a\x00\x42\xfe\x07\x0a\xfb\x07" + b"d" * 1019, "longer than 1000 bytes"),
        (b"\x08\x08\x3a\x00\x42\x03\x0a\x01\xff", "not UTF-8"),
    ],
)
def test_what_is_no_model_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=reason) as caught:
        read_onnx(tmp_path / "m.onnx")
    assert str(caught.value).startswith("m.onnx: ")


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    content = build(tmp_path / "m.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(content[:-20])
    with pytest.raises(ModelError, match="may be cut short"):
        read_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("offset", "-1", "the offset of its external data is '-1'"),
        ("length", "9" * 30, "the length of its external data"),
        ("location", "", "a file without a name"),
    ],
)
def test_external_data_that_makes_no_sense(tmp_path: Path, key: str, value: str, reason: str) -> None:
    model = onnx.load(build(tmp_path / "m.onnx"))
    tensor = _external(model.graph.initializer[0], "w", 0, 4)
    next(entry for entry in tensor.external_data if entry.key == key).value = value
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=reason):
        read_onnx(tmp_path / "m.onnx")


def test_graphs_that_are_nested_too_deep_are_refused(tmp_path: Path) -> None:
    model = helper.make_model(_nested("w", 25))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert read_onnx(tmp_path / "m.onnx").external
    content = b""
    for _ in range(onnx_file._DEEPEST + 2):  # deeper than onnx itself builds
        content = _field(0x0A, _field(0x2A, _field(0x32, content)))
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08" + _field(0x3A, content))
    with pytest.raises(ModelError, match="nested more than 64 deep"):
        read_onnx(tmp_path / "m.onnx")


def _field(tag: int, content: bytes) -> bytes:
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([tag, *length, size]) + content


def test_the_number_of_fields_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "_MOST_FIELDS", 1000)
    build(tmp_path / "m.onnx")
    read_onnx(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08" * 1001)
    with pytest.raises(ModelError, match="more than 1000 fields"):
        read_onnx(tmp_path / "m.onnx")


@_IN_FOLDER
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=5), st.integers(0, 5000))
def test_splitting_changes_where_weights_lie_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], smallest: int
) -> None:
    monkeypatch.setattr("edgepack_assets.model_types.image_classification.onnx_split.SMALLEST", smallest)
    rng = np.random.default_rng(len(sizes))
    tensors = [numpy_helper.from_array(rng.integers(0, 256, n, np.uint8), f"w{i}") for i, n in enumerate(sizes)]
    tensors.append(helper.make_tensor("typed", TensorProto.FLOAT, [2], [1.0, 2.0]))  # not raw
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [], tensors, doc_string="d")
    model = helper.make_model(graph, producer_name="after the graph or before")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())

    split_onnx(tmp_path / "m.onnx", read_onnx(tmp_path / "m.onnx"), tmp_path / "split.onnx", tmp_path / "w.data")

    bare = onnx.load(tmp_path / "split.onnx", load_external_data=False)
    moved = [n for tensor, n in zip(bare.graph.initializer, sizes, strict=False) if tensor.external_data]
    assert moved == [n for n in sizes if n >= smallest]
    assert all(tensor.offset % 4096 == 0 for tensor in read_onnx(tmp_path / "split.onnx").external)
    found = onnx.load(tmp_path / "split.onnx")
    for tensor in found.graph.initializer:
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    assert found.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
