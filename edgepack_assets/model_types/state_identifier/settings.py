"""A state identifier's own settings: which column of its model is which variable of the payload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgepack_assets.config.section import Section
from edgepack_assets.model_types.state_identifier.state_names import StateNames

PHASES = ("ph1", "ph2", "ph3")
"""The variables of a state identifier's payload."""
_Phase = Literal["ph1", "ph2", "ph3"]
_LONGEST = 500
ModelColumns = Mapping[str, str] | tuple[str, ...]
"""The model's column -> the payload's variable, in the model's order, for a model that was fitted on a frame; or the
payload's variables in the order in which they stand in the model's array."""


def read_model_columns(value: object) -> ModelColumns | None:
    """A mapping of names to ph1, ph2 and ph3, or a list of these. Raises ValueError."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str) or not 0 < len(name) <= _LONGEST:
                raise ValueError(f"a column's name is text of at most {_LONGEST} characters, in quotes if need be")
    elif not isinstance(value, (list, tuple)):
        raise ValueError("must map the model's columns to the payload's, {L1: ph1, ...}, or list these in an order")
    phases = list(value.values() if isinstance(value, Mapping) else value)
    if sorted(map(str, phases)) != list(PHASES):
        raise ValueError(f"must name each of {', '.join(PHASES)} exactly once")
    return dict(value) if isinstance(value, Mapping) else tuple(phases)


class StateIdentifierSettings(Section):
    """`columns`: how the model calls its columns, or their order; what is not named is found out."""

    columns: Annotated[
        ModelColumns | None,
        BeforeValidator(read_model_columns, json_schema_input_type=dict[str, _Phase] | list[_Phase] | None),
    ] = Field(
        default=None,
        description="State identifier: which column of the model is which of the payload's, or their order.",
    )
    state_names: StateNames = Field(
        default_factory=dict, description="State identifier: number of a state and its name, such as {0: idle}."
    )
