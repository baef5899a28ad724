"""The shape of what child_tasks.inspect_model returns of a state identifier's model, and what follows from it: whether
the model is as configured, and which metrics it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.model_types.state_identifier.scoring import FIXED_COLUMNS, metrics_of
from edgepack_assets.model_types.state_identifier.settings import (
    MOST_CHANNELS,
    PERIOD_MS,
    PHASES,
    StateIdentifierSettings,
)
from edgepack_assets.model_types.state_identifier.state_names import MOST_NAMES, StateName
from edgepack_assets.sandbox.child_output import printable
from edgepack_assets.sandbox.untrusted_values import Text, UntrustedReport
from edgepack_assets.text_format import counted

_Count = Annotated[int, Field(ge=1, le=100_000)]
_Rows = Annotated[int, Field(ge=1, le=1 << 31)]


def _unchanged(name: str) -> str:
    if printable(name) != name:
        raise ValueError("a column's name holds characters that cannot be shown: train the model with another one")
    return name


_ColumnName = Annotated[str, StringConstraints(max_length=500), AfterValidator(_unchanged)]
"""A name that the model is given back as it is, so not one that is made printable."""


class _Windows(UntrustedReport):
    """A window's length and the distance to the next, in records."""

    size: _Rows
    step: _Rows


class _Component(UntrustedReport):
    """What the component must know to load the model and to feed it: `columns` are the payload's variables in the
    model's own order, `names` what the model calls them (only for a frame). The others are for general_inference.py,
    and only there where it ships."""

    input: Literal["array", "frame"]
    columns: Annotated[list[Text], Field(max_length=MOST_CHANNELS)]
    names: Annotated[list[_ColumnName], Field(max_length=MOST_CHANNELS)] | None = None
    trusted_types: Annotated[list[Text], Field(max_length=1000)] | None = None
    channels: Annotated[list[Text], Field(max_length=MOST_CHANNELS)] | None = None
    windows: _Windows | None = None
    estimator: _ColumnName | None = None
    classes: Annotated[list[_ColumnName], Field(max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _columns_are_those_of_the_payload(self) -> _Component:
        channels = list(PHASES) if self.channels is None else self.channels
        if sorted(self.columns) != sorted(channels):
            raise ValueError(f"columns are not {', '.join(channels)} in some order")
        if (self.names is not None) != (self.input == "frame") or len(set(self.names or channels)) != len(channels):
            raise ValueError("a frame has a different name for each column, an array has none")
        if len({self.channels is None, self.windows is None, self.estimator is None}) > 1:
            raise ValueError("channels, windows and estimator come together")
        if self.classes is not None and self.estimator is None:
            raise ValueError("classes without an estimator")
        return self


class _Mixture(UntrustedReport):
    """What the BIC of a mixture needs; a Bayesian mixture has none."""

    free_parameters: _Count | None = None


_State = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]


class Inspection(UntrustedReport):
    """Windows in records, features, states, and how the component takes a window.

    `clusters` is the number of states, None where the model does not tell. `states` are there if they are not 0 to
    `clusters` - 1. `classes` are a classifier's, in the order of the states."""

    window_size: _Rows
    window_step: _Rows
    steps: Annotated[list[Text], Field(max_length=1000)]
    features: _Count
    feature_names: list[Text]
    clusters: _Count | None = None
    clustering: Text
    inertia: Annotated[float, Field(allow_inf_nan=False)] | None = None
    fills_missing_values: bool
    period_ms: _Count | None = None
    states: Annotated[list[_State], Field(max_length=10_000)] | None = None
    classes: Annotated[list[_ColumnName], Field(max_length=10_000)] | None = None
    mixture: _Mixture | None = None
    component: _Component
    state_names: (
        Annotated[
            dict[Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,9}$")], StateName], Field(max_length=MOST_NAMES)
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _names_are_columns(self) -> Inspection:
        names = set(self.feature_names)
        if len(names) != self.features or len(self.feature_names) != self.features or names & set(FIXED_COLUMNS):
            raise ValueError(f"the names of {counted(self.features, 'feature')} are not as many different ones")
        return self

    @model_validator(mode="after")
    def _states_are_counted(self) -> Inspection:
        for listed in (self.states, self.classes):
            if listed is not None and (len(listed) != self.clusters or len(set(listed)) != len(listed)):
                raise ValueError(f"{self.clusters} states are not as many different ones")
        if self.component.classes not in (None, self.classes):
            raise ValueError("the component has other classes than the model")
        return self


def channels_of(inspection: Mapping[str, Any]) -> tuple[str, ...]:
    """The inputs of the package."""
    return tuple(inspection["component"].get("channels") or PHASES)


def period_of(inspection: Mapping[str, Any]) -> int:
    """Milliseconds from one record to the next."""
    return int(inspection.get("period_ms") or PERIOD_MS)


def seconds_of(records: int, period_ms: int) -> str:
    """A number of records as a time."""
    return f"{records * period_ms / 1000:g} s"


def inspection_rows(inspection: Mapping[str, Any], entry: ModelTypeSettings) -> list[CheckRow]:
    """Rows of config_package.is_fit: the channels and the period are those of the configuration, and each gate is on a
    metric that the model has."""
    settings: StateIdentifierSettings = entry.settings
    channels, period = channels_of(inspection), period_of(inspection)
    rows = []
    if "channels" in inspection["component"] or settings.channels != PHASES:
        rows.append(
            CheckRow("channels", channels == settings.channels, ", ".join(channels), ", ".join(settings.channels))
        )
    if period != PERIOD_MS or settings.sampling_period_ms != PERIOD_MS:
        rows.append(
            CheckRow("sampling period", period == settings.sampling_period_ms, f"{period} ms",
                     f"{settings.sampling_period_ms} ms")
        )  # fmt: skip
    known = metrics_of(inspection, settings)
    rows += [
        CheckRow(f"gate on {name}", False, f"{inspection['clustering']} has no {name}",
                 f"a gate on one of {', '.join(sorted(known))}")
        for name in sorted(entry.gates.keys() - known)
    ]  # fmt: skip
    return rows


def component_settings(inspection: Mapping[str, Any]) -> Mapping[str, Any]:
    """What model.json gets of an inspection."""
    settings: Mapping[str, Any] = inspection["component"]
    return settings
