"""What looking at a state identifier's model tells (child_tasks.inspect_model, prepare), as it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from edgepack_assets.model_types.state_identifier.payload import COLUMNS
from edgepack_assets.model_types.state_identifier.scoring import FIXED_COLUMNS
from edgepack_assets.model_types.state_identifier.state_names import MOST_NAMES, StateName
from edgepack_assets.sandbox.child_output import printable
from edgepack_assets.sandbox.untrusted_values import Text, UntrustedReport

_Count = Annotated[int, Field(ge=1, le=100_000)]
_Rows = Annotated[int, Field(ge=1, le=1 << 31)]


def _unchanged(name: str) -> str:
    if printable(name) != name:
        raise ValueError("a column's name holds characters that cannot be shown: train the model with another one")
    return name


_ColumnName = Annotated[str, StringConstraints(max_length=500), AfterValidator(_unchanged)]
"""A name that the model is given back as it is, so not one that is made printable."""


class _Component(UntrustedReport):
    """What the component must know to load the model and to feed it: `columns` are the payload's variables in the
    model's own order, `names` what the model calls them (only for a frame)."""

    input: Literal["array", "frame"]
    columns: Annotated[list[Text], Field(max_length=len(COLUMNS))]
    names: Annotated[list[_ColumnName], Field(max_length=len(COLUMNS))] | None = None
    trusted_types: Annotated[list[Text], Field(max_length=1000)] | None = None

    @model_validator(mode="after")
    def _columns_are_those_of_the_payload(self) -> _Component:
        if sorted(self.columns) != sorted(COLUMNS):
            raise ValueError(f"columns are not {', '.join(COLUMNS)} in some order")
        if (self.names is not None) != (self.input == "frame") or len(set(self.names or COLUMNS)) != len(COLUMNS):
            raise ValueError("a frame has a different name for each column, an array has none")
        return self


class Inspection(UntrustedReport):
    """Windows in records, features, clusters, and how the component takes a window."""

    window_size: _Rows
    window_step: _Rows
    steps: Annotated[list[Text], Field(max_length=1000)]
    features: _Count
    feature_names: list[Text]
    clusters: _Count
    clustering: Text
    inertia: Annotated[float, Field(allow_inf_nan=False)]
    fills_missing_values: bool
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
            raise ValueError(f"the names of {self.features} features are not as many different ones")
        return self


def component_settings(inspection: Mapping[str, Any]) -> Mapping[str, Any]:
    """What model.json gets of an inspection."""
    settings: Mapping[str, Any] = inspection["component"]
    return settings
