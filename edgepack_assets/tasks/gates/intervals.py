"""How sure metrics are: intervals, of one package and of the difference of two on the same records. Pure functions.

Shares have Wilson's interval, and their difference Newcombe's for pairs. Other means are bootstrapped over stretches of
consecutive records, and averages over classes over the records. All random numbers have a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgepack_assets.model_types.samples import Samples
from edgepack_assets.tasks.gates.class_intervals import (
    agreement_difference,
    macro_difference,
    of_agreement,
    of_macro,
)
from edgepack_assets.tasks.gates.resampling import (
    Difference,
    Interval,
    bootstrapped,
    independent_worth,
    is_share,
    newcombe,
    wilson,
)

if TYPE_CHECKING:
    from edgepack_assets.tasks.gates.resampling import Floats, Integers

_NO_SUCH_VALUES = "the package before has no such values"


def intervals(samples: Samples, level: float) -> dict[str, Interval | str]:
    """Metric -> its interval, or why it has none."""
    import numpy as np

    found: dict[str, Interval | str] = {
        name: _of_mean(np.asarray(values, dtype=np.float64), samples, level) for name, values in samples.values.items()
    }
    for name, kind in samples.macro.items():
        found[name] = of_agreement(samples, level) if kind == "adjusted_rand" else of_macro(samples, kind, level)
    for name, (of, factor, added) in samples.scaled.items():
        base = found[of]
        found[name] = base if isinstance(base, str) else _scaled(base, factor, added)
    return found


def _scaled(interval: Interval, factor: float, added: float) -> Interval:
    low, high = sorted((factor * interval.low + added, factor * interval.high + added))
    return replace(interval, value=factor * interval.value + added, low=low, high=high)


def differences(
    before: Samples, now: Samples, level: float, lower_is_better: Collection[str] = ()
) -> dict[str, Difference | str]:
    """Metric -> how it differs on the records that both have, or why that is not known."""
    import numpy as np

    records, at_before, at_now = np.intersect1d(before.records, now.records, return_indices=True)
    if 2 * len(records) < max(len(before.records), len(now.records), 1):
        why = f"only {len(records)} records were scored in both"
        return dict.fromkeys({*now.values, *now.macro, *now.scaled}, why)
    found: dict[str, Difference | str] = {}
    for name, values in now.values.items():
        if name not in before.values:
            found[name] = _NO_SUCH_VALUES
            continue
        old, new = (
            np.asarray(v, dtype=np.float64)[at] for v, at in ((before.values[name], at_before), (values, at_now))
        )
        found[name] = _difference(old, new, records, now, level, name in lower_is_better)
    for name, kind in now.macro.items():
        if name not in before.macro:
            found[name] = _NO_SUCH_VALUES
            continue
        truth = np.asarray(now.truth, dtype=np.int64)[at_now]
        then = np.asarray(before.predicted, dtype=np.int64)[at_before]
        answered = np.asarray(now.predicted, dtype=np.int64)[at_now]
        if not np.array_equal(truth, np.asarray(before.truth, dtype=np.int64)[at_before]):
            found[name] = "the records have another truth now"
            continue
        if kind == "adjusted_rand":
            found[name] = agreement_difference(truth, then, answered, now, level)
        else:
            found[name] = macro_difference(truth, then, answered, records, kind, level)
    for name, (of, factor, added) in now.scaled.items():
        earlier, base = before.scaled.get(name), found[of]
        if isinstance(base, str) or earlier is None:
            found[name] = base if isinstance(base, str) else _NO_SUCH_VALUES
        elif earlier[1] != factor:
            found[name] = "it is of another number of records"
        else:
            found[name] = replace(base, interval=_scaled(base.interval, factor, added - earlier[2]))
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
    if is_share(values):
        worth = independent_worth(values, samples)
        low, high = wilson(mean, worth, level)
        method = "Wilson" + (f", as of {worth} independent records" if worth < len(values) else "")
        return Interval(mean, low, high, level, len(values), method)
    return bootstrapped(values, samples, level)


def _difference(  # noqa: PLR0917 - both packages, and what is known of them
    old: Floats, new: Floats, records: Integers, samples: Samples, level: float, lower_is_better: bool
) -> Difference | str:
    import numpy as np
    from scipy import stats  # type: ignore[import-untyped]  # scipy has no types

    change = new - old
    loss = change if lower_is_better else -change
    order = np.argsort(-np.abs(loss), kind="stable")  # what changed most comes first
    worse, better = records[order][loss[order] > 0].tolist(), records[order][loss[order] < 0].tolist()
    if not (is_share(old) and is_share(new)):
        found = bootstrapped(change, samples, level)
        return Difference(found, worse, better) if isinstance(found, Interval) else found
    worth = independent_worth(change, samples)
    low, high = newcombe(old, new, worth, level)
    chance = None
    if not samples.follow_each_other:
        unequal = len(worse) + len(better)
        chance = float(stats.binomtest(len(worse), unequal).pvalue) if unequal else 1.0
    interval = Interval(float(change.mean()), low, high, level, len(change), "Newcombe, paired")
    return Difference(interval, worse, better, chance)
