"""The operating envelope: what a package was proven on, learned from the payload, shipped with the component, and told
as metrics that the AI Model Monitor collects.

component/ ships, beside what the model type itself has for it, and only if `envelope` is set. How it does under faults
is tried in fault_probes.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from edgepack_assets.model_types.interface import Variable
from edgepack_assets.sandbox.untrusted_values import Text, UntrustedReport

KEY = "envelope"
"""In model.json and in an inspection: what was learned."""
FOLDER = Path(__file__).with_name("component")
ALERTS_FILE = "envelope_alerts.md"
"""In the component: the suggested rules."""
DISTANCE = Variable(
    "envelope_distance", "String", "Distance from what the package was proven on; above 1 it is unlike all of that"
)
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Five = Annotated[list[_Finite], Field(min_length=5, max_length=5)]
_Values = Annotated[list[_Finite], Field(min_length=1, max_length=1000)]


class _Together(UntrustedReport):
    """Coordinates in which all features are looked at together: `axes` is features x features. `alone` of the first
    ones are looked at each by itself, too."""

    alone: Annotated[int, Field(ge=1)]
    centre: _Values
    spread: _Values
    axes: Annotated[list[_Values], Field(min_length=1, max_length=1000)]
    limit: Annotated[_Finite, Field(gt=0)]


class LearnedEnvelope(UntrustedReport):
    """What `learn_envelope` of child_tasks.py returns, and model.json keeps. `low`, `high` and `quantiles` (0, 1, 50,
    99 and 100 %) are of the inputs where these are numbers."""

    features: Annotated[list[Text], Field(min_length=1, max_length=1000)]
    reference: Annotated[list[_Values], Field(min_length=1, max_length=256)]
    scale: _Values
    together: _Together | None = None
    limit: Annotated[_Finite, Field(gt=0)]
    learned_from: Annotated[int, Field(ge=1)]
    low: _Values | None = None
    high: _Values | None = None
    quantiles: Annotated[dict[Text, _Five], Field(max_length=64)] | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> LearnedEnvelope:
        of_all = [self.scale, *self.reference]
        scales = self.scale
        if (joint := self.together) is not None:
            of_all += [joint.centre, joint.spread, joint.axes, *joint.axes]  # type: ignore[list-item]  # their lengths
            scales = [*scales, *joint.spread]
        if {len(each) for each in of_all} != {len(self.features)}:
            raise ValueError(f"not all of it is of {len(self.features)} features")
        if min(scales) <= 0:
            raise ValueError("a scale is above 0")
        return self


def is_in(inspection: Mapping[str, Any]) -> bool:
    """Whether the package has an envelope."""
    return KEY in inspection


_TOP = """# Suggested alert rules

The package tells with each {per} how far it is from the {count} that it was proven on. The AI Model Monitor collects
these metrics. Alert on several in a row: about one in a hundred is above a limit by chance.

| metric | warn | means |
|---|---|---|
"""
_RULES = {
    "envelope_distance": "above 1 in 3 of the last 10 | {per}s unlike all that the package was proven on; above 3 "
    "by far: look at the sensors before anything is done with the answer",
    "envelope_outside": "above 0.02 in 3 of the last 10 | share of values beyond the range of their input",
    "envelope_repeated": "above 1 | so many {per}s before this one were the same: the camera or what it sends is stuck",
    "envelope_missing": "above 0.02 in 3 of the last 10 | share of missing values",
}
_QUANTILES = """
Ranges that it was proven on:

| input | least | 1 % | median | 99 % | most |
|---|---|---|---|---|---|
"""


def alert_rules(metrics: tuple[Variable, ...], learned: Mapping[str, Any], per: str) -> str:
    """Suggested rules for the AI Model Monitor, as Markdown. `per`: what gives a value, such as a window."""
    names = [metric.name for metric in metrics if metric.name in _RULES]
    text = _TOP.format(per=per, count=learned["learned_from"])
    text += "".join(f"| `{name}` | {_RULES[name].format(per=per)} |\n" for name in names)
    text += "| (no answer) | none for three times as long as usual | values that the model needs are missing |\n"
    if learned.get("quantiles"):
        text += _QUANTILES
        for name, values in learned["quantiles"].items():
            text += f"| {name} | {' | '.join(f'{value:.6g}' for value in values)} |\n"
    return text
