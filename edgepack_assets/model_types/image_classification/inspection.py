"""The shape of what child_tasks.inspect_model returns of an image classifier's model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgepack_assets.sandbox.untrusted_values import Text, UntrustedReport

_Size = Annotated[int, Field(ge=1, le=100_000)]
_Shape = Annotated[list[int | Text | None], Field(max_length=16)]


class _Quantization(UntrustedReport):
    scale: float
    zero_point: int


_Number = Annotated[float, Field(allow_inf_nan=False)]
_ForChannels = Annotated[list[_Number], Field(min_length=1, max_length=3)]
_Level = Annotated[int, Field(ge=0, le=255)]


class _Preprocessing(UntrustedReport):
    """What is configured, or known from the model's metadata; as in ImageInputSettings."""

    range: Annotated[list[_Number], Field(min_length=2, max_length=2)] | None = None
    mean: _ForChannels | None = None
    std: _ForChannels | None = None
    channel_order: Literal["rgb", "bgr"] | None = None
    resize: Literal["squeeze", "crop", "letterbox"] | None = None
    shorter_side: _Size | None = None
    crop_fraction: _Number | None = None
    fill: Annotated[list[_Level], Field(min_length=1, max_length=3)] | None = None
    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] | None = None


class _Metadata(UntrustedReport):
    source: Text | None
    input: _Preprocessing
    labels: Annotated[int, Field(ge=0, le=10_000_000)] | None
    notes: Annotated[list[Text], Field(max_length=10)]


class _Input(UntrustedReport):
    """How the model takes an image; `black` and `white` are what its levels are turned into: one number, or one for
    each channel."""

    name: Text
    shape: _Shape
    layout: Text
    type: Text
    height: _Size
    width: _Size
    channels: Annotated[int, Field(ge=1, le=4)]
    quantization: _Quantization | None
    black: int | float | _ForChannels
    white: int | float | _ForChannels
    preprocessing: _Preprocessing
    metadata: _Metadata


class _Output(UntrustedReport):
    name: Text
    shape: _Shape
    type: Text
    classes: Annotated[int, Field(ge=2, le=1_000_000)]
    classes_are_configured: bool = False
    quantization: _Quantization | None
    scores: Literal["probabilities", "logits"]
    scores_are: Text = ""
    sums_to_one: bool = False
    within_one: bool = False
    never_negative: bool
    unit_length: bool = False


class _Component(UntrustedReport):
    """What the component need not find out again."""

    scores: Text
    input: _Preprocessing


class _Gpu(UntrustedReport):
    """What the GPU runtime must know: the shape of the output for one image."""

    answer_shape: Annotated[list[_Size], Field(min_length=1, max_length=8)]


class Inspection(UntrustedReport):
    """The model's runtime, the size of the component's files, the model's input and its output."""

    runtime: Text
    bytes: Annotated[int, Field(ge=0)]
    input: _Input
    output: _Output
    component: _Component
    payload: Literal["json", "image_set"] | None = None
    gpu: _Gpu | None = None
