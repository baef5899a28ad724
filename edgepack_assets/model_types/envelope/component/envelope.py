"""Whether what comes in is like what the package was proven on.

Ships with the component if `envelope` is set, and imports nothing of the packaging project. Windows or images are
described by a few numbers, their features. Learning keeps some of those that the package was validated on; later ones
are as far away as the nearest of these. The unit is what is usual between neighbours; of features that belong together,
as brightness and contrast do, what is usual of all of them at once.
"""

import json
import math
from typing import Any

import numpy as np

REFERENCES = 256
_ROOM = 1.2
_SHRINKING = 0.3
"""How far features are taken to be independent, for each feature and observation."""
_LEAST_VARIANCE = 0.02
"""Variance of a combination of features below which a difference says nothing."""
_FEWEST = 8
_DIGITS = 6


class TooLittleData(ValueError):
    """There is not enough to learn from; the text says so."""

    is_for_user = True


def learn(
    features: "np.ndarray", names: "list[str]", floors: "list[float]", apart: int = 0, alone: "int | None" = None
) -> "dict[str, Any]":
    """What model.json keeps. `features`: one row for each window or image, in their order, finite; `floors`: for each
    feature a difference that means nothing; up to `apart` rows on, rows share records and are no neighbours. `alone`:
    all features are looked at together, too, and only so many of the first each by itself.

    Raises TooLittleData."""
    features = np.asarray(features, dtype=np.float64)
    count = len(features)
    if count < max(_FEWEST, 2 * apart + 3):
        raise TooLittleData(
            f"an envelope cannot be learned from {count} answers, of which neighbours share records: the payload must "
            f"give at least {max(_FEWEST, 2 * apart + 3)}. Record more raw data, or remove `envelope`"
        )
    kept = np.unique(np.linspace(0, count - 1, min(count, REFERENCES)).round().astype(int))
    scale = np.maximum(features.std(axis=0), floors)
    for _ in range(2):  # what is usual between neighbours, and again with the neighbours at that scale
        nearest, _ = _neighbours((features / scale)[:, :alone], kept, apart)
        scale = np.maximum(np.quantile(np.abs(features - features[kept][nearest]), 0.9, axis=0), floors)
    _, distances = _neighbours((features / scale)[:, :alone], kept, apart)
    learned = {
        "features": list(names),
        "reference": _rounded(features[kept]),
        "scale": _rounded(scale),
        "learned_from": count,
    }
    usual = max(1.0 / _ROOM, float(np.quantile(distances, 0.99)))
    if alone is None:
        return {**learned, "limit": _round(usual * _ROOM)}
    together = _together(features, floors)
    _, others = _neighbours(_turned(features, together), kept, apart, _mean_square)
    usual_together = max(1e-3, float(np.quantile(others, 0.99)))
    room = _ROOM * float(np.quantile(np.maximum(distances / usual, others / usual_together), 0.99))
    together |= {"alone": alone, "limit": _round(usual_together * room)}
    return {**learned, "limit": _round(usual * room), "together": together}


def _together(features: "np.ndarray", floors: "list[float]") -> "dict[str, Any]":
    """Coordinates in which the features vary equally and independently of each other, as brightness and contrast do
    not: what is usual of each by itself may be unusual of both."""
    centre, spread = features.mean(axis=0), np.maximum(features.std(axis=0), floors)
    scaled = (features - centre) / spread
    size = len(centre)
    independent = min(0.5, _SHRINKING * size / len(features))
    covariance = (1 - independent) * scaled.T @ scaled / len(features) + independent * np.eye(size)
    covariance += np.diag((np.asarray(floors) / 2 / spread) ** 2)  # what means nothing, as noise of each feature
    variances, directions = np.linalg.eigh(covariance)
    axes = directions / np.sqrt(np.maximum(variances, _LEAST_VARIANCE))
    return {"centre": _rounded(centre), "spread": _rounded(spread), "axes": _rounded(axes)}


def _turned(features: "np.ndarray", together: "dict[str, Any]") -> "np.ndarray":
    centre, spread, axes = (np.asarray(together[name], dtype=np.float64) for name in ("centre", "spread", "axes"))
    return np.asarray((features - centre) / spread @ axes)


class Envelope:
    """What was learned, as model.json has it."""

    def __init__(self, settings: "dict[str, Any]") -> None:
        self._together = settings.get("together")
        alone = None if self._together is None else self._together["alone"]
        reference = np.asarray(settings["reference"], dtype=np.float64)
        self._scale = np.asarray(settings["scale"], dtype=np.float64)[:alone]
        self._reference = reference[:, :alone] / self._scale
        self._limit = float(settings["limit"])
        self._turned: Any = None if self._together is None else _turned(reference, self._together)
        self._last: Any = None
        self._repeated = 0

    def distance(self, features: "np.ndarray") -> float:
        """How far the features are from the nearest ones that were learned: from 1 up they lie outside."""
        point = features[: len(self._scale)] / self._scale
        far = _largest(self._reference - point).min() / self._limit
        if self._together is not None:
            point = _turned(features, self._together)
            far = max(far, _mean_square(self._turned - point).min() / self._together["limit"])
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


def _largest(differences: "np.ndarray") -> "np.ndarray":
    return np.asarray(np.abs(differences).max(axis=1))


def _mean_square(differences: "np.ndarray") -> "np.ndarray":
    return np.asarray(np.sqrt((differences**2).mean(axis=1)))


def _neighbours(
    points: "np.ndarray", kept: "np.ndarray", apart: int, far: "Any" = _largest
) -> "tuple[np.ndarray, np.ndarray]":
    """Of each row, the place among those kept of the nearest one that is no part of it, and how far that is."""
    reference = points[kept]
    nearest, distances = np.empty(len(points), dtype=int), np.empty(len(points))
    for row, point in enumerate(points):
        each = far(reference - point)
        each[np.abs(kept - row) <= apart] = np.inf
        nearest[row] = each.argmin()
        distances[row] = each[nearest[row]]
    return nearest, distances


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _rounded(values: "np.ndarray") -> "list[Any]":
    return [_rounded(each) if getattr(each, "ndim", 0) else _round(float(each)) for each in values]
