"""Metrics of a state identifier, against known values and their laws."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import silhouette_score

from edgepack_assets.model_types.interface import Payload, Prepped, Results
from edgepack_assets.model_types.state_identifier import scoring
from edgepack_assets.model_types.state_identifier.cluster_separation import separation


@pytest.fixture
def scored(tmp_path: Path):
    """Score made-up answers over 8 windows of 10 records; `change` may tamper with {record: outputs}."""
    random = np.random.RandomState(0)
    features = np.vstack([random.normal(0, 0.1, (4, 2)), random.normal(3, 0.1, (4, 2))])
    labels = np.array([0] * 4 + [1] * 4)

    def score(change=lambda answers: None, unfilled=()):
        expected = labels.copy()
        values = features.copy()
        for window in unfilled:
            expected[window], values[window] = -1, np.nan
        table = {"record": np.arange(8) * 10 + 9, "model_prediction": expected, "a": values[:, 0], "b": values[:, 1]}
        pq.write_table(pa.table(table), tmp_path / "features.parquet")
        answers = {w * 10 + 9: {"prediction": int(labels[w]), "inertia": 2.5} for w in range(8) if w not in unfilled}
        change(answers)
        with gzip.open(tmp_path / "results", "wt") as stream:
            for record in range(80):
                stream.write(json.dumps({"record": record, "outputs": answers.get(record)}) + "\n")
        with gzip.open(tmp_path / "sources", "wt"):
            payload = Payload(tmp_path / "results", tmp_path / "sources", 80)
        found = scoring.score(
            Results(tmp_path / "results"), Prepped(tmp_path / "features.parquet"), {"inertia": 2.5}, payload
        )
        return found, [part.name for part in found.parts if not part.passed]

    vars(score).update(features=features, labels=labels)
    return score


def test_metrics_of_sound_answers(scored):
    found, failed = scored()
    assert failed == []
    assert found.metrics["silhouette"] == pytest.approx(silhouette_score(scored.features, scored.labels))
    assert found.metrics["dunn_index"] == pytest.approx(separation(scored.features, scored.labels).dunn_index)
    assert found.metrics["inertia"] == 2.5
    assert found.tables["States"] == [
        {"state": 0, "windows": 4, "share": 0.5},
        {"state": 1, "windows": 4, "share": 0.5},
    ]


def test_a_missing_answer_a_stray_answer_and_a_wrong_answer_each_fail_their_part(scored):
    assert scored(lambda a: a.pop(19))[1] == ["answers", "windows without an answer"]
    assert scored(lambda a: a.update({18: a.pop(19)}))[1] == [
        "windows without an answer", "answers to records that complete no window"]  # fmt: skip
    assert scored(lambda a: a[19].update(prediction=1))[1] == [
        "answers that differ from the model's own batch predictions"]  # fmt: skip
    assert scored(lambda a: a[19].update(inertia=3.0))[1] == ["inertia"]


def test_a_window_that_nobody_can_fill_is_not_due(scored):
    found, failed = scored(unfilled=(0,))
    assert failed == []
    assert found.tables["States"][0]["windows"] == 3


def test_no_answers_at_all_fail_and_give_no_number(scored):
    found, failed = scored(lambda a: a.clear())
    assert "answers" in failed
    assert all(math.isnan(value) for value in found.metrics.values())
