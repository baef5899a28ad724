"""How sure metrics are: intervals, of one package and of the difference of two on the same records. Pure functions.

Shares have Wilson's interval, and their difference Newcombe's for pairs. Other means are bootstrapped over stretches of
consecutive records, and averages over classes over the records. All random numbers have a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack_assets.model_types.samples import Macro, Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_SEED = 18
_FEWEST, _MOST = 10, 1000
"""Stretches of records that are resampled: with fewer, what they say of chance means little."""
_RESAMPLES = 1000
_BATCH = 1 << 22
"""Random numbers that are held at once."""


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


def intervals(samples: Samples, level: float) -> dict[str, Interval | str]:
    """Metric -> its interval, or why it has none."""
    import numpy as np

    found: dict[str, Interval | str] = {
        name: _of_mean(np.asarray(values, dtype=np.float64), samples, level) for name, values in samples.values.items()
    }
    for name, kind in samples.macro.items():
        found[name] = _of_macro(samples, kind, level)
    return found


def differences(
    before: Samples, now: Samples, level: float, lower_is_better: Collection[str] = ()
) -> dict[str, Difference | str]:
    """Metric -> how it differs on the records that both have, or why that is not known."""
    import numpy as np

    records, at_before, at_now = np.intersect1d(before.records, now.records, return_indices=True)
    if 2 * len(records) < max(len(before.records), len(now.records), 1):
        why = f"only {len(records)} records were scored in both"
        return dict.fromkeys({*now.values, *now.macro}, why)
    found: dict[str, Difference | str] = {}
    for name, values in now.values.items():
        if name not in before.values:
            found[name] = "the package before has no such values"
            continue
        old, new = (
            np.asarray(v, dtype=np.float64)[at] for v, at in ((before.values[name], at_before), (values, at_now))
        )
        found[name] = _difference(old, new, records, now, level, name in lower_is_better)
    for name, kind in now.macro.items():
        if name not in before.macro:
            found[name] = "the package before has no such values"
            continue
        truth = np.asarray(now.truth, dtype=np.int64)[at_now]
        then = np.asarray(before.predicted, dtype=np.int64)[at_before]
        answered = np.asarray(now.predicted, dtype=np.int64)[at_now]
        if not np.array_equal(truth, np.asarray(before.truth, dtype=np.int64)[at_before]):
            found[name] = "the records have another truth now"
            continue
        found[name] = _macro_difference(truth, then, answered, records, kind, level)
    return found


def slices_of(samples: Samples, kind: str, metric: str) -> dict[str, Samples]:
    """The parts into which `kind` divides the records, by name, each with the values of this metric alone."""
    import numpy as np

    parts = np.asarray(samples.slices[kind])
    records, values = np.asarray(samples.records), np.asarray(samples.values[metric], dtype=np.float64)
    return {
        name: Samples(
            records[parts == name].tolist(), {metric: values[parts == name].tolist()},
            follow_each_other=samples.follow_each_other, overlap=samples.overlap,
        )
        for name in sorted(set(samples.slices[kind]))
    }  # fmt: skip


def of_many(level: float, count: int) -> float:
    """The confidence of each of so many intervals at which all of them hold together: the worst of many parts is bad by
    chance too."""
    return 1 - (1 - level) / max(1, count)


def worst_slices(samples: Samples, level: float, lower_is_better: Collection[str] = ()) -> list[dict[str, Any]]:
    """Of each way to divide the records, and each metric with values, the part where it is worst: a row with `by`,
    `slice`, `metric`, `value`, `of all`, `low`, `high`, `records`, `clearly worse`."""
    import numpy as np

    rows = []
    for kind, of in samples.slices.items():
        if len(set(of)) < 2:
            continue
        for metric, values in samples.values.items():
            every = np.asarray(values, dtype=np.float64)
            sign = -1 if metric in lower_is_better else 1
            parts = {name: np.asarray(part.values[metric]) for name, part in slices_of(samples, kind, metric).items()}
            worst = min(parts, key=lambda name: (sign * parts[name].mean(), name))
            here = parts[worst]
            found = _of_mean(here, samples, of_many(level, len(parts)))
            low, high = (found.low, found.high) if isinstance(found, Interval) else (math.nan, math.nan)
            is_worse = sign * (high if sign > 0 else low) < sign * every.mean()  # false for a NaN
            rows.append(
                {
                    "by": kind,
                    "slice": worst,
                    "metric": metric,
                    "value": float(here.mean()),
                    "of all": float(every.mean()),
                    "low": low,
                    "high": high,
                    "records": len(here),
                    "clearly worse": bool(is_worse),
                }
            )
    return rows


def _of_mean(values: Floats, samples: Samples, level: float) -> Interval | str:
    if not len(values):
        return "no record was scored"
    mean = float(values.mean())
    if _is_share(values):
        worth = _independent_worth(values, samples)
        low, high = _wilson(mean, worth, level)
        method = "Wilson" + (f", as of {worth} independent records" if worth < len(values) else "")
        return Interval(mean, low, high, level, len(values), method)
    return _bootstrapped(values, samples, level)


def _difference(  # noqa: PLR0917 - both packages, and what is known of them
    old: Floats, new: Floats, records: Integers, samples: Samples, level: float, lower_is_better: bool
) -> Difference | str:
    import numpy as np
    from scipy import stats  # type: ignore[import-untyped]  # scipy has no types

    change = new - old
    loss = change if lower_is_better else -change
    order = np.argsort(-np.abs(loss), kind="stable")  # what changed most comes first
    worse, better = records[order][loss[order] > 0].tolist(), records[order][loss[order] < 0].tolist()
    if not (_is_share(old) and _is_share(new)):
        found = _bootstrapped(change, samples, level)
        return Difference(found, worse, better) if isinstance(found, Interval) else found
    worth = _independent_worth(change, samples)
    low, high = _newcombe(old, new, worth, level)
    chance = None
    if not samples.follow_each_other:
        unequal = len(worse) + len(better)
        chance = float(stats.binomtest(len(worse), unequal).pvalue) if unequal else 1.0
    interval = Interval(float(change.mean()), low, high, level, len(change), "Newcombe, paired")
    return Difference(interval, worse, better, chance)


def _is_share(values: Floats) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _wilson(share: float, count: int, level: float) -> tuple[float, float]:
    from scipy import stats

    found = stats.binomtest(round(share * count), count).proportion_ci(confidence_level=level, method="wilson")
    return float(found.low), float(found.high)


def _newcombe(old: Floats, new: Floats, worth: int, level: float) -> tuple[float, float]:
    """The interval of the difference of two paired shares (Newcombe 1998, method 10 without its correction)."""
    import numpy as np

    before, after = float(old.mean()), float(new.mean())
    alike = float(np.corrcoef(old, new)[0, 1]) if 0 < before < 1 and 0 < after < 1 else 0.0
    (low_before, high_before), (low_after, high_after) = (_wilson(share, worth, level) for share in (before, after))

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * alike * one * other + other * other))

    change = after - before
    return (
        change - reach(after - low_after, high_before - before),
        change + reach(high_after - after, before - low_before),
    )


def _bootstrapped(values: Floats, samples: Samples, level: float) -> Interval | str:
    """Resamples stretches of consecutive records, so that what makes neighbours alike is kept."""
    import numpy as np
    from scipy import stats

    length = _stretch(values, samples)
    count = min(_MOST, len(values) // length)
    if count < _FEWEST:
        return (
            f"too few: {len(values)} records, in {count} stretches that do not depend on each other; at least "
            f"{_FEWEST} are needed"
        )
    means = np.array([part.mean() for part in np.array_split(values, count)])
    mean = float(values.mean())
    method = f"bootstrap of {count} stretches of {len(values) / count:.3g} records" if length > 1 else "bootstrap"
    if np.ptp(means) == 0:
        return Interval(mean, mean, mean, level, len(values), f"{method}; all are equal")
    found = stats.bootstrap(
        (means,), np.mean, vectorized=True, confidence_level=level, n_resamples=_resamples(level), method="BCa",
        random_state=np.random.default_rng(_SEED),
    ).confidence_interval  # fmt: skip
    return Interval(mean, float(found.low), float(found.high), level, len(values), method)


def _stretch(values: Floats, samples: Samples) -> int:
    """So many consecutive records that one stretch of them says nothing of the next one, as far as there are enough."""
    if not samples.follow_each_other:
        return 1
    import numpy as np

    length = max(1, samples.overlap)
    while len(values) // (2 * length) >= _FEWEST:
        count = len(values) // length
        means = values[: count * length].reshape(count, length).mean(axis=1)
        if np.ptp(means) == 0:
            break
        left = means - means.mean()
        alike = float((left[:-1] * left[1:]).sum() / (left * left).sum())
        if alike < 1 / math.sqrt(count):
            break
        length *= 2
    return length


def _independent_worth(values: Floats, samples: Samples) -> int:
    """As many independent records say as much of the mean."""
    import numpy as np

    if not samples.follow_each_other:
        return len(values)
    length = _stretch(values, samples)
    count = len(values) // length
    spread = float(values.var())
    if spread == 0 or count < 2:
        return max(1, len(values) // max(1, samples.overlap))
    means = values[: count * length].reshape(count, length).mean(axis=1)
    factor = max(1.0, length * float(np.var(means, ddof=1)) / spread)
    return max(1, round(len(values) / factor))


def _resamples(level: float) -> int:
    return max(_RESAMPLES, math.ceil(20 / (1 - level)))


def _of_macro(samples: Samples, kind: Macro, level: float) -> Interval | str:
    import numpy as np

    truth, predicted = (np.asarray(answers, dtype=np.int64) for answers in (samples.truth, samples.predicted))
    if not len(truth):
        return "no record was scored"
    right = (truth == predicted).astype(np.float64)
    if right.all():  # every resample is the same: what is not seen has the chance that it has for the share
        low, _ = _wilson(1.0, len(truth), level)
        return Interval(1.0, low, 1.0, level, len(truth), "Wilson, of the share that is right")
    cells, counts = np.unique(np.column_stack([truth, predicted]), axis=0, return_counts=True)
    value = float(_macro(cells[:, 0], cells[:, 1], counts[None], kind)[0])
    found = np.concatenate(
        [_macro(cells[:, 0], cells[:, 1], weights, kind) for weights in _weights(counts, _resamples(level))]
    )
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, len(truth), "bootstrap of the records")


def _macro_difference(  # noqa: PLR0917 - both packages, and what is known of them
    truth: Integers, old: Integers, new: Integers, records: Integers, kind: Macro, level: float
) -> Difference | str:
    import numpy as np

    worse = records[(old == truth) & (new != truth)].tolist()
    better = records[(old != truth) & (new == truth)].tolist()
    if np.array_equal(old, new):
        low, high = _newcombe((old == truth).astype(np.float64), (new == truth).astype(np.float64), len(truth), level)
        method = "Newcombe, of the share that is right: every answer is the same"
        return Difference(Interval(0.0, low, high, level, len(truth), method), worse, better)
    cells, counts = np.unique(np.column_stack([truth, old, new]), axis=0, return_counts=True)

    def change(weights: Integers) -> Floats:
        now, before = (_macro(cells[:, 0], cells[:, at], weights, kind) for at in (2, 1))
        return now - before

    value = float(change(counts[None])[0])
    found = np.concatenate([change(weights) for weights in _weights(counts, _resamples(level))])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    interval = Interval(value, float(low), float(high), level, len(truth), "paired bootstrap of the records")
    return Difference(interval, worse, better)


def _weights(counts: Integers, resamples: int) -> list[Integers]:
    """How often each of some distinct records is drawn, for each resample: drawing records one by one, at a cost that
    does not grow with their number."""
    import numpy as np

    random, total = np.random.default_rng(_SEED), int(counts.sum())
    size = max(1, _BATCH // len(counts))
    shares = counts / total
    return [random.multinomial(total, shares, size=min(size, resamples - done)) for done in range(0, resamples, size)]


def _macro(truth: Integers, predicted: Integers, weights: Integers, kind: Macro) -> Floats:
    """For each row of weights, the average over the classes that occur. As scikit-learn's with zero_division=0."""
    import numpy as np

    classes = np.unique(np.concatenate([truth, predicted[predicted >= 0]]))
    labelled, answered = _sums(truth, weights, classes), _sums(predicted, weights, classes)
    right = _sums(np.where(truth == predicted, truth, -1), weights, classes)
    whole = {"precision": answered, "recall": labelled, "f1": (answered + labelled) / 2}[kind]
    each = np.divide(right, whole, out=np.zeros_like(right), where=whole > 0)
    occurs = (labelled > 0) | (answered > 0)
    averages: Floats = each.sum(axis=1) / np.maximum(1, occurs.sum(axis=1))
    return averages


def _sums(answers: Integers, weights: Integers, classes: Integers) -> Floats:
    """The weights of each class: resamples x classes."""
    import numpy as np

    found = np.zeros((len(weights), len(classes)))
    order = np.argsort(answers, kind="stable")
    order = order[answers[order] >= 0]
    if len(order):
        names, starts = np.unique(answers[order], return_index=True)
        found[:, np.searchsorted(classes, names)] = np.add.reduceat(weights[:, order], starts, axis=1)
    return found
