"""The state identifier on the edge: buffers records and answers each completed window.

Ships with the component and imports nothing of the packaging project. A record costs one append to a ring
buffer; the model runs once a window. The window goes through the model's own fitted steps, preceded by two
context rows (the last value seen of each column, and the record before the window), so that a value missing
in a window's first row is filled as it would be in one pass over the whole recording.
"""

import importlib
import json
import logging
import math
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = ("ph1", "ph2", "ph3")
_LOG = logging.getLogger("state_identifier")
_MISSING = float("nan")
_LARGEST = 2**1000  # an integer beyond a double's range would fail the whole window


def load_model(folder: Path) -> "tuple[Any, dict]":
    """(fitted pipeline, model.json) of the component in `folder`."""
    settings = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    path = folder / settings["file"]
    if settings["format"] == "skops":
        # The packaging lists the types that the model was inspected with; the edge loads no others.
        skops_io = importlib.import_module("skops.io")
        trusted = settings.get("trusted_types")
        if trusted is None:
            trusted = skops_io.get_untrusted_types(file=path)
        return skops_io.load(path, trusted=trusted), settings
    joblib = importlib.import_module("joblib")
    return joblib.load(path), settings


class ModelInput:
    """Turns rows of ph1, ph2, ph3 into what the model takes: its own columns, in its own order.

    `settings` is model.json. `columns` lists the payload's variables in the model's order. `names` lists the names
    under which the model knows them: with names it gets a frame, without an array.
    """

    def __init__(self, settings: dict) -> None:
        columns = settings.get("columns", COLUMNS)
        in_order = list(columns) == list(COLUMNS)
        self._order = None if in_order else [COLUMNS.index(column) for column in columns]
        self._names = settings.get("names") or (list(COLUMNS) if settings.get("input") == "frame" else None)

    def __call__(self, rows: "np.ndarray") -> Any:
        """The rows as the model takes them."""
        ordered = rows if self._order is None else rows[:, self._order]
        if self._names is None:
            return ordered
        return importlib.import_module("pandas").DataFrame(ordered, columns=self._names)


def as_features(data: Any) -> "np.ndarray":
    """What the preprocessing gave, as an array of floating numbers."""
    features = np.asarray(data)
    return features if features.dtype.kind == "f" else features.astype(np.float64)


class StateIdentifier:
    """Windows of records in, cluster of the window out. One object per stream of records."""

    def __init__(self, model: Any, settings: dict) -> None:
        preprocessing = model.named_steps["preprocessing"]
        names = list(preprocessing.named_steps)
        at = names.index("windowing")
        windowing = preprocessing.named_steps["windowing"]
        self.window_size = int(windowing.window_size)
        self.step_size = int(windowing.window_step)
        self._before = [preprocessing.named_steps[name] for name in names[:at] if _transforms(preprocessing, name)]
        self._after = [preprocessing.named_steps[name] for name in names[at:] if _transforms(preprocessing, name)]
        self.clustering = model.named_steps["clustering"]
        self._inertia = float(self.clustering.inertia_)
        self._as_input = ModelInput(settings)
        # the window, the record before it, and room for neither more nor less
        self._rows: deque[tuple[float, ...]] = deque(maxlen=self.window_size + 1)
        self._last_seen = [_MISSING] * len(COLUMNS)  # of all records that have left the buffer
        self._to_go = self.window_size
        self._answered = False

    def update_parameters(self, params: dict) -> None:
        """Change `step_size`: the next answer comes that many records after the last one."""
        if "step_size" not in params:
            return
        step = params["step_size"]
        if isinstance(step, bool) or not isinstance(step, int) or step < 1:
            _LOG.error("step_size %r is refused: it must be an integer from 1 up; %d stays", step, self.step_size)
            return
        if self._answered:
            self._to_go = max(1, self._to_go + step - self.step_size)
        self.step_size = step

    def process(self, record: dict) -> "dict | None":
        """Take one record. Returns the answer if it completes a window, else None."""
        row = _read(record)
        if row is None:
            return None
        rows = self._rows
        if len(rows) == rows.maxlen:
            for column, value in enumerate(rows[0]):
                if value == value:  # noqa: PLR0124 - not NaN, at a tenth of isnan's cost
                    self._last_seen[column] = value
        rows.append(row)
        self._to_go -= 1
        if self._to_go > 0:
            return None
        self._to_go = self.step_size
        self._answered = True
        return self._answer()

    def _answer(self) -> "dict | None":
        held = np.asarray(self._rows, dtype=np.float64)
        window = held[-self.window_size :]
        context = held[: len(held) - self.window_size]
        if len(context):
            context = np.vstack([np.asarray(self._last_seen)[None, :], context])
        try:
            data = self._prepared(np.vstack([context, window]) if len(context) else window, len(context))
        except ValueError as error:
            if not np.isfinite(window).all():
                _LOG.warning("no answer: the window has missing values that the model does not fill (%s)", error)
                return None
            if np.isfinite(context).all():
                raise
            # The model fills nothing, and it is the context that has a missing value.
            data = self._prepared(window, 0)
        features = as_features(data)
        if features.shape[0] != 1 or not np.isfinite(features).all():
            _LOG.warning("no answer: the window has missing values with nothing before them to fill them with")
            return None
        known = window[np.isfinite(window)]
        return {
            "prediction": int(self.clustering.predict(data)[0]),
            "inertia": self._inertia,
            "model_input_min": _metric(known.min() if known.size else None),
            "model_input_max": _metric(known.max() if known.size else None),
            "model_input_mean": _metric(known.mean() if known.size else None),
        }

    def _prepared(self, rows: "np.ndarray", context: int) -> Any:
        """The window's features as the preprocessing gives them: a frame keeps its names for the clustering."""
        data = self._as_input(rows)
        for step in self._before:
            data = step.transform(data)
        data = data.iloc[context:] if hasattr(data, "iloc") else data[context:]
        for step in self._after:
            data = step.transform(data)
        return data


def _transforms(preprocessing: Any, name: str) -> bool:
    return preprocessing.named_steps[name] not in (None, "passthrough")


def _metric(value: "float | None") -> str:
    return json.dumps({"value": None if value is None else float(value)})


def _read(record: dict) -> "tuple[float, ...] | None":
    """The record's row, NaN for a missing value; None, with a log line, for a record that cannot be used."""
    row = []
    for column in COLUMNS:
        if column not in record:
            _LOG.error("record refused: it has no %s", column)
            return None
        value = record[column]
        if value is None:
            row.append(_MISSING)
        elif isinstance(value, float) and not math.isinf(value):
            row.append(value)
        elif isinstance(value, int) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST:
            row.append(float(value))
        else:
            _LOG.error("record refused: %s is %.100r, not a finite number", column, value)
            return None
    return tuple(row)
