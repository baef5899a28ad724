"""Gates on metrics: bounds, references and how sure they must hold, as edgepack.yaml says them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from edgepack_assets.config.percentages import Tolerance, read_confidence, read_tolerance
from edgepack_assets.config.section import Number, Section
from edgepack_assets.partitions import is_version

STAGES = ("staging", "production")
"""What a package is used for: tried, or at work."""

_REFERENCES = "previous, training, staging, production or the number of a model version"
_Reference = Literal["previous", "training", "staging", "production"]


def _model_version(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    # A value from an environment variable is text.
    if isinstance(value, str) and is_version(value):
        return int(value)
    raise ValueError("a version is a whole number from 1 up")


def _reference(value: object) -> object:
    if value in ("previous", "training", *STAGES):
        return value
    try:
        return _model_version(value)
    except ValueError:
        raise ValueError(f"a reference is {_REFERENCES}") from None


_Tolerance = Annotated[
    Tolerance, BeforeValidator(read_tolerance, json_schema_input_type=Annotated[float, Field(ge=0)] | str)
]
_TooFew = Literal["pass", "warn", "fail"] | None


class SliceSettings(Section):
    """What a metric must hold in each part of the records, such as each class: the worst one decides."""

    min: Number | None = Field(default=None, description="Lowest value that passes in each part.")
    max: Number | None = Field(default=None, description="Highest value that passes in each part.")
    tolerance: _Tolerance | None = Field(
        default=None,
        description="How much worse than the package that the gate has as its reference the metric may be in each "
        "part, on the same records.",
    )
    too_few: _TooFew = Field(
        default=None,
        description="What happens if the records of a part are too few to tell at the gate's confidence. Default: fail "
        "for min and max, warn for a tolerance.",
    )

    @model_validator(mode="after")
    def _can_pass_and_fail(self) -> SliceSettings:
        if self.min is None and self.max is None and self.tolerance is None:
            raise ValueError("needs min, max or tolerance")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing could pass")
        return self


class GateSettings(Section):
    """What a metric must hold: bounds, both inclusive, and how much worse than a reference it may be.

    Which direction is worse depends on the metric; its model type knows.
    """

    min: Number | None = Field(default=None, description="Lowest value that passes.")
    max: Number | None = Field(default=None, description="Highest value that passes.")
    reference: Annotated[
        _Reference | int | None, BeforeValidator(_reference, json_schema_input_type=_Reference | int | None)
    ] = Field(
        default=None,
        description="previous: the package of the highest lower model version. training: the tag of the model version. "
        "staging, production: the package that was moved to that stage last, on whichever line. A number: the newest "
        "package of that model version.",
    )
    tolerance: _Tolerance = Field(
        default=Tolerance(0.0),
        description="How much worse than the reference the metric may be: a number, or a share such as 5%.",
        json_schema_extra={"default": 0},
    )
    confidence: Annotated[
        float | None,
        BeforeValidator(read_confidence, json_schema_input_type=Annotated[float, Field(ge=0.5, le=0.999)] | str | None),
    ] = Field(default=None, description="The gate holds, or does not, only where that is this sure, such as 95%.")
    too_few: _TooFew = Field(
        default=None,
        description="What happens if the records are too few to tell at that confidence. Default: fail for min and "
        "max, warn for a reference.",
    )

    worst: dict[str, SliceSettings] = Field(
        default_factory=dict,
        description="How the records are divided, such as class, folder or hour, and what must hold in each part.",
    )

    @model_validator(mode="after")
    def _can_pass_and_fail(self) -> GateSettings:
        if self.min is None and self.max is None and self.reference is None and not self.worst:
            raise ValueError("a gate needs min, max, reference or worst")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing could pass")
        if self.reference is None and "tolerance" in self.model_fields_set:
            raise ValueError(f"a tolerance needs a reference: {_REFERENCES}")
        too_few = [self.too_few, *(each.too_few for each in self.worst.values())]
        if self.confidence is None and any(too_few):
            raise ValueError("too_few needs a confidence, such as 95%")
        for kind, each in self.worst.items():
            if each.tolerance is not None and self.reference in (None, "training"):
                raise ValueError(
                    f"worst.{kind}.tolerance: a part is compared with that of a package, so the gate needs a "
                    f"reference that is one: previous, {', '.join(STAGES)} or the number of a model version"
                )
        return self
