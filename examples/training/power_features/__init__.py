"""Windows of three-phase power and their features: the model's own code, which MLflow saves with it (code_paths)."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class Windows(TransformerMixin, BaseEstimator):
    """The sum of the phases, cut into windows: a row for each. `config_package` reads both parameters."""

    def __init__(self, window_size: int = 300, window_step: int = 300) -> None:
        self.window_size = window_size
        self.window_step = window_step

    def fit(self, X: Any, y: Any = None) -> Windows:
        """Learns nothing."""
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Rows of `window_size` sums, `window_step` apart; none if there are too few."""
        total = np.asarray(X, dtype=float).sum(axis=1)
        if len(total) < self.window_size:
            return np.empty((0, self.window_size))
        return np.lib.stride_tricks.sliding_window_view(total, self.window_size)[:: self.window_step]


class Features(TransformerMixin, BaseEstimator):
    """Mean, spread, smallest and largest value of each window."""

    def fit(self, X: Any, y: Any = None) -> Features:
        """Learns nothing."""
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Four features for each row."""
        return np.column_stack([X.mean(axis=1), X.std(axis=1), X.min(axis=1), X.max(axis=1)])
