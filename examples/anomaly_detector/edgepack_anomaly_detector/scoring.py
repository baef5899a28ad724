"""Precision, recall and average precision of alarms and scores against labelled events; a figure of the scores."""

from __future__ import annotations

import math

from edgepack_assets.model_types.figures import WIDTH, new_figure, png
from edgepack_assets.model_types.interface import CheckRow, Payload, Results, Score

METRICS = ("precision", "recall", "average_precision")


def score(payload: Payload, results: Results) -> Score:
    """A record without an answer (a value was missing) raises no alarm, and its score is the lowest."""
    from sklearn.metrics import average_precision_score

    labels = payload.labels()
    answers = {answer.record: answer.outputs for answer in results.answers()}
    events = {record for record, event in labels.items() if event}
    alarms = {record for record, outputs in answers.items() if outputs["alarm"]}
    lowest = min((outputs["score"] for outputs in answers.values()), default=0.0) - 1.0
    scores = [answers[record]["score"] if record in answers else lowest for record in labels]
    right = len(alarms & events)
    return Score(
        metrics={
            "precision": right / len(alarms) if alarms else math.nan,
            "recall": right / len(events) if events else math.nan,
            "average_precision": float(average_precision_score([record in events for record in labels], scores))
            if events
            else math.nan,
        },
        parts=(
            CheckRow("records with a label", len(labels) == payload.count, str(len(labels)), str(payload.count)),
            CheckRow("answers to labelled records", answers.keys() <= labels.keys(), str(len(answers)), "all of them"),
        ),
        tables={
            "Alarms": [
                {"": "alarm", "event": right, "no event": len(alarms - events)},
                {"": "no alarm", "event": len(events - alarms), "no event": len(labels.keys() - alarms - events)},
            ]
        },
    )


def draw(payload: Payload, results: Results, threshold: float) -> bytes:
    """Scores over the records; events are shaded."""
    answers = list(results.answers())
    figure = new_figure(WIDTH, 3.6)
    axes = figure.add_subplot()
    for record, event in payload.labels().items():
        if event:
            axes.axvspan(record - 0.5, record + 0.5, color="#ff725c", alpha=0.3, linewidth=0)
    axes.plot([a.record for a in answers], [a.outputs["score"] for a in answers], color="#222222", linewidth=0.7)
    axes.axhline(threshold, color="#4269d0", linewidth=0.8)
    axes.set_xlabel("record")
    axes.set_ylabel("score")
    axes.set_title("Scores, the threshold, and labelled events", fontsize=10)
    return png(figure)
