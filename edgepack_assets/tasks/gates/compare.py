"""What metrics must hold before a package may be registered: pure functions of metrics, settings and references."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.gate_settings import GateSettings, SliceSettings
from edgepack_assets.registry.base import DamagedVersion, RegisteredVersion
from edgepack_assets.tasks.gates.resampling import Difference, Interval

ROUNDING = 1e-12
"""Share of a bound that adding and subtracting may be off."""
TOO_FEW = "too few samples to tell"
"""An interval with a bound inside."""


@dataclass(frozen=True)
class Reference:
    """What a metric is compared with: its value there, and where that is in words.

    A `value` of None passes no gate, unless `nothing_yet`: there cannot be anything to compare with so far. `package`
    is the one that it was read from; None if it was not read from a package."""

    source: str
    value: float | None
    nothing_yet: bool = False
    package: RegisteredVersion | DamagedVersion | None = None


@dataclass(frozen=True)
class Certainty:
    """How sure one metric is, for a gate with a confidence: its interval, and how it differs from that of the reference
    on the same records; a text in place of either says why there is none. `difference` is None where the reference is
    no package."""

    interval: Interval | str
    difference: Difference | str | None = None


def compare_with_gates(
    metrics: Mapping[str, float | None],
    gates: Mapping[str, GateSettings],
    lower_is_better: Collection[str] = (),
    references: Mapping[str, Reference] | None = None,
    certainties: Mapping[str, Certainty] | None = None,
) -> list[CheckRow]:
    """A row per metric (is it a finite number?), per gate with bounds, and per gate with a reference.

    `references` holds one for every gate that names a reference, `certainties` one for every gate with a confidence. A
    metric that is missing or not finite passes no gate.
    """
    rows = [
        CheckRow(f"{name} is a finite number", _finite(value), _shown(value), "a finite number")
        for name, value in sorted(metrics.items())
    ]
    for name, gate in sorted(gates.items()):
        value = metrics.get(name)
        certainty = (certainties or {})[name] if gate.confidence is not None and _finite(value) else None
        if gate.min is not None or gate.max is not None:
            row = _within_bounds(name, value, gate)
            rows.append(row if certainty is None else _surely_within_bounds(row, gate, certainty.interval))
        if gate.reference is not None:
            reference = (references or {})[name]
            row = _against(name, value, gate, reference, name in lower_is_better)
            is_compared = certainty is not None and not reference.nothing_yet and reference.value is not None
            if certainty is not None and is_compared:
                row = _surely_against(row, gate, reference, certainty, name in lower_is_better)
            rows.append(row)
    return rows


def _surely_within_bounds(row: CheckRow, gate: GateSettings, interval: Interval | str) -> CheckRow:
    """The row of a gate whose bounds the whole interval must hold."""
    wanted = f"{row.wanted}, {_sure(gate)}"
    if isinstance(interval, str):
        return _undecided(row, gate, f"{row.found}; {interval}", wanted, "fail")
    low = -math.inf if gate.min is None else gate.min
    high = math.inf if gate.max is None else gate.max
    found, margin = f"{row.found} ({interval})", min(interval.low - low, high - interval.high)
    if interval.high < low or interval.low > high:
        return replace(row, passed=False, found=found, wanted=wanted, margin=_signed(margin))
    if margin >= 0:
        return replace(row, passed=True, found=found, wanted=wanted, margin=_signed(margin))
    return _undecided(row, gate, f"{found}: {TOO_FEW}", wanted, "fail", _signed(margin))


def _surely_against(
    row: CheckRow, gate: GateSettings, reference: Reference, certainty: Certainty, lower_is_better: bool
) -> CheckRow:
    """The row of a gate with a reference, from how much better than what is allowed each end of the interval is."""
    assert reference.value is not None
    wanted = f"{row.wanted}, {_sure(gate)}"
    allowed, sign = gate.tolerance.of(reference.value), -1 if lower_is_better else 1
    if certainty.difference is None:  # a number, which has no records of its own
        if isinstance(certainty.interval, str):
            return _undecided(row, gate, f"{row.found}; {certainty.interval}", wanted, "warn")
        found = f"{row.found} ({certainty.interval})"
        ends = [sign * (end - reference.value) + allowed for end in (certainty.interval.low, certainty.interval.high)]
    elif isinstance(certainty.difference, str):
        return _undecided(row, gate, f"{row.found}; {certainty.difference}", wanted, "warn")
    else:
        found = f"{row.found}, on the same records {certainty.difference}"
        interval = certainty.difference.interval
        ends = [sign * end + allowed for end in (interval.low, interval.high)]
    least, most = min(ends), max(ends)
    if most < 0 or least >= 0:
        return replace(row, passed=least >= 0, found=found, wanted=wanted, margin=_signed(least))
    return _undecided(row, gate, f"{found}: {TOO_FEW}", wanted, "warn", _signed(least))


def _undecided(  # noqa: PLR0917 - the parts of a row
    row: CheckRow, gate: GateSettings, found: str, wanted: str, default: str, margin: str = ""
) -> CheckRow:
    then = gate.too_few or default
    return replace(row, passed=then == "pass", found=found, wanted=wanted, warns=then == "warn", margin=margin)


def _sure(gate: GateSettings) -> str:
    assert gate.confidence is not None
    return f"{gate.confidence * 100:g}% sure"


def _within_bounds(name: str, value: float | None, gate: GateSettings) -> CheckRow:
    low = -math.inf if gate.min is None else gate.min
    high = math.inf if gate.max is None else gate.max
    if value is None or not math.isfinite(value):
        return CheckRow(f"gate on {name}", False, _shown(value), bounds(gate))
    margin = min(value - low, high - value)
    return CheckRow(f"gate on {name}", low <= value <= high, _shown(value), bounds(gate), margin=_signed(margin))


def _against(
    name: str, value: float | None, gate: GateSettings, reference: Reference, lower_is_better: bool
) -> CheckRow:
    compared = f"model version {gate.reference}" if isinstance(gate.reference, int) else gate.reference
    subject = f"gate on {name} against {compared}"
    if reference.nothing_yet:
        return CheckRow(subject, _finite(value), _shown(value), "a finite number", reference.source)
    if reference.value is None or not math.isfinite(reference.value):
        return CheckRow(subject, False, _shown(value), f"{name} to compare with", reference.source)
    allowed = gate.tolerance.of(reference.value)
    bound = reference.value + allowed if lower_is_better else reference.value - allowed
    worse = f"{reference.value:.6g}, {'plus' if lower_is_better else 'minus'} {gate.tolerance}"
    wanted = f"{'at most' if lower_is_better else 'at least'} {bound:.6g} ({worse})"
    if value is None or not math.isfinite(value):
        return CheckRow(subject, False, _shown(value), wanted, reference.source)
    margin = bound - value if lower_is_better else value - bound
    passed = margin >= -ROUNDING * abs(bound)
    left = max(margin, 0.0) if passed else margin  # what is only rounding is not shown as missing
    return CheckRow(subject, passed, _shown(value), wanted, reference.source, _signed(left))


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _shown(value: float | None) -> str:
    return "not defined" if value is None or math.isnan(value) else f"{value:.6g}"


def _signed(margin: float) -> str:
    return f"{margin + 0.0:+.6g}"  # a negative zero becomes a zero


def bounds(gate: GateSettings | SliceSettings) -> str:
    """What `min` and `max` ask for, in words."""
    if gate.min is None:
        return f"at most {gate.max:g}"
    return f"at least {gate.min:g}" if gate.max is None else f"from {gate.min:g} to {gate.max:g}"
