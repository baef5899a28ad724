"""A state identifier's own settings: channels of the recording, how the model calls them, windows, labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from edgepack_assets.config.section import Count, Number, OptionalText, Section
from edgepack_assets.model_types.state_identifier.state_names import StateNames

PHASES = ("ph1", "ph2", "ph3")
"""The channels where the configuration names no others."""
PERIOD_MS = 250
"""A record every 250 ms where the configuration says nothing else."""
RESERVED_NAMES = frozenset({
    "timestamp", "prediction", "inertia", "state_name", "step_size",
    "model_input_min", "model_input_max", "model_input_mean",
    "envelope_distance", "envelope_outside", "envelope_missing",
})  # fmt: skip
"""Names that no channel may have: the server's own, and those of outputs, metrics and the parameter."""
MOST_CHANNELS = 64
_LONGEST = 500
_NAME = r"[A-Za-z0-9_-]{1,100}"
ModelColumns = Mapping[str, str] | tuple[str, ...]
"""The model's column -> the channel, in the model's order, for a model that was fitted on a frame; or the channels in
the order in which they stand in the model's array."""


def read_model_columns(value: object, channels: Sequence[str] = PHASES) -> ModelColumns | None:
    """A mapping of names to the channels, or a list of these. Raises ValueError."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str) or not 0 < len(name) <= _LONGEST:
                raise ValueError(f"a column's name is text of at most {_LONGEST} characters, in quotes if need be")
    elif not isinstance(value, (list, tuple)):
        raise ValueError("must map the model's columns to the payload's, {L1: ph1, ...}, or list these in an order")
    named = list(value.values() if isinstance(value, Mapping) else value)
    if sorted(map(str, named)) != sorted(channels):
        raise ValueError(f"must name each of {', '.join(channels)} exactly once")
    return dict(value) if isinstance(value, Mapping) else tuple(named)


def _channel(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"{name!r} can be no input of a pipeline: letters, digits, _ and - only")
    if name.lower() in RESERVED_NAMES:
        raise ValueError(f"{name!r} is taken, it may be no channel: {', '.join(sorted(RESERVED_NAMES))}")
    return name


def _channels(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"names {', '.join(twice)} twice")
    return names


class WindowSettings(Section):
    """Length of a window and distance from one to the next, in seconds or in records."""

    seconds: Number | None = Field(default=None, gt=0, description="Length of a window in seconds.")
    step_seconds: Number | None = Field(
        default=None, gt=0, description="Seconds from one window to the next. Default: its length."
    )
    records: Count | None = Field(default=None, ge=1, description="Length of a window in records.")
    step_records: Count | None = Field(
        default=None, ge=1, description="Records from one window to the next. Default: its length."
    )

    @model_validator(mode="after")
    def _in_one_unit(self) -> WindowSettings:
        if (self.seconds is None) == (self.records is None):
            raise ValueError("a window's length is given by seconds or by records")
        if self.seconds is None and self.step_seconds is not None:
            raise ValueError("step_seconds goes with seconds; for a length in records it is step_records")
        if self.records is None and self.step_records is not None:
            raise ValueError("step_records goes with records; for a length in seconds it is step_seconds")
        return self


_Channel = Annotated[
    str, AfterValidator(_channel), WithJsonSchema({"type": "string", "pattern": f"^{_NAME}$"}, mode="validation")
]


class StateIdentifierSettings(Section):
    """What is recorded, and how the model takes it; what is not named is found out."""

    channels: Annotated[
        tuple[_Channel, ...], Field(min_length=1, max_length=MOST_CHANNELS), AfterValidator(_channels)
    ] = Field(
        default=PHASES,
        description="State identifier: columns of the recording that are the inputs of the package.",
    )
    columns: Annotated[
        ModelColumns | None,
        BeforeValidator(lambda value: value, json_schema_input_type=dict[str, _Channel] | list[_Channel] | None),
    ] = Field(
        default=None,
        description="State identifier: which column of the model is which channel, or their order.",
    )
    state_names: StateNames = Field(
        default_factory=dict, description="State identifier: number of a state and its name, such as {0: idle}."
    )
    sampling_period_ms: Annotated[Count, Field(ge=1, le=86_400_000)] = Field(
        default=PERIOD_MS, description="State identifier: milliseconds from one record to the next."
    )
    timestamp_column: OptionalText = Field(
        default=None,
        description="State identifier: column of the recording with the time of each row, which is held to the "
        "sampling period.",
    )
    label_column: OptionalText = Field(
        default=None, description="State identifier: column of the recording with the true state of each row, if known."
    )
    windows: WindowSettings | None = Field(
        default=None, description="State identifier: length and distance of windows, where the model does not say them."
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _columns_are_the_channels(cls, value: Any, info: ValidationInfo) -> ModelColumns | None:
        # where the channels are wrong, that is said
        return read_model_columns(value, info.data["channels"]) if "channels" in info.data else None

    @model_validator(mode="after")
    def _time_and_label_are_no_channels(self) -> StateIdentifierSettings:
        for key in ("timestamp_column", "label_column"):
            if getattr(self, key) in self.channels:
                raise ValueError(f"{key}: {getattr(self, key)} is one of the channels")
        if self.timestamp_column is not None and self.timestamp_column == self.label_column:
            raise ValueError("timestamp_column and label_column are the same column")
        return self
