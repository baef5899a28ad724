"""What looking at a state identifier's model tells (child_tasks.inspect_model, prepare), as it is believed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgepack_assets.model_types.state_identifier.scoring import FIXED_COLUMNS
from edgepack_assets.runtime.told import Text, Told

_Count = Annotated[int, Field(ge=1, le=100_000)]
_Rows = Annotated[int, Field(ge=1, le=1 << 31)]


class _Component(Told):
    """What the component must know to load the model."""

    input: Literal["array", "frame"]
    trusted_types: Annotated[list[Text], Field(max_length=1000)] | None = None


class Inspection(Told):
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

    @model_validator(mode="after")
    def _names_are_columns(self) -> Inspection:
        names = set(self.feature_names)
        if len(names) != self.features or len(self.feature_names) != self.features or names & set(FIXED_COLUMNS):
            raise ValueError(f"the names of {self.features} features are not as many different ones")
        return self
