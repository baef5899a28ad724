"""Metrics of a state identifier's answers: silhouette, Dunn index, inertia."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack_assets.checks import CheckRow
from edgepack_assets.filesystem.parquet import read_columns
from edgepack_assets.model_types.interface import Prepped, Results, Score
from edgepack_assets.model_types.state_identifier.cluster_separation import separation
from edgepack_assets.model_types.state_identifier.state_names import names_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_STATES = 100
"""Rows of the table of states; a model may answer as many as it likes."""
FIXED_COLUMNS = ("record", "model_prediction")
"""Columns of prepped data that are no features: the record that completes the window, and what the model's own
clustering says of the window in one pass over the recording (-1 where the window has values nobody can fill)."""


def score(results: Results, prepped: Prepped, inspection: Mapping[str, Any]) -> Score:
    """Join answers and windows by record number and score them.

    A metric that cannot be computed (one cluster only, say) is NaN, which passes no gate.
    """
    import numpy as np

    columns = read_columns(prepped.file)
    records, expected = columns["record"], columns["model_prediction"]
    features = np.column_stack([values for name, values in columns.items() if name not in FIXED_COLUMNS])
    answers = {answer.record: answer.outputs for answer in results.answers()}
    due = expected >= 0
    due_records = {int(record) for record in records[due]}
    stray = sorted(answers.keys() - due_records)
    unanswered = sorted(due_records - answers.keys())
    rows = [
        CheckRow(
            "answers", len(answers) == len(due_records), str(len(answers)), f"{len(due_records)}, one for a window"
        ),
        CheckRow("windows without an answer", not unanswered, _some(unanswered), "none"),
        CheckRow("answers to records that complete no window", not stray, _some(stray), "none"),
    ]
    joined = [i for i in range(len(records)) if due[i] and int(records[i]) in answers]
    labels = np.array([answers[int(records[i])]["prediction"] for i in joined], dtype=np.int64)
    differing = [int(records[i]) for i, label in zip(joined, labels, strict=True) if label != expected[i]]
    inertias = sorted({float(outputs["inertia"]) for outputs in answers.values()})
    rows += [
        CheckRow("answers that differ from the model's own batch predictions", not differing, _some(differing), "none"),
        CheckRow("inertia", len(inertias) == 1, _some(inertias), "one value, the same in every answer"),
    ]
    separated = separation(features[joined] if joined else features[:0], labels)
    return Score(
        metrics={
            "silhouette": separated.silhouette,
            "dunn_index": separated.dunn_index,
            "inertia": inertias[-1] if len(inertias) == 1 else math.nan,
        },
        parts=tuple(rows),
        tables={"States": _states(labels, names_of(inspection))},
    )


def _states(labels: NDArray[np.int64], names: Mapping[int, str]) -> list[dict[str, Any]]:
    counts = Counter(labels.tolist())
    return [
        {
            "state": state,
            **({"name": names.get(state, "")} if names else {}),
            "windows": windows,
            "share": round(windows / len(labels), 4),
        }
        for state, windows in sorted(counts.most_common(_MOST_STATES))
    ]


def _some(values: list[Any]) -> str:
    if not values:
        return "none"
    shown = ", ".join(map(str, values[:5]))
    return shown if len(values) <= 5 else f"{len(values)}: {shown}, ..."
