"""An image classifier's own settings: how an image becomes the model's input, and which output holds the scores.

component/preprocessing.py does what is configured of the input; component_onnx/ what else an .onnx file needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from edgepack_assets.config.section import Count, Number, Section
from edgepack_assets.model_types.image_classification.image_sets import FORMATS
from edgepack_assets.model_types.keras_models.settings import Conversion

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # torchvision's and timm's usual evaluation transform: Resize(256), CenterCrop(224), Normalize for 224 pixels
    "imagenet": {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "channel_order": "rgb",
        "resize": "crop",
        "crop_fraction": 0.875,
        "interpolation": "bilinear",
    },
}


def _preset(value: object) -> object:
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(f"no such preset; there is {', '.join(PRESETS)}; or write a mapping")
        return PRESETS[value]
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _one_or_three(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(values) not in (1, 3):
        raise ValueError(f"must be 1 number, or 3 (one for each channel), not {len(values)}")
    return values


def _two(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) != 2 or values[0] >= values[1]:
        raise ValueError("must be two numbers, what black and white become, the lower one first, such as [0, 1]")
    return values


def _as_pair(value: object) -> object:
    return [value, value] if isinstance(value, int) and not isinstance(value, bool) else value


def _height_and_width(values: tuple[int, ...]) -> tuple[int, ...]:
    if len(values) != 2:
        raise ValueError("must be one number, or two: [height, width]")
    return values


def _positive(values: tuple[float, ...]) -> tuple[float, ...]:
    if min(values) < 1e-6:
        raise ValueError("each must be above 0 (at least 0.000001)")
    return values


_Small = Annotated[Number, Field(ge=-1e6, le=1e6)]
_Range = Annotated[tuple[_Small, ...], AfterValidator(_two)]
_Channels = Annotated[
    tuple[_Small, ...],
    BeforeValidator(_as_list, json_schema_input_type=_Small | list[_Small]),
    AfterValidator(_one_or_three),
]
_Side = Annotated[Count, Field(ge=1, le=20_000)]
_Size = Annotated[
    tuple[_Side, ...],
    BeforeValidator(_as_pair, json_schema_input_type=_Side | list[_Side]),
    AfterValidator(_height_and_width),
]
_Level = Annotated[Count, Field(ge=0, le=255)]
_Colour = Annotated[
    tuple[_Level, ...],
    BeforeValidator(_as_list, json_schema_input_type=_Level | list[_Level]),
    AfterValidator(_one_or_three),
]


class ImageInputSettings(Section):
    """How an image becomes the model's input. A key that is not set is read from the model's metadata, else assumed."""

    range: _Range | None = Field(default=None, description="What the pixel values 0 and 255 become, e.g. [-1, 1].")
    mean: _Channels | None = Field(
        default=None,
        description="With std, in place of range: (pixel / 255 - mean) / std. One number, or one for each channel.",
    )
    std: Annotated[_Channels, AfterValidator(_positive)] | None = Field(
        default=None, description="See mean. One number, or one for each channel in the order of channel_order."
    )
    channel_order: Literal["rgb", "bgr"] | None = Field(default=None, description="Order of the colour channels.")
    resize: Literal["squeeze", "crop", "letterbox"] | None = Field(
        default=None,
        description="squeeze: scale to the model's size. crop: cover the size, then cut out the centre. "
        "letterbox: fit into the size, on a ground of one colour.",
    )
    shorter_side: Annotated[Count, Field(ge=1, le=20_000)] | None = Field(
        default=None, description="With crop: the image's shorter side in pixels before the centre is cut out."
    )
    crop_fraction: Annotated[Number, Field(ge=0.1, le=1)] | None = Field(
        default=None,
        description="With crop, in place of shorter_side: the part of the shorter side that is kept (timm's crop_pct).",
    )
    fill: _Colour | None = Field(
        default=None, description="With letterbox: the colour around the image, one number or [red, green, blue]."
    )
    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] | None = Field(
        default=None, description="Pillow's filter for scaling."
    )
    size: _Size | None = Field(
        default=None,
        description="Height and width in pixels, of an .onnx model whose input does not fix them: [224, 224].",
    )

    @model_validator(mode="after")
    def _keys_go_together(self) -> ImageInputSettings:
        if self.range is not None and (self.mean is not None or self.std is not None):
            raise ValueError("name range, or mean and std, not both")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together; with no mean write mean: 0, with no std write std: 1")
        if self.shorter_side is not None and self.crop_fraction is not None:
            raise ValueError("name shorter_side or crop_fraction, not both")
        if self.resize != "crop" and (self.shorter_side is not None or self.crop_fraction is not None):
            raise ValueError("shorter_side and crop_fraction go with resize: crop")
        if self.resize != "letterbox" and self.fill is not None:
            raise ValueError("fill goes with resize: letterbox")
        if not self.model_fields_set:
            raise ValueError(
                "is empty; name range or mean and std, channel_order, resize, interpolation, size, or a preset"
            )
        return self

    @property
    def given(self) -> dict[str, Any]:
        """What is configured of the way from an image to the model's input, in JSON. `size` is no part of it: the
        model's input has one, or gets it (model_files.py)."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"size"})


ImageInput = Annotated[
    ImageInputSettings, BeforeValidator(_preset, json_schema_input_type=Literal["imagenet"] | ImageInputSettings)
]


class OutputSettings(Section):
    """Which output holds the scores, what kind they are, and how many."""

    name: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="Of an .onnx model with several outputs: the one with a score for each class."
    )
    scores: Literal["probabilities", "logits"] | None = Field(
        default=None,
        description="probabilities: the model ends with a softmax or sigmoid. logits: the component does the softmax. "
        "If not set, the model's last operation says it, else its answers to test images.",
    )
    classes: Annotated[Count, Field(ge=2, le=1_000_000)] | None = Field(
        default=None,
        description="How many classes the model tells apart, where the raw data has images of fewer. If not set, that "
        "is as many as there are labels.",
    )

    @model_validator(mode="after")
    def _is_not_empty(self) -> OutputSettings:
        if not self.model_fields_set:
            raise ValueError("is empty; set name, scores or classes")
        return self


class TensorRtSettings(Section):
    """The parameters of the TensorRT accelerator that the SDK allows, under the SDK's names."""

    precision_mode: Literal["FP32", "FP16"] = Field(default="FP32", description="Numbers that the GPU computes with.")
    max_cached_engines: Annotated[Count, Field(ge=1, le=1000)] | None = Field(
        default=None, description="How many engines are kept in the cache."
    )
    minimum_segment_size: Annotated[Count, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="The fewest nodes of the model that become an engine of their own."
    )
    max_workspace_size_bytes: Annotated[Count, Field(ge=1)] | None = Field(
        default=None, description="The most memory that an engine may use while it works."
    )
    trt_engine_cache_enable: bool | None = Field(
        default=None, description="Whether engines are kept: building one takes minutes. Default of the SDK: true."
    )
    trt_engine_cache_path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]{1,200}$")] | None = Field(
        default=None, description="The folder on the server where engines are kept. Default of the SDK: /tmp/triton."
    )


class GpuSettings(Section):
    """How the server's GPU runtime runs the model."""

    max_batch_size: Annotated[Count, Field(ge=1, le=1024)] = Field(
        default=1,
        description="The most images of one record that the model gets at once. Above 1 it must have been exported "
        "with a batch of any size.",
    )
    warmup: bool = Field(default=False, description="Whether the server runs the model once on zeros when it starts.")
    tensorrt: TensorRtSettings | None = Field(
        default=None, description="Speed the model up with TensorRT, with these parameters. Default: without."
    )


class ImageClassificationSettings(Section):
    """`input`: how an image enters the model; what is not named is taken from its metadata, else assumed. `output`:
    what of the model's outputs is read, and how. `conversion`: how a Keras or TensorFlow model becomes TensorFlow
    Lite. `runtime`, `gpu`: what of the server runs the model."""

    input: ImageInput | None = Field(default=None, description="Image classifier: how an image becomes its input.")
    output: OutputSettings | None = Field(default=None, description="Image classifier: which output holds the scores.")
    conversion: Conversion | None = Field(
        default=None, description="Image classifier: how a Keras or TensorFlow model becomes TensorFlow Lite."
    )
    runtime: Literal["python", "gpu"] = Field(
        default="python",
        description="Image classifier: what of the server runs the model. python: the package's own Python component. "
        "gpu: the server's GPU runtime, which takes .onnx files; the package has three components then.",
    )
    gpu: GpuSettings | None = Field(default=None, description="With runtime: gpu: how the model runs there.")
    payload: Literal["json", "image_set"] = Field(
        default="json",
        description="Image classifier: how images reach the package. json: text with a PNG or JPEG. image_set: the AI "
        "SDK's ImageSet, as the Vision Connector sends it; the package takes json as well.",
    )
    image_format: Literal[FORMATS] | None = Field(  # type: ignore[valid-type]
        default=None, description="With image_set: the format of the camera. Default: the data asset's tag, else RGB8."
    )

    @model_validator(mode="after")
    def _gpu_goes_with_its_runtime(self) -> ImageClassificationSettings:
        if self.gpu is not None and self.runtime != "gpu":
            raise ValueError("gpu goes with runtime: gpu")
        return self

    @model_validator(mode="after")
    def _format_goes_with_image_sets(self) -> ImageClassificationSettings:
        if self.image_format is not None and self.payload != "image_set":
            raise ValueError("image_format goes with payload: image_set")
        return self

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that are configured."""
        size = None if self.input is None else self.input.size
        return None if size is None else (size[0], size[1])

    @property
    def given(self) -> dict[str, Any]:
        """What is configured under `input`, but for the size."""
        return {} if self.input is None else self.input.given
