"""The base class of every section of edgepack.yaml, and types of values that several sections use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A section of edgepack.yaml: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _no_boolean(value: object) -> object:
    # YAML reads `yes` and `on` as true, which would pass for the number 1.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Number = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_no_boolean)]
OptionalText = Annotated[str | None, AfterValidator(lambda text: text or None)]
OptionalPath = Annotated[Path | None, BeforeValidator(lambda path: None if path == "" else path)]
"""Optional values: an empty one, as `${NAME:-}` gives, counts as not set."""
