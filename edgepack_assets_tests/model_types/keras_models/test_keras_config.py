"""What a Keras model's configuration tells: its input, scaling inside, lambdas, classes that are not Keras' own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.keras_models.keras_config import LEARNED, Pixels, describe, means_tell
from edgepack_assets_tests.model_types.keras_models.configs import (
    SHAPE,
    functional,
    functional_2,
    layer,
    operation,
    operation_2,
    sequential,
)

RAW, UNIT = [0, 255], [0, 1]
CONV = layer("Conv2D", filters=8)
FLIP = layer("RandomFlip", mode="horizontal")


def told(config: Any, version: str = "3.15.1") -> Any:
    return describe("m.keras", json.dumps(config), version)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ([layer("Rescaling", scale=1 / 255, offset=0.0)], RAW),
        ([layer("Rescaling", scale=1 / 127.5, offset=-1)], RAW),
        ([layer("Rescaling", scale=[1 / 58.4, 1 / 57.1, 1 / 57.4], offset=[-2.1, -2.0, -1.8])], RAW),
        ([layer("Rescaling", scale=2.0, offset=-1.0)], UNIT),
        ([layer("Rescaling", scale=255.0, offset=0.0)], UNIT),
        ([layer("Rescaling", scale=1.0, offset=-127.5)], RAW),
        ([layer("Rescaling", scale=1.0, offset=0.0), layer("Rescaling", scale=1 / 255)], RAW),
        ([FLIP, layer("Resizing", height=8, width=8), layer("Rescaling", scale=1 / 255)], RAW),
        ([layer("Normalization", mean=[123.7, 116.3, 103.5], variance=[3411.9, 3262.6, 3292.4])], RAW),
        ([layer("Normalization", mean=[0.485, 0.456, 0.406], variance=[0.05, 0.05, 0.05])], UNIT),
        ([sequential(FLIP, layer("RandomRotation", factor=0.1)), layer("Rescaling", scale=1 / 255)], RAW),
    ],
)
@pytest.mark.parametrize("wire", [sequential, functional, functional_2])
def test_layers_in_the_model_tell_what_pixels_are(first: list[Any], expected: list[int], wire: Any) -> None:
    found = told(wire(*first, CONV))
    assert found.pixels is not None
    assert found.pixels.range == expected
    assert found.shape == SHAPE


@pytest.mark.parametrize(
    "config",
    [
        functional(operation("TrueDivide", 127.5), operation("Subtract", 1.0), CONV),
        functional(operation("GetItem"), operation("Subtract", 103.939), CONV),
        functional_2(operation_2("math.truediv", y=127.5), operation_2("math.subtract", y=1.0), CONV),
        functional_2(operation_2("__operators__.getitem"), operation_2("nn.bias_add", bias=[-103.939, -116.7]), CONV),
        functional_2(operation_2("math.multiply", y=1 / 255), CONV),
    ],
)
def test_keras_own_preprocess_input_tells_too(config: Any) -> None:
    found = told(config)
    assert found.pixels is not None
    assert found.pixels.range == RAW


@pytest.mark.parametrize("first", [[], [layer("BatchNormalization")], [layer("Rescaling", scale=0.1)], [layer("ReLU")]])
def test_where_nothing_tells_nothing_is_claimed(first: list[Any]) -> None:
    assert told(functional(*first, CONV)).pixels is None


def test_a_rescaling_behind_a_layer_that_changes_values_does_not_count() -> None:
    assert told(functional(CONV, layer("Rescaling", scale=1 / 255))).pixels is None


def test_an_input_that_goes_two_ways_is_not_followed() -> None:
    config = functional(layer("Rescaling", scale=1 / 255), layer("Rescaling", scale=2.0))
    first, second = config["config"]["layers"][1:]
    second["inbound_nodes"] = first["inbound_nodes"]
    assert told(config).pixels is None


def test_means_that_were_learned_are_among_the_weights() -> None:
    assert told(functional(layer("Normalization", axis=[-1], mean=None), CONV)).pixels == Pixels(None, LEARNED)


@pytest.mark.parametrize(
    ("means", "expected"),
    [([120.0, 110.0, 100.0], RAW), ([0.4], UNIT), ([-0.1, 0.2], None), ([1.2], None), ([], None)],
)
def test_what_means_tell(means: list[float], expected: list[int] | None) -> None:
    assert means_tell(means) == expected


LAMBDA = layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEA", "defaults": None}})
LAMBDA_2 = {
    "class_name": "Lambda",
    "config": {"name": "lambda", "function": ["4wE=", None, None], "function_type": "lambda"},
}


@pytest.mark.parametrize(
    "config",
    [
        functional(LAMBDA, CONV),
        sequential(sequential(LAMBDA)),
        functional_2(LAMBDA_2),
        sequential(layer("TimeDistributed", layer=LAMBDA)),
        sequential(layer("Conv2D", activation={"class_name": "__lambda__", "config": {"other": 1}})),
        sequential({"class_name": "Wrapped", "config": {"name": "w", "function_type": "lambda"}}),
    ],
)
def test_lambdas_are_found_wherever_they_hide(config: Any) -> None:
    assert len(told(config).lambdas) == 1


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (layer("Cus", None, registered="Cus"), "Cus"),
        (layer("Reg", None, registered="my>Reg"), "my>Reg"),
        (layer("Cus", "plant.layers", registered="Cus"), "Cus"),
        (layer("system", "os"), "system"),
        (layer("Evil", "kerasx.layers"), "Evil"),
        (
            layer("Dense", activation=layer("function", "builtins", registered="function") | {"config": "swish2"}),
            "swish2",
        ),
    ],
)
def test_classes_and_functions_that_are_not_keras_own(found: dict[str, Any], name: str) -> None:
    assert told(functional(CONV, found)).custom == (name,)


def test_keras_own_classes_are_not_custom_nor_are_losses_read() -> None:
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
    config = functional(layer("Conv2D", dtype=policy), operation("Add", 1.0), operation_2("math.add", y=1.0))
    config["compile_config"] = {
        "loss": {"module": "mine", "class_name": "Loss", "config": {}, "registered_name": "Loss"}
    }
    assert told(config).custom == ()


def test_names_are_short_and_printable_and_numbers_bounded() -> None:
    named = layer("A" * 5000, None), layer("evil\x1b[2J\n", None)
    found = told(functional(layer("Rescaling", scale=10**400), *named))
    assert all(len(name) <= 120 and name.isprintable() for name in found.custom)
    assert found.pixels is not None


@pytest.mark.parametrize(("version", "keras"), [("3.0.0", 3), ("3.15.1", 3), ("2.15.0", 2), ("2.0.5-tf", 2)])
def test_the_version_says_which_keras_loads_it(version: str, keras: int) -> None:
    assert told(sequential(CONV), version).keras == keras


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"class_name": 3}', "[" * 100_000, "NaN"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"m\.keras: its configuration"):
        describe("m.keras", text, "3.0.0")


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    config: Any = CONV
    for _ in range(900):
        config = sequential(config)
    with contextlib.suppress(ModelError), contextlib.suppress(RecursionError):
        text = json.dumps(config)
        describe("m.keras", text, "3.0.0")


_KEYS = st.sampled_from([
    "class_name", "config", "layers", "inbound_nodes", "module", "registered_name", "keras_history", "function",
    "scale", "mean", "batch_shape", "name", "y",
])  # fmt: skip
_WORDS = [
    "Functional",
    "Sequential",
    "InputLayer",
    "Rescaling",
    "Normalization",
    "Lambda",
    "function",
    "a",
    "TrueDivide",
]
_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.sampled_from(_WORDS),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(_KEYS, below, max_size=6),
    max_leaves=25,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=6))
def test_whatever_the_json_says_it_is_told_or_refused(config: dict[str, Any]) -> None:
    with contextlib.suppress(ModelError):
        found = told({"class_name": "Functional", **config})
        assert found.pixels is None or found.pixels.range in (RAW, UNIT, None)
        assert found.shape is None or all(size is None or isinstance(size, int) for size in found.shape)


def _with_one_changed(value: Any, other: Any) -> Iterator[Any]:
    """The value once for each place in it, with `other` there, or, in a mapping, with nothing there."""
    yield other
    if isinstance(value, dict):
        for key, below in value.items():
            yield {name: each for name, each in value.items() if name != key}
            for changed in _with_one_changed(below, other):
                yield {**value, key: changed}
    elif isinstance(value, list):
        for place, below in enumerate(value):
            for changed in _with_one_changed(below, other):
                yield [*value[:place], changed, *value[place + 1 :]]


@pytest.mark.parametrize("other", [None, True, 3, -1.5, "x", [], [1], {}, {"class_name": "x"}], ids=repr)
@pytest.mark.parametrize("wired", [functional, functional_2, sequential])
def test_one_value_of_another_kind_is_told_or_refused_wherever_it_stands(wired: Any, other: Any) -> None:
    function = {"module": "builtins", "class_name": "function", "config": "steep", "registered_name": "function"}
    scaled = layer("Rescaling", scale=[1 / 255], offset=0.0, activation=function)
    for changed in _with_one_changed(wired(FLIP, scaled, layer("Lambda", function="f")), other):
        with contextlib.suppress(ModelError):
            found = told(changed)
            assert found.pixels is None or found.pixels.range in (RAW, UNIT, None)
