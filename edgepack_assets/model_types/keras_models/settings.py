"""How a Keras or TensorFlow model is converted, and how far its answers may change by that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from edgepack_assets.config.section import Count, Number, Section

Target = Literal["float", "float16", "dynamic_range", "full_integer"]


class _Allowed:
    """What an option changes at most, by default: `tolerance` of a probability, `changed` as a share of answers."""

    def __init__(self, tolerance: float, changed: float) -> None:
        self.tolerance, self.changed = tolerance, changed


DEFAULTS: Mapping[str, _Allowed] = {
    "float": _Allowed(0.001, 0.0),
    "float16": _Allowed(0.02, 0.01),
    "dynamic_range": _Allowed(0.1, 0.02),
    "full_integer": _Allowed(0.25, 0.05),
}


def _mapping(value: object) -> object:
    return {"to": value} if isinstance(value, str) else value


class ConversionSettings(Section):
    """How a Keras or TensorFlow model becomes TensorFlow Lite."""

    to: Target = Field(
        default="float",
        description="Numbers of the converted model: float (32 bits), float16 (weights of 16 bits), dynamic_range "
        "(weights of 8 bits), full_integer (weights and calculation of 8 bits).",
    )
    tolerance: Annotated[Number, Field(ge=0, le=1)] | None = Field(
        default=None, description="By how much a probability may differ from the original model's. Default: by `to`."
    )
    max_changed: Annotated[Number, Field(ge=0, le=1)] | None = Field(
        default=None, description="The share of the payload's answers that may change. Default: by `to`."
    )
    representative_records: Annotated[Count, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="With full_integer: records of the raw data that it is calibrated with. Default: 100."
    )
    signature: str = Field(
        default="serving_default", min_length=1, max_length=200, description="Of a SavedModel: what is called."
    )
    allow_lambda: bool = Field(
        default=False, description="Run the Python code in a Keras model's Lambda layers, in the sandbox."
    )

    @model_validator(mode="after")
    def _keys_go_together(self) -> ConversionSettings:
        if self.representative_records is not None and self.to != "full_integer":
            raise ValueError("representative_records goes with to: full_integer")
        return self

    @property
    def records(self) -> int:
        """How many records a full integer conversion is calibrated with."""
        return self.representative_records or 100

    @property
    def most_difference(self) -> float:
        """By how much a probability may differ."""
        return DEFAULTS[self.to].tolerance if self.tolerance is None else self.tolerance

    @property
    def most_changed(self) -> float:
        """The share of answers that may change."""
        return DEFAULTS[self.to].changed if self.max_changed is None else self.max_changed


Conversion = Annotated[
    ConversionSettings, BeforeValidator(_mapping, json_schema_input_type=Target | ConversionSettings)
]
