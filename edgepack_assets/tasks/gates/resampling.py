"""Intervals by formulas and by resampling, of one number or of the difference of two. Pure functions.

Shares have Wilson's interval, and their difference Newcombe's for pairs. Other means are bootstrapped over stretches of
consecutive records. All random numbers have a fixed seed. Which metric has which is in intervals.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack_assets.model_types.samples import Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

SEED = 18
FEWEST, _MOST = 10, 1000
"""Stretches of records that are resampled: with fewer, what they say of chance means little."""
_OF_FEW = 1.64
"""Standard errors of the correlation of neighbours: 5 in 100 independent stretches exceed it."""
_RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """From `low` to `high` lies the metric of all such records, at the confidence `level` (0.95). `samples` are the
    records that were scored, `method` is how it was found, in words."""

    value: float
    low: float
    high: float
    level: float
    samples: int
    method: str

    def __str__(self) -> str:
        return f"{self.level * 100:g}%: {self.low:.4g} to {self.high:.4g}, {self.samples} records"


@dataclass(frozen=True)
class Difference:
    """An interval of the value now less the one before, on the same records. `worse` and `better` are the records, by
    number, whose values got worse or better, most first, as far as there are values of records; `chance` is the
    probability that so uneven numbers come from equal packages (McNemar's exact test), None where it is not known."""

    interval: Interval
    worse: Sequence[int] = ()
    better: Sequence[int] = ()
    chance: float | None = None

    def __str__(self) -> str:
        found = f"{self.interval.value:+.4g} ({self.interval.level * 100:g}%: {self.interval.low:+.4g} to "
        found += f"{self.interval.high:+.4g})"
        if self.worse or self.better:
            found += f", {len(self.worse)} records worse and {len(self.better)} better of {self.interval.samples}"
        return found + (f", by chance {self.chance:.2g}" if self.chance is not None else "")


def is_share(values: Floats) -> bool:
    """Whether each value says yes or no, so that their mean is a share."""
    return bool(((values == 0) | (values == 1)).all())


def wilson(share: float, count: int, level: float) -> tuple[float, float]:
    """Wilson's interval of a share of so many independent records."""
    from scipy import stats  # type: ignore[import-untyped]  # scipy has no types

    found = stats.binomtest(round(share * count), count).proportion_ci(confidence_level=level, method="wilson")
    return float(found.low), float(found.high)


def newcombe(old: Floats, new: Floats, worth: int, level: float) -> tuple[float, float]:
    """The interval of the difference of two paired shares (Newcombe 1998, method 10 without its correction)."""
    import numpy as np

    before, after = float(old.mean()), float(new.mean())
    alike = float(np.corrcoef(old, new)[0, 1]) if 0 < before < 1 and 0 < after < 1 else 0.0
    (low_before, high_before), (low_after, high_after) = (wilson(share, worth, level) for share in (before, after))

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * alike * one * other + other * other))

    change = after - before
    return (
        change - reach(after - low_after, high_before - before),
        change + reach(high_after - after, before - low_before),
    )


def bootstrapped(values: Floats, samples: Samples, level: float) -> Interval | str:
    """Resamples stretches of consecutive records, so that what makes neighbours alike is kept."""
    import numpy as np
    from scipy import stats

    length = stretch_of(values, samples)
    count = min(_MOST, len(values) // length)
    if count < FEWEST:
        return (
            f"too few: {len(values)} records, in {count} stretches that do not depend on each other; at least "
            f"{FEWEST} are needed"
        )
    means = np.array([part.mean() for part in np.array_split(values, count)])
    mean = float(values.mean())
    method = f"bootstrap of {count} stretches of {len(values) / count:.3g} records" if length > 1 else "bootstrap"
    if np.ptp(means) == 0:
        return Interval(mean, mean, mean, level, len(values), f"{method}; all are equal")
    found = stats.bootstrap(
        (means,), np.mean, vectorized=True, confidence_level=level, n_resamples=resamples_for(level), method="BCa",
        random_state=np.random.default_rng(SEED),
    ).confidence_interval  # fmt: skip
    return Interval(mean, float(found.low), float(found.high), level, len(values), method)


def stretch_of(values: Floats, samples: Samples) -> int:
    """So many consecutive records that one stretch of them says nothing of the next one. Where no such length leaves
    enough stretches, it is one that leaves too few."""
    if not samples.follow_each_other:
        return 1
    import numpy as np

    length = max(1, samples.overlap)
    while (count := len(values) // length) >= FEWEST:
        means = values[: count * length].reshape(count, length).mean(axis=1)
        if np.ptp(means) == 0:
            break
        left = means - means.mean()
        alike = float((left[:-1] * left[1:]).sum() / (left * left).sum())
        # The longest ones are so few that chance alone makes them alike more often.
        if alike < (1 if count >= 2 * FEWEST else _OF_FEW) / math.sqrt(count):
            break
        length *= 2
    return length


def independent_worth(values: Floats, samples: Samples) -> int:
    """As many independent records say as much of the mean."""
    import numpy as np

    if not samples.follow_each_other:
        return len(values)
    length = stretch_of(values, samples)
    count = len(values) // length
    spread = float(values.var())
    if spread == 0 or count < 2:
        return max(1, len(values) // max(1, samples.overlap))
    means = values[: count * length].reshape(count, length).mean(axis=1)
    factor = max(1.0, length * float(np.var(means, ddof=1)) / spread)
    return max(1, round(len(values) / factor))


def resamples_for(level: float) -> int:
    """So many that at least ten lie beyond each end of the interval."""
    return max(_RESAMPLES, math.ceil(20 / (1 - level)))
