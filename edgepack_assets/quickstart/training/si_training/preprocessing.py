"""Transformers from raw power readings to one row of features per window of time."""
# ruff: noqa: N803  # X is what scikit-learn calls its input

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

Values = NDArray[np.float64]


class _Stateless(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A transformer that learns nothing from the data."""

    def fit(self, X: Any, y: Any = None) -> Self:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


class FillMissingValues(_Stateless):
    """Fills a missing value with the one before it in its column. With none before it, it stays missing."""

    def __init__(self, method: str = "ffill") -> None:
        self.method = method

    def transform(self, X: Any) -> Values:
        if self.method != "ffill":
            raise ValueError(f"unknown method {self.method!r}; there is: ffill")
        values = np.asarray(X, dtype=np.float64)
        rows = np.arange(len(values))[:, np.newaxis]
        last_seen = np.maximum.accumulate(np.where(np.isnan(values), 0, rows), axis=0)
        filled: Values = np.take_along_axis(values, last_seen, axis=0)
        return filled


class SumColumnsTransformer(_Stateless):
    """Sums the columns of each row into one."""

    def transform(self, X: Any) -> Values:
        total: Values = np.asarray(X, dtype=np.float64).sum(axis=1, keepdims=True)
        return total


class WindowTransformer(_Stateless):
    """Cuts one column into windows: a row per window. Rows after the last full window are left out."""

    def __init__(self, window_size: int = 300, window_step: int = 300) -> None:
        self.window_size = window_size
        self.window_step = window_step

    def transform(self, X: Any) -> Values:
        values = np.asarray(X, dtype=np.float64).ravel()
        if len(values) < self.window_size:
            return np.empty((0, self.window_size))
        windows: Values = np.lib.stride_tricks.sliding_window_view(values, self.window_size)
        return windows[:: self.window_step]


class FeatureTransformer(_Stateless):
    """Describes each window by its largest, smallest and mean value, its spread, and the sums of its rises
    and falls."""

    def transform(self, X: Any) -> Values:
        windows = np.asarray(X, dtype=np.float64)
        changes = np.diff(windows, axis=1)
        features = (
            windows.max(axis=1),
            windows.min(axis=1),
            windows.mean(axis=1),
            windows.std(axis=1),
            np.where(changes > 0, changes, 0.0).sum(axis=1),
            np.where(changes < 0, changes, 0.0).sum(axis=1),
        )
        return np.column_stack(features)
