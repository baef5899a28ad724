"""What looking at an image classifier's model tells (child_tasks.inspect_model), as it is believed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgepack_assets.runtime.told import Text, Told

_Size = Annotated[int, Field(ge=1, le=100_000)]
_Shape = Annotated[list[int | Text | None], Field(max_length=16)]


class _Quantization(Told):
    scale: float
    zero_point: int


class _Input(Told):
    """How the model takes an image; `black` and `white` are what its levels are turned into."""

    name: Text
    shape: _Shape
    layout: Text
    type: Text
    height: _Size
    width: _Size
    channels: Annotated[int, Field(ge=1, le=4)]
    quantization: _Quantization | None
    black: int | float
    white: int | float


class _Output(Told):
    name: Text
    shape: _Shape
    type: Text
    classes: Annotated[int, Field(ge=2, le=1_000_000)]
    quantization: _Quantization | None
    scores: Text


class _Component(Told):
    """What the component need not find out again."""

    scores: Text


class Inspection(Told):
    """The model's runtime, its input and its output."""

    runtime: Text
    input: _Input
    output: _Output
    component: _Component
