"""The variable types of the AI Inference Server: the Python values that each admits, and how bytes are written as JSON.

A part of child_main.py, which loads it by its path. The host uses it too, for payloads and results. Standard library
only. The types are those of simaticai's `supported_types`, and the shape of Object is what the SDK's pipeline runner
checks. That runner checks no more than String, StringArray and Object. The server does not convert what a component
gives, so here a number must also be in the range of its type.
"""

import base64
import functools
import json
import math
import re
import sys
from collections.abc import Callable
from typing import Any

_BYTES, _TENSOR = "$bytes", "$tensor"
"""Keys under which base64 text stands for bytes in JSON: {"$bytes": "AAE="}, and a numpy type for an array, with its
shape and its bytes beside it: {"$tensor": "float32", "shape": [1, 3], "data": "..."}."""
_LARGEST_FLOAT32 = float.fromhex("0x1.ffffffp+127")
"""From here on a number is rounded to infinity as a Float32."""
_SIZED = re.compile(r"(?P<kind>[A-Za-z0-9]+Array)\[(?P<size>[0-9]{1,9})\]")


def _is_integer(bits: int, signed: bool) -> "Callable[[Any], bool]":
    low, beyond = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value < beyond


def _is_number(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, float) or (whole and abs(value) <= sys.float_info.max)


def _is_float32(value: Any) -> bool:
    # An infinity or a NaN is refused elsewhere, with words of its own.
    return _is_number(value) and (abs(value) < _LARGEST_FLOAT32 or not math.isfinite(value))


def _is_object(value: Any) -> bool:
    """One text and one bytes, as the SDK's runner wants it: an image and what is known of it."""
    return isinstance(value, dict) and sorted(type(each).__name__ for each in value.values()) == ["bytes", "str"]


def _is_image_set(value: Any) -> bool:
    """The fields that the server requires; further ones are allowed."""
    images = value.get("detail") if isinstance(value, dict) else None
    return (
        isinstance(images, list)
        and all(isinstance(value.get(key), str) for key in ("version", "cameraid", "timestamp"))
        and all(isinstance(image, dict) and _is_image(image) for image in images)
    )


def _is_image(image: "dict[Any, Any]") -> bool:
    return (
        isinstance(image.get("id"), str)
        and _INTEGER(image.get("seq"))
        and isinstance(image.get("format"), str)
        and isinstance(image.get("image"), bytes)
    )


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _array_of(is_item: "Callable[[Any], bool]") -> "Callable[[Any], bool]":
    return lambda value: isinstance(value, list) and all(map(is_item, value))


_INTEGER = _is_integer(64, signed=True)
_SCALARS: "dict[str, Callable[[Any], bool]]" = {
    "Bool": _is_boolean,
    "Boolean": _is_boolean,
    "Integer": _INTEGER,
    **{f"Int{bits}": _is_integer(bits, signed=True) for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": _is_integer(bits, signed=False) for bits in (8, 16, 32, 64)},
    "Double": _is_number,
    "Float64": _is_number,
    "Float32": _is_float32,
    "String": lambda value: isinstance(value, str),
}
_CHECKS: "dict[str, Callable[[Any], bool]]" = {
    **_SCALARS,
    **{f"{kind}Array": _array_of(is_item) for kind, is_item in _SCALARS.items()},
    "Object": _is_object,
    "Binary": lambda value: isinstance(value, bytes),
    "ImageSet": _is_image_set,
}
TENSORS = {
    "Float32Array": "float32",
    "Float64Array": "float64",
    "BooleanArray": "bool",
    **{f"Int{bits}Array": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}Array": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
"""The types that a numpy array may have between two components, and the numpy type of each. The names are those that
the SDK gives to the tensors of a GPU component."""
TYPES = frozenset(_CHECKS)
"""The names of all types. An array may state its size: DoubleArray[3]."""
_WANTED = {
    "Object": "a dict of one str and one bytes",
    "Binary": "bytes",
    "ImageSet": "a dict with the str version, cameraid and timestamp, and the list detail of images, each a dict with "
    "the str id and format, the int seq and the bytes image",
}


@functools.cache
def check_of(kind: str) -> "Callable[[Any], bool]":
    """Whether a value is of the declared type `kind`, as a function. What has a type that the server does not know is
    not checked: the SDK allows that between components, and plug-ins are refused it before."""
    sized = _SIZED.fullmatch(kind)
    if sized is None:
        return _CHECKS.get(kind, lambda value: True)
    is_array, size = _CHECKS.get(sized["kind"], lambda value: True), int(sized["size"])
    return lambda value: is_array(value) and len(value) == size


def wanted(kind: str) -> str:
    """What a value of that type is, where its name does not say it, for an error message; else ""."""
    return f" ({_WANTED[kind]})" if kind in _WANTED else ""


class Tensor:
    """An array as it crosses the process border: the name of its numpy type, its shape, its bytes in C order."""

    def __init__(self, dtype: str, shape: "tuple[int, ...]", data: bytes) -> None:
        self.dtype, self.shape, self.data = dtype, shape, data

    def tobytes(self) -> bytes:
        """As an array of numpy has it."""
        return self.data


def is_tensor(value: Any, kind: str) -> bool:
    """Whether a value is an array of the numpy type that the declared type `kind` stands for."""
    return kind in TENSORS and _is_array(value) and str(value.dtype) == TENSORS[kind]


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or (type(value).__module__ == "numpy" and type(value).__name__ == "ndarray")


def to_json(value: Any, tensors: bool = False) -> str:
    """JSON text, with bytes as {"$bytes": base64}, and with `tensors` arrays as it stands above. Raises TypeError,
    ValueError or RecursionError where a value is none of JSON's, such as a NaN."""
    return json.dumps(value, allow_nan=False, default=_encoded_tensor if tensors else _encoded)


def from_json(text: "str | bytes", tensor: "Callable[[Tensor], Any] | None" = None) -> Any:
    """The value of a text that `to_json` wrote. `tensor` makes a value of each array; without it there are none.
    Raises ValueError or RecursionError if it is none."""
    has_bytes = (f'"{_BYTES}"' if isinstance(text, str) else f'"{_BYTES}"'.encode()) in text  # type: ignore[operator]
    if tensor is not None:
        return json.loads(text, object_hook=lambda members: _decoded_tensor(members, tensor))
    return json.loads(text, object_hook=_decoded) if has_bytes else json.loads(text)


def _encoded_tensor(value: Any) -> "dict[str, Any]":
    if not _is_array(value):
        return _encoded(value)
    data = base64.b64encode(value.tobytes()).decode()
    return {_TENSOR: str(value.dtype), "shape": list(value.shape), "data": data}


def _decoded_tensor(members: "dict[str, Any]", tensor: "Callable[[Tensor], Any]") -> Any:
    if members.keys() != {_TENSOR, "shape", "data"}:
        return _decoded(members)
    dtype, shape, text = members[_TENSOR], members["shape"], members["data"]
    if dtype not in _ITEM_SIZES or not isinstance(shape, list) or not isinstance(text, str):
        raise ValueError(f"{dtype!r:.20} is no type of an array")
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
        raise ValueError(f"{shape!r:.50} is no shape of an array")
    data = base64.b64decode(text, validate=True)
    if len(data) != math.prod(shape) * _ITEM_SIZES[dtype]:
        raise ValueError(f"an array of {dtype} of the shape {shape!r:.50} has {len(data)} bytes")
    return tensor(Tensor(dtype, tuple(shape), data))


_ITEM_SIZES = {
    name: 1 if name == "bool" else int(name.lstrip("abcdefghijklmnopqrstuvwxyz")) // 8 for name in TENSORS.values()
}


def _encoded(value: object) -> "dict[str, str]":
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _decoded(members: "dict[str, Any]") -> Any:
    text = members.get(_BYTES)
    if len(members) != 1 or not isinstance(text, str):
        return members
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"{text:.50} is no base64: {error}") from None
