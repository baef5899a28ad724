"""Metrics of a state identifier's answers: how well they separate the windows, how well the model fits them, and how
well they agree with labels (label_agreement.py). Which metrics there are depends on the model and the recording."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgepack_assets.checks import CheckRow
from edgepack_assets.filesystem.parquet import read_columns
from edgepack_assets.model_types.interface import Payload, Prepped, Results, Samples, Score
from edgepack_assets.model_types.samples import Scaled
from edgepack_assets.model_types.state_identifier.cluster_separation import separation
from edgepack_assets.model_types.state_identifier.label_agreement import agreement, window_labels
from edgepack_assets.model_types.state_identifier.settings import PERIOD_MS, StateIdentifierSettings
from edgepack_assets.model_types.state_identifier.state_names import names_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HOUR_MS = 3_600_000
_MOST_STATES = 100
"""Rows of the table of states; a model may answer as many as it likes."""
LIKELIHOOD = "mixture_log_likelihood"
FIXED_COLUMNS = ("record", "model_prediction", LIKELIHOOD)
"""Columns of prepped data that are no features: the record that completes the window, what the model's own estimator
says of the window in one pass over the recording (-1 where the window has values nobody can fill), and of a mixture the
window's log likelihood."""
ALWAYS = frozenset({"silhouette", "dunn_index"})
LABELLED = frozenset({"accuracy", "adjusted_rand_index"})
OPTIONAL = frozenset({"inertia", "mean_log_likelihood", "bic"}) | LABELLED


def metrics_of(inspection: Mapping[str, Any], settings: StateIdentifierSettings) -> frozenset[str]:
    """The metrics of a model on a recording, as far as is known before the recording is read."""
    return ALWAYS | _of_model(inspection) | (LABELLED if settings.label_column is not None else frozenset())


def _of_model(inspection: Mapping[str, Any]) -> frozenset[str]:
    names = {"inertia"} if inspection.get("inertia") is not None else set()
    mixture = inspection.get("mixture")
    if mixture is not None:
        names |= {"mean_log_likelihood"} | ({"bic"} if mixture.get("free_parameters") else set())
    return frozenset(names)


def states_of(inspection: Mapping[str, Any]) -> Sequence[int] | None:
    """The states that the model can answer; None where it does not tell."""
    if inspection.get("states") is not None:
        return list(inspection["states"])
    return range(inspection["clusters"]) if inspection.get("clusters") is not None else None


def due_windows(
    features: NDArray[np.float64], predictions: NDArray[np.int64], inspection: Mapping[str, Any]
) -> NDArray[np.bool_]:
    """Which windows are to be answered: not those with values nobody can fill, whose prediction is -1. Where -1 may be
    a state too, as an outlier's, the features tell."""
    import numpy as np

    known = states_of(inspection)
    tells = known is not None and -1 not in known
    return np.asarray(predictions != -1 if tells else np.isfinite(features).all(axis=1))


@dataclass(frozen=True)
class _Joined:
    """Windows and answers, joined by record number. One entry for each window: its `records` number, its `features`,
    what the model `expected` by itself, whether it is `due` an answer. `at`: the places of the windows that are due one
    and have one, and `states` what was answered there. `answers` are all outputs, by record."""

    records: NDArray[np.int64]
    features: NDArray[np.float64]
    expected: NDArray[np.int64]
    due: NDArray[np.bool_]
    answers: Mapping[int, Mapping[str, Any]]
    at: list[int]
    states: NDArray[np.int64]


@dataclass
class _Found:
    """What a score is made of, metric by metric."""

    rows: list[CheckRow]
    metrics: dict[str, float]
    values: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]
    slices: dict[str, list[str]]
    scaled: dict[str, Scaled] = field(default_factory=dict)
    truth: list[int] = field(default_factory=list)


def score(results: Results, prepped: Prepped, inspection: Mapping[str, Any], payload: Payload) -> Score:
    """Join answers and windows by record number and score them.

    A metric that cannot be computed (one cluster only, say) is NaN, which passes no gate.
    """
    columns = read_columns(prepped.file)
    joined = _join(results, columns, inspection)
    separated = separation(joined.features[joined.at] if joined.at else joined.features[:0], joined.states)
    found = _Found(
        rows=_rows(joined),
        metrics={"silhouette": separated.silhouette, "dunn_index": separated.dunn_index},
        values={} if separated.silhouettes is None else {"silhouette": separated.silhouettes},
        tables={"States": _states(joined.states, inspection)},
        slices={"hour": _hours(joined.records[joined.at], inspection.get("period_ms") or PERIOD_MS)},
    )
    if "inertia" in _of_model(inspection):
        _add_inertia(found, joined)
    if LIKELIHOOD in columns:
        _add_likelihood(found, joined, columns[LIKELIHOOD], inspection)
    if payload.has_labels():
        _add_labels(found, joined, payload, inspection)
    samples = Samples(
        records=joined.records[joined.at].tolist(),
        values=found.values,
        truth=found.truth,
        predicted=joined.states.tolist() if found.truth else (),
        macro={"adjusted_rand_index": "adjusted_rand"} if found.truth else {},
        scaled=found.scaled,
        follow_each_other=True,
        overlap=-(-inspection.get("window_size", 1) // inspection.get("window_step", 1)),
        slices=found.slices,
    )
    return Score(metrics=found.metrics, parts=tuple(found.rows), tables=found.tables, samples=samples)


def _join(results: Results, columns: Mapping[str, NDArray[Any]], inspection: Mapping[str, Any]) -> _Joined:
    import numpy as np

    records, expected = columns["record"], columns["model_prediction"]
    features = np.column_stack([values for name, values in columns.items() if name not in FIXED_COLUMNS])
    answers = {answer.record: answer.outputs for answer in results.answers()}
    due = due_windows(features, expected, inspection)
    at = [i for i in range(len(records)) if due[i] and int(records[i]) in answers]
    states = np.array([answers[int(records[i])]["prediction"] for i in at], dtype=np.int64)
    return _Joined(records, features, expected, due, answers, at, states)


def _rows(joined: _Joined) -> list[CheckRow]:
    """Each window that is due an answer has one, nothing else has, and the answers are the model's own."""
    answers, records = joined.answers, joined.records
    due = {int(record) for record in records[joined.due]}
    stray, unanswered = sorted(answers.keys() - due), sorted(due - answers.keys())
    differing = [
        int(records[i]) for i, state in zip(joined.at, joined.states, strict=True) if state != joined.expected[i]
    ]
    return [
        CheckRow("answers", len(answers) == len(due), str(len(answers)), f"{len(due)}, one for a window"),
        CheckRow("windows without an answer", not unanswered, _some(unanswered), "none"),
        CheckRow("answers to records that complete no window", not stray, _some(stray), "none"),
        CheckRow("answers that differ from the model's own batch predictions", not differing, _some(differing), "none"),
    ]


def _add_inertia(found: _Found, joined: _Joined) -> None:
    inertias = sorted({float(outputs["inertia"]) for outputs in joined.answers.values()})
    found.rows.append(CheckRow("inertia", len(inertias) == 1, _some(inertias), "one value, the same in every answer"))
    found.metrics["inertia"] = inertias[-1] if len(inertias) == 1 else math.nan


def _add_likelihood(
    found: _Found, joined: _Joined, likelihoods: NDArray[np.float64], inspection: Mapping[str, Any]
) -> None:
    import numpy as np

    at, metrics = joined.at, found.metrics
    metrics |= _fit(likelihoods[joined.due], inspection["mixture"].get("free_parameters"))
    if np.isfinite(likelihoods[at]).all():
        found.values["mean_log_likelihood"] = likelihoods[at]
        if "bic" in metrics and len(at) == joined.due.sum():
            added = metrics["bic"] + 2 * len(at) * metrics["mean_log_likelihood"]
            found.scaled["bic"] = ("mean_log_likelihood", -2.0 * len(at), added)


def _add_labels(found: _Found, joined: _Joined, payload: Payload, inspection: Mapping[str, Any]) -> None:
    labels = window_labels(payload, joined.records[joined.at], inspection["window_size"])
    agreed = agreement(joined.states, labels, class_names(inspection))
    found.metrics |= {"accuracy": agreed.accuracy, "adjusted_rand_index": agreed.adjusted_rand_index}
    found.rows += agreed.rows
    found.tables["Labels"] = agreed.table
    if len(agreed.right) == len(joined.at):  # else the labelled windows are others than those of the silhouette
        found.values["accuracy"], found.slices["label"] = agreed.right, [str(label) for label in labels]
        places = {label: place for place, label in enumerate(sorted(set(found.slices["label"])))}
        found.truth = [places[label] for label in found.slices["label"]]


def _hours(records: NDArray[np.int64], period_ms: int) -> list[str]:
    """The hour of the recording in which each record lies."""
    return [f"hour {1 + hour}" for hour in (records * period_ms // _HOUR_MS).tolist()]


def _fit(log_likelihoods: NDArray[np.float64], free_parameters: int | None) -> dict[str, float]:
    """Mean log likelihood of the windows and, for a Gaussian mixture, its Bayesian information criterion."""
    count = len(log_likelihoods)
    total = float(log_likelihoods.sum()) if count else math.nan
    metrics = {"mean_log_likelihood": total / count if count else math.nan}
    if free_parameters:
        metrics["bic"] = free_parameters * math.log(count) - 2 * total if count else math.nan
    return metrics


def class_names(inspection: Mapping[str, Any]) -> Mapping[int, str] | None:
    """State of a classifier -> its class; None for other models."""
    known, classes = states_of(inspection), inspection.get("classes")
    return dict(zip(known, classes, strict=True)) if classes is not None and known is not None else None


def _states(states: NDArray[np.int64], inspection: Mapping[str, Any]) -> list[dict[str, Any]]:
    counts, names, called = Counter(states.tolist()), class_names(inspection), names_of(inspection)
    return [
        {
            "state": state,
            **({"name": called.get(state, "")} if called else {}),
            **({"class": names.get(state, "")} if names is not None else {}),
            "windows": windows,
            "share": round(windows / len(states), 4),
        }
        for state, windows in sorted(counts.most_common(_MOST_STATES))
    ]


def _some(values: list[Any]) -> str:
    if not values:
        return "none"
    shown = ", ".join(map(str, values[:5]))
    return shown if len(values) <= 5 else f"{len(values)}: {shown}, ..."
