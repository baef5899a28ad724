"""What a window of records looks like, for the envelope: level, spread and roughness of each channel, what is missing,
how far channels are from each other, and how many values are those of the record before. Ships if `envelope` is set."""

import itertools

import numpy as np


def names(channels: "list[str]") -> "list[str]":
    """Of the features, in their order."""
    of = [f"{kind} of {channel}" for kind in ("level", "spread", "roughness", "missing") for channel in channels]
    of += [f"{other} less {channel}" for channel, other in itertools.pairwise(channels)]
    return of + [f"repeated of {channel}" for channel in channels]


def alone(channels: int) -> int:
    """So many of the first are looked at each by itself, too."""
    return 5 * channels - 1


def floors(rows: "np.ndarray") -> "list[float]":
    """Differences of features that mean nothing. `rows`: the whole recording."""
    levels = np.nan_to_num(np.nanmean(np.abs(rows), axis=0)) if np.isfinite(rows).any() else np.ones(rows.shape[1])
    small = 0.002 * np.maximum(levels, 1e-9)
    return [
        *small,
        *np.full(2 * len(small), 0.05),
        *np.full(len(small), 0.02),
        *(small[:-1] + small[1:]),
        *np.full(len(small), 0.02),
    ]


def window_features(rows: "np.ndarray") -> "np.ndarray":
    """Of one window, records x channels, NaN for a missing value."""
    missing = np.isnan(rows)
    if missing.any():  # each missing value is the one before it, or where there is none the channel's first
        rows = _filled(rows, missing)
    level = rows.mean(axis=0)
    least = 1e-6 * np.abs(rows).max(axis=0) + 1e-12
    spread = np.log(rows.std(axis=0) + least)
    steps = np.abs(np.diff(rows, axis=0)) if len(rows) > 1 else np.zeros_like(rows)
    roughness = np.log(steps.mean(axis=0) + least)
    repeated = ((steps == 0) & ~missing[-len(steps) :]).mean(axis=0)
    return np.concatenate([level, spread, roughness, missing.mean(axis=0), np.diff(level), repeated])


def _filled(rows: "np.ndarray", missing: "np.ndarray") -> "np.ndarray":
    filled = rows.copy()
    for column in range(rows.shape[1]):
        known = np.flatnonzero(~missing[:, column])
        if not len(known):
            filled[:, column] = 0.0
            continue
        last = np.maximum.accumulate(np.where(missing[:, column], known[0], np.arange(len(rows))))
        filled[:, column] = rows[last, column]
    return filled
