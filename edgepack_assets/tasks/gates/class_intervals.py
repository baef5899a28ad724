"""How sure metrics of classes and states are that are no means over records: averages over classes, and the adjusted
Rand index of states and the truth. Pure functions; those of the other metrics are in intervals.py.

Records are drawn one by one; where they follow each other, in stretches of consecutive ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack_assets.model_types.samples import Macro, Samples
from edgepack_assets.tasks.gates.resampling import (
    FEWEST,
    SEED,
    Difference,
    Interval,
    newcombe,
    resamples_for,
    stretch_of,
    wilson,
)

if TYPE_CHECKING:
    from edgepack_assets.tasks.gates.resampling import Floats, Integers

_BATCH = 1 << 22
"""Random numbers that are held at once."""
_MOST_STATES = 100
"""States whose length is looked at."""


def of_macro(samples: Samples, kind: Macro, level: float) -> Interval | str:
    """The interval of an average over classes, or why it has none."""
    import numpy as np

    truth, predicted = (np.asarray(answers, dtype=np.int64) for answers in (samples.truth, samples.predicted))
    if not len(truth):
        return "no record was scored"
    right = (truth == predicted).astype(np.float64)
    if right.all():  # every resample is the same: what is not seen has the chance that it has for the share
        low, _ = wilson(1.0, len(truth), level)
        return Interval(1.0, low, 1.0, level, len(truth), "Wilson, of the share that is right")
    cells, counts = np.unique(np.column_stack([truth, predicted]), axis=0, return_counts=True)
    value = float(_macro(cells[:, 0], cells[:, 1], counts[None], kind)[0])
    found = np.concatenate(
        [_macro(cells[:, 0], cells[:, 1], weights, kind) for weights in _weights(counts, resamples_for(level))]
    )
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, len(truth), "bootstrap of the records")


def macro_difference(  # noqa: PLR0917 - both packages, and what is known of them
    truth: Integers, old: Integers, new: Integers, records: Integers, kind: Macro, level: float
) -> Difference | str:
    """How an average over classes differs from that of the answers before, on the same records."""
    import numpy as np

    worse = records[(old == truth) & (new != truth)].tolist()
    better = records[(old != truth) & (new == truth)].tolist()
    if np.array_equal(old, new):
        low, high = newcombe((old == truth).astype(np.float64), (new == truth).astype(np.float64), len(truth), level)
        method = "Newcombe, of the share that is right: every answer is the same"
        return Difference(Interval(0.0, low, high, level, len(truth), method), worse, better)
    cells, counts = np.unique(np.column_stack([truth, old, new]), axis=0, return_counts=True)

    def change(weights: Integers) -> Floats:
        now, before = (_macro(cells[:, 0], cells[:, at], weights, kind) for at in (2, 1))
        return now - before

    value = float(change(counts[None])[0])
    found = np.concatenate([change(weights) for weights in _weights(counts, resamples_for(level))])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    interval = Interval(value, float(low), float(high), level, len(truth), "paired bootstrap of the records")
    return Difference(interval, worse, better)


def _weights(counts: Integers, resamples: int) -> list[Integers]:
    """How often each of some distinct records is drawn, for each resample: drawing records one by one, at a cost that
    does not grow with their number."""
    import numpy as np

    random, total = np.random.default_rng(SEED), int(counts.sum())
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


def of_agreement(samples: Samples, level: float) -> Interval | str:
    """The interval of the adjusted Rand index, or why it has none."""
    import numpy as np

    truth, states = (np.asarray(answers, dtype=np.int64) for answers in (samples.truth, samples.predicted))
    stretches = _stretches(truth, (states,), samples)
    if isinstance(stretches, str):
        return stretches
    cells, counts = stretches
    value = float(_adjusted_rand(cells[:, 0], cells[:, 1], counts.sum(axis=0)[None])[0])
    method = f"bootstrap of {len(counts)} stretches of {len(truth) / len(counts):.3g} records"
    if value == 1:  # in every resample, too: what is not seen has the chance that it has for a share of the stretches
        return Interval(1.0, wilson(1.0, len(counts), level)[0], 1.0, level, len(truth), f"{method}; all agree")
    found = _adjusted_rand(cells[:, 0], cells[:, 1], _drawn(counts, level))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, len(truth), method)


def agreement_difference(
    truth: Integers, old: Integers, new: Integers, samples: Samples, level: float
) -> Difference | str:
    """How the adjusted Rand index differs from that of the states before, on the same records. It is no mean, so no
    single record gets better or worse."""
    import numpy as np

    stretches = _stretches(truth, (old, new), samples)
    if isinstance(stretches, str):
        return stretches
    cells, counts = stretches

    def change(weights: Integers) -> Floats:
        now, before = (_adjusted_rand(cells[:, 0], cells[:, at], weights) for at in (2, 1))
        return now - before

    low, high = np.quantile(change(_drawn(counts, level)), [(1 - level) / 2, (1 + level) / 2])
    value = float(change(counts.sum(axis=0)[None])[0])
    method = f"paired bootstrap of {len(counts)} stretches of {len(truth) / len(counts):.3g} records"
    return Difference(Interval(value, float(low), float(high), level, len(truth), method))


def _stretches(truth: Integers, answers: Sequence[Integers], samples: Samples) -> tuple[Integers, Integers] | str:
    """The different (truth, state, ...) of records, and how often each stretch of consecutive records has them
    (stretches x cells); why there are too few of these."""
    import numpy as np

    if not len(truth):
        return "no record was scored"
    # The truth and a state are alike for as long as the machine stays in it.
    longest = max(
        stretch_of((each == value).astype(np.float64), samples)
        for each in (truth, *answers) for value in np.unique(each)[:_MOST_STATES]
    )  # fmt: skip
    count = len(truth) // longest
    if count < FEWEST:
        return (
            f"too few: {len(truth)} records, in {count} stretches that do not depend on each other; at least {FEWEST} "
            "are needed"
        )
    cells, at = np.unique(np.column_stack([truth, *answers]), axis=0, return_inverse=True)
    counts = np.zeros((count, len(cells)), dtype=np.int64)
    np.add.at(counts, (np.arange(len(truth)) * count // len(truth), at.ravel()), 1)
    return cells, counts


def _drawn(counts: Integers, level: float) -> Integers:
    """The records of each cell, for each resample of the stretches."""
    import numpy as np

    weights = np.concatenate(_weights(np.ones(len(counts), dtype=np.int64), resamples_for(level)))
    drawn: Integers = weights @ counts
    return drawn


def _adjusted_rand(truth: Integers, states: Integers, weights: Integers) -> Floats:
    """For each row of weights. As scikit-learn's adjusted_rand_score."""
    import numpy as np

    def pairs(codes: Integers) -> Floats:
        _, groups = np.unique(codes, return_inverse=True)
        of_group = np.zeros((groups.max() + 1, weights.shape[0]))
        np.add.at(of_group, groups.ravel(), weights.T)
        found: Floats = (of_group * (of_group - 1) / 2).sum(axis=0)
        return found

    total = weights.sum(axis=1)
    of_truth, of_states = pairs(truth), pairs(states)
    _, together = np.unique(np.column_stack([truth, states]), axis=0, return_inverse=True)
    both = pairs(together.ravel())
    expected = of_truth * of_states / np.maximum(1, total * (total - 1) / 2)
    room = (of_truth + of_states) / 2 - expected
    found: Floats = np.divide(both - expected, room, out=np.ones_like(room), where=room != 0)
    return found
