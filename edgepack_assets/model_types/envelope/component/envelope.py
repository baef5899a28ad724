"""Whether what comes in is like what the package was proven on.

Ships with the component if `envelope` is set, and imports nothing of the packaging project. Windows or images are
described by a few numbers, their features. Learning keeps some of those that the package was validated on; later ones
are as far away as the nearest of these, in units of what is usual between neighbours.
"""

import json
import math
from typing import Any

import numpy as np

REFERENCES = 256
_ROOM = 1.2
_FEWEST = 8
_DIGITS = 6


class TooLittleData(ValueError):
    """There is not enough to learn from; the text says so."""

    is_for_user = True


def learn(features: "np.ndarray", names: "list[str]", floors: "list[float]", apart: int = 0) -> "dict[str, Any]":
    """What model.json keeps. `features`: one row for each window or image, in their order, finite; `floors`: for each
    feature a difference that means nothing; up to `apart` rows on, rows share records and are no neighbours.

    Raises TooLittleData."""
    features = np.asarray(features, dtype=np.float64)
    count = len(features)
    if count < max(_FEWEST, 2 * apart + 3):
        raise TooLittleData(
            f"an envelope cannot be learned from {count} answers, of which neighbours share records: the payload must "
            f"give at least {max(_FEWEST, 2 * apart + 3)}. Record more raw data, or remove `envelope`"
        )
    kept = np.unique(np.linspace(0, count - 1, min(count, REFERENCES)).round().astype(int))
    reference = features[kept]
    scale = np.maximum(features.std(axis=0), floors)
    for _ in range(2):  # what is usual between neighbours, and again with the neighbours at that scale
        nearest, _ = _neighbours(features, kept, reference, scale, apart)
        scale = np.maximum(np.quantile(np.abs(features - reference[nearest]), 0.9, axis=0), floors)
    _, distances = _neighbours(features, kept, reference, scale, apart)
    return {
        "features": list(names),
        "reference": _rounded(reference),
        "scale": _rounded(scale),
        "limit": _round(max(1.0, _ROOM * float(np.quantile(distances, 0.99)))),
        "learned_from": count,
    }


class Envelope:
    """What was learned, as model.json has it."""

    def __init__(self, settings: "dict[str, Any]") -> None:
        self._scale = np.asarray(settings["scale"], dtype=np.float64)
        self._reference = np.asarray(settings["reference"], dtype=np.float64) / self._scale
        self._limit = float(settings["limit"])
        self._last: Any = None
        self._repeated = 0

    def distance(self, features: "np.ndarray") -> float:
        """How far the features are from the nearest ones that were learned: from 1 up they lie outside."""
        far = np.abs(self._reference - features / self._scale).max(axis=1).min() / self._limit
        return float(far) if math.isfinite(far) else 1e9

    def repeated(self, features: "np.ndarray") -> int:
        """How often in a row the features were exactly these before: what is alive never gives the same twice."""
        is_same = self._last is not None and np.array_equal(features, self._last)
        self._repeated = self._repeated + 1 if is_same else 0
        self._last = features
        return self._repeated


def metric(value: float) -> str:
    """As the AI Model Monitor takes it."""
    return json.dumps({"value": float(f"{value:.{_DIGITS}g}")})


def _neighbours(
    features: "np.ndarray", kept: "np.ndarray", reference: "np.ndarray", scale: "np.ndarray", apart: int
) -> "tuple[np.ndarray, np.ndarray]":
    """Of each row, the place of the nearest reference that is no part of it, and how far that is."""
    nearest, distances = np.empty(len(features), dtype=int), np.empty(len(features))
    for row, values in enumerate(features):
        far = (np.abs(reference - values) / scale).max(axis=1)
        far[np.abs(kept - row) <= apart] = np.inf
        nearest[row] = far.argmin()
        distances[row] = far[nearest[row]]
    return nearest, distances


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _rounded(values: "np.ndarray") -> "list[Any]":
    return [_rounded(each) if getattr(each, "ndim", 0) else _round(float(each)) for each in values]
