"""What a recording's rows say beside the channels: the time of each, held to the sampling period, and its label."""

from __future__ import annotations

from collections import Counter
from typing import Any

from edgepack_assets.errors import RawDataError
from edgepack_assets.filesystem.parquet import to_numpy
from edgepack_assets.model_types.interface import Label

_UNITS_IN_MS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
_MEAN_TOLERANCE = 0.01
_MOST_LABELS = 200
_LONGEST_LABEL = 200


class Clock:
    """The times of the rows. The component counts records, so a missing row would shift all windows after it.

    A row may come up to half a period early or late. Over the whole recording the mean distance is within 1 % of the
    period: else another sampling rate is configured than was recorded."""

    def __init__(self, column: str, period_ms: int) -> None:
        self.column, self._period = column, period_ms
        self._first: int | None = None
        self._last = 0
        self._unit = "ns"
        self._rows = 0
        self._shortest, self._longest = float("inf"), 0.0

    def read(self, times: Any, file: str, first_row: int) -> None:
        """Take the next rows' times, an Arrow array. Raises RawDataError naming file and row."""
        import numpy as np
        import pyarrow as pa

        if not pa.types.is_timestamp(times.type):
            raise RawDataError(
                f"{file}: timestamp_column {self.column} holds {times.type}, not timestamps: write it as Parquet's "
                "timestamps (pandas: a datetime64 column)"
            )
        if times.null_count:
            row = first_row + times.is_null().to_pylist().index(True)
            raise RawDataError(f"{file}: timestamp_column {self.column} has no time in row {row}")
        self._unit = times.type.unit
        values = to_numpy(times.cast(pa.int64()))
        if not len(values):
            return
        starts_here = self._first is None
        if self._first is None:
            self._first = int(values[0])
        else:
            values = np.concatenate([[self._last], values])
        apart = np.diff(values) * _UNITS_IN_MS[self._unit]
        wrong = np.flatnonzero((apart <= self._period / 2) | (apart >= self._period * 1.5))
        if wrong.size:
            row = first_row + int(wrong[0]) + (1 if starts_here else 0)
            raise RawDataError(
                f"{file}: row {row} comes {apart[wrong[0]]:.6g} ms after the row before it, and sampling_period_ms is "
                f"{self._period}: windows of so many records would span another time there. Record without gaps, fill "
                "them with rows of missing values, cut the recording there, or set the period that it was sampled with"
            )
        if apart.size:
            self._shortest, self._longest = min(self._shortest, apart.min()), max(self._longest, apart.max())
        self._last = int(values[-1])
        self._rows += len(apart) + (1 if starts_here else 0)

    def facts(self) -> dict[str, Any]:
        """What the times were. Raises RawDataError if their mean distance is another one than configured."""
        between = self._rows - 1
        if self._first is None or between < 1:
            return {"sampling": {"column": self.column}}
        mean = (self._last - self._first) * _UNITS_IN_MS[self._unit] / between
        if abs(mean - self._period) > _MEAN_TOLERANCE * self._period + self._period / between:
            raise RawDataError(
                f"timestamp_column {self.column}: the rows are {mean:.6g} ms apart on average, and sampling_period_ms "
                f"is {self._period}: set the period that the recording was sampled with"
            )
        return {
            "sampling": {
                "column": self.column, "mean_ms": mean,
                "shortest_ms": float(self._shortest), "longest_ms": float(self._longest),
            }
        }  # fmt: skip


class Labels:
    """The true state of each row where it is known: texts, whole numbers or booleans."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._counts: Counter[str] = Counter()

    def read(self, labels: Any, file: str, first_row: int) -> list[Label | None]:
        """The next rows' labels from an Arrow array, None where there is none. Raises RawDataError."""
        import pyarrow as pa

        if pa.types.is_dictionary(labels.type):
            labels = labels.dictionary_decode()
        kind = labels.type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        is_whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
        if not (is_text or is_whole or pa.types.is_floating(kind)):
            raise RawDataError(
                f"{file}: label_column {self.column} holds {kind}; a label is text, a whole number or a boolean"
            )
        row_labels = [self._label(value, file, first_row + at) for at, value in enumerate(labels.to_pylist())]
        self._counts.update(str(label) for label in row_labels if label is not None)
        if len(self._counts) > _MOST_LABELS:
            raise RawDataError(
                f"{file}: label_column {self.column} holds more than {_MOST_LABELS} different values: it does not name "
                "states"
            )
        return row_labels

    def _label(self, value: Any, file: str, row: int) -> Label | None:
        if isinstance(value, float):
            if value != value:  # noqa: PLR0124 - NaN is how pandas writes a missing whole number
                return None
            if not value.is_integer():
                raise RawDataError(
                    f"{file}: label_column {self.column} holds {value!r} in row {row}; a label is text, a whole number "
                    "or a boolean"
                )
            return int(value)
        if isinstance(value, str) and len(value) > _LONGEST_LABEL:
            raise RawDataError(
                f"{file}: label_column {self.column} has a text of {len(value)} characters in row {row}; a label has "
                f"at most {_LONGEST_LABEL}"
            )
        return None if value is None or value == "" else value

    def facts(self) -> dict[str, Any]:
        """How many rows have which label."""
        return {"labels": dict(sorted(self._counts.items())), "labelled": self._counts.total()}
