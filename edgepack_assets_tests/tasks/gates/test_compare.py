"""Gates: bounds and references, whichever direction is worse; nothing that is no number ever passes."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.gate_settings import GateSettings
from edgepack_assets.config.percentages import Tolerance
from edgepack_assets.tasks.gates.compare import Reference, compare_with_gates

NUMBERS = st.floats(-1e6, 1e6)
NOT_FINITE = [None, math.nan, math.inf, -math.inf]


def gate(**said: object) -> GateSettings:
    return GateSettings.model_validate(said)


def row(
    value: float | None, settings: GateSettings, reference: Reference | None = None, lower: bool = False
) -> CheckRow:
    """The last row: that of the reference where there is one, else that of the bounds."""
    references = {"m": reference} if reference is not None else {}
    return compare_with_gates({"m": value}, {"m": settings}, {"m"} if lower else (), references)[-1]


WORSE_BY_TEN = {"reference": "training", "tolerance": "10%"}
ROWS = [
    (0.5, {"min": 0.2}, None, "at least 0.2", "+0.3"),
    (0.1, {"min": 0.2}, None, "at least 0.2", "-0.1"),
    (0.2, {"min": 0.2, "max": 0.9}, None, "from 0.2 to 0.9", "+0"),
    (0.65, {"reference": "previous"}, 0.65, "at least 0.65 (0.65, minus 0)", "+0"),
    (0.64, {"reference": "previous"}, 0.65, "at least 0.65 (0.65, minus 0)", "-0.01"),
    (0.64, {"reference": 3, "tolerance": 0.02}, 0.65, "at least 0.63 (0.65, minus 0.02)", "+0.01"),
    (90.0, WORSE_BY_TEN, 100.0, "at least 90 (100, minus 10%)", "+0"),
    (89.0, WORSE_BY_TEN, 100.0, "at least 90 (100, minus 10%)", "-1"),
    (109.0, WORSE_BY_TEN, 100.0, "at most 110 (100, plus 10%)", "+1"),
    (111.0, WORSE_BY_TEN, 100.0, "at most 110 (100, plus 10%)", "-1"),
    (-1.1, WORSE_BY_TEN, -1.0, "at least -1.1 (-1, minus 10%)", "+0"),
    (-1.2, WORSE_BY_TEN, -1.0, "at least -1.1 (-1, minus 10%)", "-0.1"),
]


@pytest.mark.parametrize(("value", "said", "reference", "wanted", "margin"), ROWS)
def test_a_row_tells_value_bound_reference_and_margin(
    value: float, said: dict[str, object], reference: float | None, wanted: str, margin: str
) -> None:
    compared = None if reference is None else Reference("P-edge:4 of model version 3", reference)
    part = row(value, gate(**said), compared, lower="at most" in wanted and "plus" in wanted)
    assert (part.passed, part.found, part.wanted) == (margin.startswith("+"), f"{value:.6g}", wanted)
    assert float(part.margin) == pytest.approx(float(margin), abs=1e-12)
    assert part.reference == ("" if compared is None else compared.source)


def test_bounds_and_reference_are_a_row_each() -> None:
    both = gate(min=0.2, reference="previous", tolerance=0.1)
    parts = compare_with_gates({"m": 0.3}, {"m": both}, (), {"m": Reference("P-edge:1", 0.5)})
    assert [(part.name, part.passed) for part in parts] == [
        ("m is a finite number", True),
        ("gate on m", True),
        ("gate on m against previous", False),
    ]


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("said", [{"min": -1e308}, {"max": 1e308}, {"reference": "previous", "tolerance": 1e300}])
@pytest.mark.parametrize("reference", [Reference("P-edge:1", 0.5), Reference("none", None, nothing_yet=True)])
@pytest.mark.parametrize("lower", [True, False])
def test_what_is_no_number_never_passes(
    value: float | None, said: dict[str, object], reference: Reference, lower: bool
) -> None:
    assert not row(value, gate(**said), reference, lower).passed
    assert not compare_with_gates({}, {"m": gate(**said)}, (), {"m": reference})[-1].passed


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_reference_that_is_no_number_passes_nothing(value: float | None) -> None:
    part = row(1.0, gate(reference="training"), Reference("press:2 has no tag m", value))
    assert not part.passed
    assert part.wanted == "m to compare with"


def test_where_there_cannot_be_a_reference_yet_the_row_says_so() -> None:
    part = row(0.5, gate(reference="previous"), Reference("none: no package of a lower model version", None, True))
    assert part.passed
    assert part.reference.startswith("none")


@example(-0.0, 0.0, 0.0, False)
@example(0.1 + 0.2, 0.3, 0.0, False)
@given(NUMBERS, NUMBERS, st.floats(0, 1e3), st.booleans())
def test_turning_the_metric_round_turns_the_gate_round(value: float, old: float, allowed: float, share: bool) -> None:
    settings = gate(reference="previous").model_copy(update={"tolerance": Tolerance(allowed, share)})
    up = row(value, settings, Reference("r", old))
    down = row(-value, settings, Reference("r", -old), lower=True)
    assert (up.passed, up.margin) == (down.passed, down.margin)
    assert up.margin.startswith("+" if up.passed else "-")


@given(NUMBERS, NUMBERS, st.floats(0, 1e3), st.booleans(), st.booleans())
def test_the_reference_itself_and_whatever_is_better_passes(
    old: float, better: float, allowed: float, share: bool, lower: bool
) -> None:
    settings = gate(reference="previous").model_copy(update={"tolerance": Tolerance(allowed, share)})
    value = min(old, better) if lower else max(old, better)
    assert row(value, settings, Reference("r", old), lower).passed
