"""What the configuration that Keras saves beside a model's weights tells, read without running any of it: the input,
how pixels are scaled inside the model, lambdas, and the classes that are not Keras' own.

It is JSON in the same form in .keras and .h5 files, with small differences between Keras 2 and 3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack_assets.errors import ModelError

_MOST_VALUES = 2_000_000
_LONGEST_CHAIN = 30
"""So many layers behind the input are looked at: what scales pixels is among the first."""
_OWN_MODULES = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras")
_PASSES = frozenset({
    "InputLayer", "Dropout", "GaussianNoise", "Resizing", "CenterCrop", "ZeroPadding2D", "Cropping2D", "Permute",
    "Reshape", "Identity", "Cast", "GetItem", "Flip", "cast", "__operators__.getitem", "reverse", "identity",
})  # fmt: skip
"""Layers and operations that leave pixel values as they are; so do all that are called Random..."""
_DIVIDE, _MULTIPLY = ("TrueDivide", "Divide", "math.truediv", "math.divide"), ("Multiply", "math.multiply")
_SHIFT = ("Subtract", "Add", "math.subtract", "math.add", "nn.bias_add", "__operators__.add")
_LONGEST_NAME, _LARGEST_NUMBER = 100, 1e12
_RAW, _UNIT = [0, 255], [0, 1]
_SMALLEST_FOR_UNIT, _LARGEST_FOR_RAW = 0.5, 0.02
"""Scales: one below 1/50 is for pixels as they are (1/255, 1/127.5), one above 1/2 for pixels in [0, 1]."""
_SHIFT_OF_RAW = 1.6
"""Means and offsets beyond it are of pixels as they are."""
LEARNED = "Normalization"


@dataclass(frozen=True)
class Pixels:
    """What the pixel values 0 and 255 are to the model, as `input.range`; `by`: the layer that tells so. None: it
    does not. `by` alone is LEARNED where a Normalization layer's means, which are among the weights, would tell."""

    range: list[int] | None
    by: str


@dataclass(frozen=True)
class Described:
    """`lambdas` are names of layers, `custom` names of classes and functions that are not Keras' own."""

    version: str
    shape: tuple[int | None, ...] | None
    pixels: Pixels | None
    lambdas: tuple[str, ...]
    custom: tuple[str, ...]

    @property
    def keras(self) -> int:
        """The generation of Keras that loads it: 2 or 3."""
        return 3 if self.version.startswith("3.") else 2


def describe(name: str, text: str, version: str) -> Described:
    """Read a configuration, which is `text`; `name` is the model file's, for errors. Raises ModelError."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name}: its configuration is not JSON ({type(error).__name__}: {error!s:.200})") from None
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise ModelError(f"{name}: its configuration does not say which class of Keras the model is")
    try:
        return _described(name, config, version)
    except RecursionError:
        raise ModelError(f"{name}: its configuration is nested deeper than any model's") from None


def _described(name: str, config: Mapping[str, Any], version: str) -> Described:
    objects = list(_objects(config, name))
    lambdas = [_name(each) for each in objects if _is_lambda(each)]
    custom = {_text(each.get("registered_name") or each["class_name"]) for each in objects if _is_custom(each)}
    custom |= {_text(each["config"]) for each in objects if _is_function(each)}
    first = _first_layers(config)
    shape = next((_shape(layer) for layer in first if _shape(layer)), None)
    return Described(version, shape, _pixels(first), tuple(lambdas), tuple(sorted(custom)))


def means_tell(means: Sequence[float]) -> list[int] | None:
    """The range of the pixels of which these are the means: a Normalization layer's."""
    if not means or min(means) < 0:
        return None
    return _RAW if max(means) > _SHIFT_OF_RAW else _UNIT if max(means) < 1 else None


def _objects(config: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """Every object of a class in it, at any depth."""
    waiting, seen = [config], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise ModelError(f"{name}: its configuration holds more than {_MOST_VALUES} values, the most that are read")
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield value
            # Losses, metrics and optimizers take no part in answering, and are not loaded.
            waiting += [below for key, below in value.items() if key != "compile_config"]
        elif isinstance(value, list):
            waiting += value


def _is_lambda(node: Mapping[str, Any]) -> bool:
    config = node.get("config")
    if node["class_name"] in ("Lambda", "__lambda__"):
        # of a layer and its function, the layer
        return node["class_name"] == "Lambda" or "code" not in (config if isinstance(config, dict) else {})
    return isinstance(config, dict) and config.get("function_type") == "lambda"


def _is_custom(node: Mapping[str, Any]) -> bool:
    if "module" not in node or node["class_name"].startswith("__") or node["class_name"] == "function":
        return False  # of an older file, where Keras itself must tell, or of no class
    module = node["module"]
    if not isinstance(module, str):
        return True
    return module != "builtins" and not any(module == own or module.startswith(f"{own}.") for own in _OWN_MODULES)


def _is_function(node: Mapping[str, Any]) -> bool:
    return node["class_name"] == "function" and node.get("module") == "builtins" and isinstance(node.get("config"), str)


def _name(layer: Mapping[str, Any]) -> str:
    config = layer.get("config")
    named = config.get("name") if isinstance(config, dict) else None
    return _text(named or layer.get("name") or layer["class_name"])


def _text(value: object) -> str:
    return "".join(character if character.isprintable() else "?" for character in str(value)[:_LONGEST_NAME])


def _layers(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else inner  # an old Sequential is a list
    return [layer for layer in layers if isinstance(layer, dict) and isinstance(layer.get("class_name"), str)] \
        if isinstance(layers, list) else []  # fmt: skip


def _first_layers(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The layers that an image passes one after the other, until it could take several ways."""
    layers: list[Mapping[str, Any]] = []
    for layer in _chain(config):
        below = _first_layers(layer) if _layers(layer) else [layer]
        layers += below
    return layers


def _chain(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    layers = _layers(config)
    if "Sequential" in config["class_name"] or not any(layer.get("inbound_nodes") for layer in layers):
        return layers
    chain = [layer for layer in layers if not layer.get("inbound_nodes")][:2]
    if len(chain) != 1:
        return []
    sources = {id(layer): set(_sources(layer.get("inbound_nodes"))) for layer in layers}
    while len(chain) < _LONGEST_CHAIN:
        named = chain[-1].get("name")
        name = named if isinstance(named, str) else _name(chain[-1])
        following = [layer for layer in layers if name in sources[id(layer)]]
        if len(following) != 1:
            break
        chain.append(following[0])
    return chain


def _sources(node: Any) -> Iterator[str]:
    """Names of the layers whose outputs a layer takes. Keras 3: {"keras_history": [name, 0, 0]}; Keras 2:
    [name, 0, 0, {...}]."""
    if isinstance(node, dict):
        history = node.get("keras_history")
        if isinstance(history, list) and history and isinstance(history[0], str):
            yield history[0]
        for value in node.values():
            yield from _sources(value)
    elif isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and all(isinstance(index, int) for index in node[1:3]):
            yield node[0]
        for value in node:
            yield from _sources(value)


def _shape(layer: Mapping[str, Any]) -> tuple[int | None, ...] | None:
    config = layer.get("config")
    config = config if isinstance(config, dict) else {}
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    if not isinstance(shape, list) or not all(size is None or type(size) is int for size in shape):
        return None
    return tuple(shape)


def _pixels(layers: Sequence[Mapping[str, Any]]) -> Pixels | None:
    """What the first layer tells that changes pixel values."""
    for layer in layers:
        kind, config = layer["class_name"], layer.get("config")
        config = config if isinstance(config, dict) else {}
        if kind == "TFOpLambda":
            kind = str(config.get("function"))
        scale = _largest(config.get("scale"))
        is_without_effect = kind == "Rescaling" and scale == 1 and not _largest(config.get("offset"))
        if kind in _PASSES or kind.startswith("Random") or is_without_effect:
            continue
        if kind == "Rescaling":
            return _scaled(scale, _largest(config.get("offset")), f"Rescaling({scale:.6g})")
        if kind == LEARNED:
            learned = means_tell(list(_numbers(config.get("mean"))))
            return Pixels(learned, LEARNED)
        return _by_operation(kind, _largest([layer.get("inbound_nodes"), config.get("y"), config.get("bias")]))
    return None


def _by_operation(kind: str, value: float) -> Pixels | None:
    """What an operation with this constant tells; 0 where it has none."""
    if not value:
        return None
    if kind in _DIVIDE:
        return _scaled(1 / value, 0, f"division by {value:.6g}")
    if kind in _MULTIPLY:
        return _scaled(value, 0, f"multiplication by {value:.6g}")
    return Pixels(_RAW, f"shift by {value:.6g}") if kind in _SHIFT and value > _SHIFT_OF_RAW else None


def _scaled(scale: float, offset: float, by: str) -> Pixels | None:
    if 0 < scale <= _LARGEST_FOR_RAW or (scale == 1 and offset > _SHIFT_OF_RAW):
        return Pixels(_RAW, by)
    return Pixels(_UNIT, by) if scale >= _SMALLEST_FOR_UNIT else None


def _largest(value: Any) -> float:
    return max((abs(number) for number in _numbers(value)), default=0.0)


def _numbers(value: Any) -> Iterator[float]:
    """The numbers in it that are no shapes, places of tensors or settings of them."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key not in ("keras_history", "shape", "dtype", "axis", "build_config"):
                yield from _numbers(below)
    elif isinstance(value, list):
        is_place = len(value) >= 3 and isinstance(value[0], str)  # [name, node, tensor, {...}]
        for below in value[3:] if is_place else value:
            yield from _numbers(below)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield max(-_LARGEST_NUMBER, min(_LARGEST_NUMBER, value))
