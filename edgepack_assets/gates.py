"""What metrics must hold before a package may be registered. Pure functions of metrics and configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgepack_assets.evidence import Part
from edgepack_assets.settings import GateSettings


def gate_parts(metrics: Mapping[str, float | None], gates: Mapping[str, GateSettings]) -> list[Part]:
    """A row per metric (is it a finite number?) and per gate (is it within its bounds?).

    A metric that is missing or not finite passes no gate.
    """
    parts = [
        Part(f"{name} is a finite number", _finite(value), _shown(value), "a finite number")
        for name, value in sorted(metrics.items())
    ]
    for name, gate in sorted(gates.items()):
        value = metrics.get(name)
        low = -math.inf if gate.min is None else gate.min
        high = math.inf if gate.max is None else gate.max
        passed = value is not None and _finite(value) and low <= value <= high
        parts.append(Part(f"gate on {name}", passed, _shown(value), _bounds(gate)))
    return parts


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _shown(value: float | None) -> str:
    return "not defined" if value is None or math.isnan(value) else f"{value:.6g}"


def _bounds(gate: GateSettings) -> str:
    if gate.min is None:
        return f"at most {gate.max:g}"
    return f"at least {gate.min:g}" if gate.max is None else f"from {gate.min:g} to {gate.max:g}"
