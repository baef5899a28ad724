"""What metrics must hold before a package may be registered: pure functions of metrics, settings and references."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.schema import GateSettings

_ROUNDING = 1e-12
"""Share of a bound that adding and subtracting may be off."""


@dataclass(frozen=True)
class Reference:
    """What a metric is compared with: its value there, and where that is in words.

    A `value` of None passes no gate, unless `nothing_yet`: there cannot be anything to compare with so far."""

    source: str
    value: float | None
    nothing_yet: bool = False


def compare_with_gates(
    metrics: Mapping[str, float | None],
    gates: Mapping[str, GateSettings],
    lower_is_better: Collection[str] = (),
    references: Mapping[str, Reference] | None = None,
) -> list[CheckRow]:
    """A row per metric (is it a finite number?), per gate with bounds, and per gate with a reference.

    `references` holds one for every gate that names a reference. A metric that is missing or not finite passes no
    gate.
    """
    rows = [
        CheckRow(f"{name} is a finite number", _finite(value), _shown(value), "a finite number")
        for name, value in sorted(metrics.items())
    ]
    for name, gate in sorted(gates.items()):
        value = metrics.get(name)
        if gate.min is not None or gate.max is not None:
            rows.append(_within_bounds(name, value, gate))
        if gate.reference is not None:
            reference = (references or {})[name]
            rows.append(_against(name, value, gate, reference, name in lower_is_better))
    return rows


def _within_bounds(name: str, value: float | None, gate: GateSettings) -> CheckRow:
    low = -math.inf if gate.min is None else gate.min
    high = math.inf if gate.max is None else gate.max
    if value is None or not math.isfinite(value):
        return CheckRow(f"gate on {name}", False, _shown(value), _bounds(gate))
    margin = min(value - low, high - value)
    return CheckRow(f"gate on {name}", low <= value <= high, _shown(value), _bounds(gate), margin=_signed(margin))


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
    passed = margin >= -_ROUNDING * abs(bound)
    left = max(margin, 0.0) if passed else margin  # what is only rounding is not shown as missing
    return CheckRow(subject, passed, _shown(value), wanted, reference.source, _signed(left))


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _shown(value: float | None) -> str:
    return "not defined" if value is None or math.isnan(value) else f"{value:.6g}"


def _signed(margin: float) -> str:
    return f"{margin + 0.0:+.6g}"  # a negative zero becomes a zero


def _bounds(gate: GateSettings) -> str:
    if gate.min is None:
        return f"at most {gate.max:g}"
    return f"at least {gate.min:g}" if gate.max is None else f"from {gate.min:g} to {gate.max:g}"
