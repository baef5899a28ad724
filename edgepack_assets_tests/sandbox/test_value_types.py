"""Every type of the server is checked, at its bounds, and bytes survive payload and results."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack_assets.model_types.interface import SDK_TYPES
from edgepack_assets.model_types.records import PayloadWriter, Results, gzip_writer, read_lines
from edgepack_assets.sandbox import child_main
from edgepack_assets.sandbox.value_types import check_of, from_json, to_json

IMAGE = {"id": "1", "seq": 0, "format": "RGB8", "image": b"\x00\xff"}
IMAGE_SET = {"version": "1.0", "cameraid": "c", "timestamp": "2026-01-01T00:00:00.000Z", "detail": [IMAGE], "count": 1}
LARGEST = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
ADMITTED: dict[str, list[Any]] = {
    "Bool": [True],
    "Boolean": [False],
    "Integer": [-(2**63), 2**63 - 1],
    "Double": [1, 1.5, 10**30],
    "String": ["", "é"],
    "Float32": [LARGEST, -LARGEST, 0, 1e-50],
    "Float64": [1e300, 3],
    "Object": [{"metadata": "{}", "image": b"\x89PNG"}, {"image": b"", "metadata": ""}],
    "Binary": [b"", b"\x00\xff"],
    "ImageSet": [IMAGE_SET, {**IMAGE_SET, "detail": []}],
}
REFUSED: dict[str, list[Any]] = {
    "Bool": [0, 1.0, "true", None],
    "Boolean": [1, None],
    "Integer": [2**63, -(2**63) - 1, 1.0, True, "1", None],
    "Double": [True, "1.0", 10**400, None],
    "String": [b"", 1, None],
    "Float32": [LARGEST * 1.0001, 1e300, 10**39, True, "1"],
    "Float64": [10**400, False, "1"],
    "Object": [
        {}, {"a": "b"}, {"a": b"b"}, {"a": "b", "c": "d"}, {"a": b"b", "c": b"d"}, {"a": "b", "c": b"d", "e": b"f"},
        {"a": 1, "c": b"d"}, ["a", b"b"], b"b", None,
    ],
    "Binary": ["AAE=", bytearray(b"b"), [1, 2], None],
    "ImageSet": [
        {**IMAGE_SET, "detail": None}, {**IMAGE_SET, "detail": [b"\x00"]}, {**IMAGE_SET, "version": 1},
        {name: value for name, value in IMAGE_SET.items() if name != "cameraid"},
        {**IMAGE_SET, "detail": [{**IMAGE, "image": "AAE="}]}, {**IMAGE_SET, "detail": [{**IMAGE, "seq": True}]},
        {**IMAGE_SET, "detail": [{**IMAGE, "id": 1}]}, {**IMAGE_SET, "detail": [IMAGE, {**IMAGE, "format": None}]},
        IMAGE, [IMAGE_SET], None,
    ],
}  # fmt: skip
for bits in (8, 16, 32, 64):
    ADMITTED[f"Int{bits}"], REFUSED[f"Int{bits}"] = (
        [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1], [-(2 ** (bits - 1)) - 1, 2 ** (bits - 1), 1.0, True],
    )  # fmt: skip
    ADMITTED[f"UInt{bits}"], REFUSED[f"UInt{bits}"] = [0, 2**bits - 1], [-1, 2**bits, 1.0, True]


def test_every_type_of_the_sdk_is_tried_here() -> None:
    from simaticai.packaging.supported_types import supported_types

    arrays = {f"{kind}Array" for kind in ADMITTED} & SDK_TYPES
    assert set(supported_types) == SDK_TYPES == {*ADMITTED, *arrays}
    assert ADMITTED.keys() == REFUSED.keys()
    assert {kind.removesuffix("Array") for kind in arrays} == ADMITTED.keys() - {"Object", "Binary", "ImageSet"}


@pytest.mark.parametrize("kind", ADMITTED)
def test_values_within_the_bounds_of_a_type_pass_and_others_do_not(kind: str) -> None:
    assert [value for value in ADMITTED[kind] if not check_of(kind)(value)] == []
    assert [value for value in REFUSED[kind] if check_of(kind)(value)] == []
    if f"{kind}Array" in SDK_TYPES:
        assert check_of(f"{kind}Array")([*ADMITTED[kind]])
        assert check_of(f"{kind}Array")([])
        assert [value for value in REFUSED[kind] if check_of(f"{kind}Array")([*ADMITTED[kind], value])] == []
        assert not check_of(f"{kind}Array")(tuple(ADMITTED[kind]))


def test_an_array_of_a_stated_size_has_that_size() -> None:
    assert check_of("DoubleArray[2]")([1.0, 2.0])
    assert not any(map(check_of("DoubleArray[2]"), ([1.0], [1.0, 2.0, 3.0], [1.0, "2"], 3, None)))


@pytest.mark.parametrize("kind", ADMITTED)
def test_a_wrong_value_is_refused_in_an_answer_with_its_type_and_record(kind: str) -> None:
    for value in ADMITTED[kind]:
        line = child_main.result_line({"y": value}, {"y": kind}, 3)
        assert from_json(line) == {"record": 3, "outputs": {"y": value}}
    for value in REFUSED[kind]:
        with pytest.raises(child_main.RecordError, match=f"output 'y' is declared {kind}") as error:
            child_main.result_line({"y": value}, {"y": kind}, 3)
        assert error.value.record == 3


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["Float32", "Float64", "Double"])
def test_what_is_no_finite_number_is_refused_as_such(kind: str, number: float) -> None:
    with pytest.raises(child_main.RecordError, match=f"output 'y' is {number}"):
        child_main.result_line({"y": number}, {"y": kind}, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_json_and_bytes_come_back_as_they_were(value: Any) -> None:
    text = to_json(value)
    assert from_json(text) == from_json(text.encode()) == value
    assert "\n" not in text


@pytest.mark.parametrize("text", ['{"$bytes": "A"}', '{"$bytes": "é"}', '[{"$bytes": "AA==="}]'])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no base64"):
        from_json(text)


@pytest.mark.parametrize("value", [{"$bytes": 1}, {"$bytes": "AAE=", "more": 1}, "$bytes", ["$bytes"]])
def test_other_json_that_names_the_key_stays_as_it_is(value: Any) -> None:
    assert from_json(to_json(value)) == value


def test_bytes_go_from_the_payload_through_the_component_into_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"x": {"metadata": "a", "image": b"\x00\x01"}, "raw": b"\xff"}, {"x": None, "raw": None}]
    writer = PayloadWriter(tmp_path / "records", tmp_path / "sources")
    with writer.open():
        for record in records:
            writer.add(record)
    assert writer.preview == [*read_lines(writer.records)] == records
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "entrypoint_of_bytes.py").write_text(
        "def process_input(data):\n    return data['x'] and {'y': data['x']['image'] + data['raw'], 'z': data['x']}\n"
    )
    inputs, outputs = {"x": "Object", "raw": "Binary"}, {"y": "Binary", "z": "Object"}
    job: dict[str, Any] = {
        "entrypoint": "entrypoint_of_bytes", "parameters": {}, "until_answers": None,
        "inputs": [{"name": name, "type": kind} for name, kind in inputs.items()],
        "outputs": [{"name": name, "type": kind} for name, kind in outputs.items()],
        "records": str(writer.records), "results": str(tmp_path / "results"), "times": str(tmp_path / "times"),
    }  # fmt: skip
    assert child_main.run(job)["answered"] == 1
    [answer] = Results(tmp_path / "results").answers()
    assert answer.outputs == {"y": b"\x00\x01\xff", "z": records[0]["x"]}
    with gzip_writer(tmp_path / "records") as stream:
        stream.write(b'{"raw": "AAE="}\n')
    with pytest.raises(
        child_main.RecordError, match=r"input 'raw' is declared Binary \(bytes\), but the payload holds"
    ):
        child_main.run(job)
