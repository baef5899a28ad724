"""State identifier models for tests, fitted with scikit-learn's own parts and a few transformers of a training
project's kind (they travel with the pickle as its own code)."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler


class Fill(TransformerMixin, BaseEstimator):
    """Fill missing values: "ffill", "bfill", "interpolate" or a constant; None fills nothing."""

    def __init__(self, how="ffill"):
        self.how = how

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        import pandas as pd

        frame = pd.DataFrame(np.asarray(X, dtype=float))
        if self.how == "ffill":
            frame = frame.ffill()
        elif self.how == "bfill":
            frame = frame.bfill()
        elif self.how == "interpolate":
            frame = frame.interpolate(limit_direction="both")
        elif self.how is not None:
            frame = frame.fillna(self.how)
        return frame.to_numpy()


class Smooth(TransformerMixin, BaseEstimator):
    """A rolling mean over rows: needs more of the past than a window and one row."""

    def __init__(self, rows):
        self.rows = rows

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        import pandas as pd

        return pd.DataFrame(X).rolling(self.rows, min_periods=1).mean().to_numpy()


class Difference(TransformerMixin, BaseEstimator):
    """Each row's change from the row before it."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.diff(X, axis=0, prepend=X[:1])


class Windows(TransformerMixin, BaseEstimator):
    """Rows x columns in, windows x rows x columns out."""

    def __init__(self, window_size, window_step):
        self.window_size = window_size
        self.window_step = window_step

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        X = np.asarray(X)
        starts = range(0, len(X) - self.window_size + 1, self.window_step)
        return np.stack([X[start : start + self.window_size] for start in starts])


class Features(TransformerMixin, BaseEstimator):
    """Mean, largest, smallest and total change of each window."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        total = X.sum(axis=2)
        change = np.abs(np.diff(total, axis=1)).sum(axis=1) if X.shape[1] > 1 else np.zeros(len(X))
        return np.column_stack([total.mean(axis=1), total.max(axis=1), total.min(axis=1), change])


def recording(rows: int, seed: int = 0) -> np.ndarray:
    """A recording of three levels, rows x 3, no missing values."""
    random = np.random.RandomState(seed)
    level = random.choice([100.0, 1000.0, 4000.0], size=rows // 40 + 1).repeat(40)[:rows]
    return level[:, None] * random.uniform(0.9, 1.1, size=(rows, 3))


def fitted(size: int, step: int, how: object = "ffill", extra: tuple = (), rows: np.ndarray | None = None) -> Pipeline:
    """A model fitted on `rows`, with windows of `size`, `step` apart; `extra` steps stand between filling and
    windowing."""
    preprocessing = Pipeline(
        [
            ("fillmissing", Fill(how)),
            *((f"extra{i}", step_) for i, step_ in enumerate(extra)),
            ("windowing", Windows(size, step)),
            ("featurization", Features()),
            ("scaling", MinMaxScaler()),
        ]
    )
    model = Pipeline([("preprocessing", preprocessing), ("clustering", KMeans(3, n_init=3, random_state=0))])
    return model.fit(recording(max(400, size * 8 + step * 8)) if rows is None else rows)


class Columns(TransformerMixin, BaseEstimator):
    """Takes ph1, ph2 and ph3 by name, as a model that was fitted on a DataFrame does."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X[["ph1", "ph2", "ph3"]]


class Single(TransformerMixin, BaseEstimator):
    """Features in single precision."""

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X, dtype=np.float32)
