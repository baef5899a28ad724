"""Who wrote a pickle, read without running any of it."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import decimal
import json
import pickle
import sys
import tarfile
import types
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.pipeline import make_pipeline

from edgepack_assets.model_types.model_folder.pickle_origin import is_of_this_python, origin

K = 5.0


def scaled(x: float) -> float:
    return x / K


def of_version(caches: int) -> bytes:
    """The bytecode of `scaled` as Python 3.11 (5 caches) or 3.12 (4) compiles it."""
    return bytes([151, 0, 124, 0, 116, 0]) + bytes(2 * caches) + bytes([122, 11, 0, 0, 83, 0])


OTHER = of_version(4 if sys.version_info[:2] == (3, 11) else 5)


def written(bytecode: bytes, arguments: int, builtin_type: bool = True, protocol: int = 3) -> bytes:
    """A pickle with a code object, as cloudpickle writes it."""

    def inner(value: object) -> bytes:
        return pickle.dumps(value, protocol)[2 if protocol >= 2 else 0 : -1]

    named = b"ctypes\nCodeType\n"
    if builtin_type:
        named = b"ccloudpickle.cloudpickle\n_builtin_type\n" + inner(("CodeType",)) + b"R"
    values = [1, 0, 0, 1, 2, 3, bytecode, *["x"] * (arguments - 7)]
    function = b"ccloudpickle.cloudpickle\n_make_function\n(" + named + inner(tuple(values)) + b"RNNNNtR"
    return b"\x80\x04(K\x01" + function + b"t."


def told(folder: Path, data: bytes) -> dict[str, object]:
    (folder / "model.pkl").write_bytes(data)
    return origin({"file": str(folder / "model.pkl")})


@pytest.mark.parametrize("builtin_type", [True, False])
@pytest.mark.parametrize(
    ("bytecode", "arguments", "expected"),
    [(scaled.__code__.co_code, 18, "this"), (OTHER, 18, "other"), (b"|\x00t\x00\x1b\x00S\x00", 16, "older")],
)
def test_bytecode_of_another_python_is_told_from_ours(tmp_path, bytecode, arguments, expected, builtin_type):
    assert told(tmp_path, written(bytecode, arguments, builtin_type))["bytecode"] == expected


def test_code_before_a_damaged_place_counts(tmp_path):
    assert told(tmp_path, written(OTHER, 18)[:-2] + b"\xff\xff")["bytecode"] == "other"


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (Path(self.path), "harm"))


def test_nothing_of_a_pickle_runs(tmp_path):
    harmful = Harmful(str(tmp_path / "harm"))
    state = {"estimator": make_pipeline(KMeans(2)), "harm": harmful, "many": [harmful, {harmful: {harmful}}]}
    assert told(tmp_path, pickle.dumps(state)) == {
        "bytecode": "none",
        "scikit_learn": state["estimator"].__getstate__()["_sklearn_version"],
    }
    assert not (tmp_path / "harm").exists()
    pickle.loads((tmp_path / "model.pkl").read_bytes())
    assert (tmp_path / "harm").exists()  # it does when loaded


@pytest.mark.parametrize("protocol", range(6))
def test_the_version_of_scikit_learn_is_read_at_every_protocol(tmp_path, protocol):
    state = {"x": 1, "_sklearn_version": "1.2.2", "inner": [{"_sklearn_version": "1.2.2"}]}
    assert told(tmp_path, pickle.dumps(state, protocol))["scikit_learn"] == "1.2.2"


@pytest.mark.parametrize("protocol", range(4))
def test_bytecode_is_told_apart_at_every_protocol(tmp_path, protocol):
    for bytecode, expected in ((OTHER, "other"), (scaled.__code__.co_code, "this")):
        assert told(tmp_path, written(bytecode, 18, protocol=protocol))["bytecode"] == expected


@settings(max_examples=100)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read(tmp_path_factory, data):
    found = told(tmp_path_factory.mktemp("pickle"), data)
    assert found["bytecode"] in ("none", "this", "older", "other")


def functions_in(code: types.CodeType) -> list[types.CodeType]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return [*inner, *(below for one in inner for below in functions_in(one))]


@pytest.mark.parametrize("module", [argparse, asyncio.base_events, dataclasses, decimal, json, tarfile, typing, pytest])
def test_every_function_of_this_python_is_its_own(module):
    path = Path(module.__file__)
    found = functions_in(compile(path.read_text(encoding="utf-8"), path.name, "exec"))
    assert all(is_of_this_python(code.co_code) for code in found)


@pytest.mark.parametrize(
    "bytecode", [b"", b"\x00", OTHER, bytes([83, 0]), bytes([255, 0]), scaled.__code__.co_code[:-3]]
)
def test_other_bytes_are_not(bytecode):
    assert not is_of_this_python(bytecode)
