"""Validates values returned by the child, which is not trusted: model code may have written another result than
child_main.py does."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from edgepack_assets.errors import ComponentError
from edgepack_assets.sandbox.child_output import printable

Text = Annotated[str, StringConstraints(max_length=500), AfterValidator(printable)]
"""Text from the model: short, and safe to store and show."""


class UntrustedReport(BaseModel):
    """A value that a child returns: these fields and no others. It comes as JSON and is not converted, so fields are
    list, dict, str, int, float, bool or None: a field of the type tuple is never right."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


_Shape = TypeVar("_Shape", bound=UntrustedReport)


def parse_report(subject: str, shape: type[_Shape], value: object) -> _Shape:
    """`value` as an instance of `shape`. Raises ComponentError that names the first fault; `subject` names the job."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "its result"
        fault = printable(f"{where}: {first['msg']}"[:500])
        raise ComponentError(f"{subject} returned something else than it should: {fault}") from None
