"""Runs in the component's environment: learns the envelope from a payload, and tries faults on the packaged model.

The faults of sensors are large enough to see in a plot: what matters is whether the package notices them where they
change its answers. The small changes are none that a person would call another machine state.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_SEGMENTS = 8
_MOST_WINDOWS = 200
_OUTSIDE = 0.05
"""Share of the range by which values may leave it."""
_MISSING = 0.02
_SEED = 18


def learn(identifier: Any, rows: np.ndarray, channels: Sequence[str]) -> dict[str, Any]:
    """The envelope of a recording's windows, and each channel's quantiles. `rows`: records x channels."""
    envelope, features = importlib.import_module("envelope"), importlib.import_module("window_features")
    size, step = identifier.window_size, identifier.step_size
    starts = range(0, len(rows) - size + 1, step)
    found = np.array([features.window_features(rows[start : start + size]) for start in starts])
    names = list(channels)
    apart, alone = -(-size // step) - 1, features.alone(len(names))
    learned = envelope.learn(found, features.names(names), features.floors(rows), apart, alone)
    quantiles = np.nan_to_num(np.nanquantile(rows, [0, 0.01, 0.5, 0.99, 1], axis=0)).T
    room = _OUTSIDE * (quantiles[:, 4] - quantiles[:, 0]) + 1e-9
    return {
        **learned,
        "low": (quantiles[:, 0] - room).tolist(),
        "high": (quantiles[:, 4] + room).tolist(),
        "quantiles": dict(zip(names, quantiles.tolist(), strict=True)),
    }


def probe(make: Callable[[], Any], rows: np.ndarray, channels: Sequence[str]) -> dict[str, Any]:
    """How many answers change under each fault, and how many windows are noticed. `make` gives a component that has
    seen no record."""
    segments = _segments(rows, make())
    plain = [_answers(make(), segment, channels) for segment in segments]
    found = []
    for name, kind, fault in _faults(rows, channels):
        windows = answers = changed = noticed = unnoticed = 0
        for number, (segment, expected) in enumerate(zip(segments, plain, strict=True)):
            given = fault(segment.copy(), np.random.RandomState(_SEED + number))
            for before, now in zip(expected, _answers(make(), given, channels), strict=True):
                is_seen = now is None or now[1]
                is_other = before is not None and (now is None or now[0] != before[0])
                windows += 1
                answers += now is not None
                changed += is_other
                noticed += is_seen
                unnoticed += is_other and not is_seen
        found.append({
            "name": name, "kind": kind, "records": windows, "answers": answers, "changed": changed,
            "noticed": noticed, "unnoticed": unnoticed,
        })  # fmt: skip
    return {"probes": found, "what": "windows"}


def _segments(rows: np.ndarray, identifier: Any) -> list[np.ndarray]:
    """Stretches of the recording from its whole length, with so many windows that trying stays cheap."""
    size, step = identifier.window_size, identifier.step_size
    windows = (len(rows) - size) // step + 1
    count = max(1, min(_SEGMENTS, windows))
    each = max(1, min(_MOST_WINDOWS, windows) // count)
    length = size + (each - 1) * step
    starts = np.linspace(0, len(rows) - length, count).astype(int)
    return [rows[start : start + length] for start in starts]


def _answers(identifier: Any, rows: np.ndarray, channels: Sequence[str]) -> list[tuple[int, bool] | None]:
    """Of each window the state and whether the envelope is left, None where there is no answer."""
    found: list[tuple[int, bool] | None] = []
    for number, row in enumerate(rows, 1):
        values = [None if np.isnan(value) else float(value) for value in row]
        answer = identifier.process(dict(zip(channels, values, strict=True)))
        due = number >= identifier.window_size and (number - identifier.window_size) % identifier.step_size == 0
        if due:
            found.append(None if answer is None else (answer["prediction"], _is_outside(answer)))
    return found


def _is_outside(answer: dict[str, Any]) -> bool:
    if "envelope_distance" not in answer:
        return False
    value = {name: json.loads(answer[f"envelope_{name}"])["value"] for name in ("distance", "outside", "missing")}
    return bool(value["distance"] > 1 or value["outside"] > _MISSING or value["missing"] > _MISSING)


def _faults(rows: np.ndarray, channels: Sequence[str]) -> list[tuple[str, str, Any]]:
    """Name, kind, and what is done to a stretch of records."""
    spread = np.nan_to_num(np.nanstd(rows, axis=0))
    most = np.nan_to_num(np.nanquantile(rows[:, 0], 0.8))

    def swapped(part: np.ndarray, _: Any) -> np.ndarray:
        part[:, :2] = part[:, 1::-1]
        return part

    def gained(part: np.ndarray, _: Any) -> np.ndarray:
        part[:, 0] *= 1.25
        return part

    def offset(part: np.ndarray, _: Any) -> np.ndarray:
        part[:, 0] += spread[0]
        return part

    def stuck(part: np.ndarray, _: Any) -> np.ndarray:
        known = part[np.isfinite(part[:, 0]), 0]
        part[:, 0] = known[0] if len(known) else 0.0
        return part

    def gap(part: np.ndarray, random: Any) -> np.ndarray:
        length = max(1, len(part) // 5)
        start = random.randint(0, len(part) - length + 1)
        part[start : start + length, 0] = np.nan
        return part

    def noisy(part: np.ndarray, random: Any) -> np.ndarray:
        part += random.normal(size=part.shape) * spread / 2
        return part

    def drifting(part: np.ndarray, _: Any) -> np.ndarray:
        part[:, 0] += spread[0] * np.linspace(0, 1, len(part))
        return part

    def clipped(part: np.ndarray, _: Any) -> np.ndarray:
        part[:, 0] = np.minimum(part[:, 0], most)
        return part

    def doubled(part: np.ndarray, _: Any) -> np.ndarray:
        return part[np.arange(len(part)) // 2 * 2]

    def shifted(part: np.ndarray, _: Any) -> np.ndarray:
        return np.concatenate([part[1:], part[-1:]])

    def a_little_noisy(part: np.ndarray, random: Any) -> np.ndarray:
        part *= 1 + 0.001 * random.normal(size=part.shape)
        return part

    def holed(part: np.ndarray, random: Any) -> np.ndarray:
        part[random.uniform(size=part.shape) < 0.01] = np.nan
        return part

    two = [(f"{channels[0]} and {channels[1]} exchanged", "fault", swapped)] if len(channels) > 1 else []
    return [
        ("nothing", "none", lambda part, _: part),
        *two,
        (f"{channels[0]} times 1.25", "fault", gained),
        (f"{channels[0]} plus its standard deviation", "fault", offset),
        (f"{channels[0]} drifts by its standard deviation", "fault", drifting),
        (f"{channels[0]} clipped at its 80 % quantile", "fault", clipped),
        (f"{channels[0]} stuck at one value", "fault", stuck),
        (f"a fifth of {channels[0]} missing at a stretch", "fault", gap),
        ("noise of half the standard deviation", "fault", noisy),
        ("every second record as the one before", "fault", doubled),
        ("one record later", "small", shifted),
        ("noise of 0.1 %", "small", a_little_noisy),
        ("1 % of the values missing", "small", holed),
    ]
