"""Reading raw data, scoring, and the component, without a registry."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from edgepack_anomaly_detector import MODEL_TYPE
from edgepack_anomaly_detector.payload import write_payload

from edgepack_assets.errors import RawDataError
from edgepack_assets.model_types import model_type
from edgepack_assets.model_types.interface import Payload, PayloadWriter, Results

COLUMNS = ("vibration", "current")
TABLE: dict[str, list[Any]] = {
    "vibration": [1.0, None, 9.0, 1.0],
    "current": [2, 2, 8, 2],
    "event": [False, False, True, True],
}


def written(folder: Path, **columns: Any) -> Payload:
    pq.write_table(pa.table({**TABLE, **columns}), folder / "raw.parquet")
    writer = PayloadWriter(folder / "records", folder / "sources")
    with writer.open():
        write_payload(folder, writer, COLUMNS, "event")
    return Payload(writer.records, writer.sources, writer.count)


def component() -> ModuleType:
    spec = importlib.util.spec_from_file_location("detector", MODEL_TYPE.folder / "component/detector.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_row_is_a_record_and_its_event_the_label(tmp_path: Path) -> None:
    payload = written(tmp_path)
    with gzip.open(payload.records, "rt") as stream:
        records = [json.loads(line) for line in stream]
    assert records[1] == {"vibration": None, "current": 2.0}
    assert payload.labels() == {0: False, 1: False, 2: True, 3: True}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"event": [0, 0, 1, 1]}, "events are Booleans"),
        ({"event": [False, None, True, True]}, "column event has no value in row 1"),
        ({"current": ["a"] * 4}, "column current holds string, not numbers"),
        ({"current": [1.0, 2.0, 3.0, float("inf")]}, "column current is infinite in row 3"),
    ],
)
def test_raw_data_that_is_wrong_is_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(RawDataError, match=words):
        written(tmp_path, **columns)


def test_alarms_are_counted_against_the_events(tmp_path: Path) -> None:
    payload, results = written(tmp_path), tmp_path / "results"
    outputs = [{"score": 0.1, "alarm": False}, None, {"score": 0.9, "alarm": True}, {"score": 0.2, "alarm": False}]
    lines = [json.dumps({"record": n, "outputs": given}) + "\n" for n, given in enumerate(outputs)]
    results.write_bytes(gzip.compress("".join(lines).encode()))
    plugin = model_type("anomaly_detector")
    score = plugin.score(payload, Results(results), None, {})
    assert score.metrics == {"precision": 1.0, "recall": 0.5, "average_precision": 1.0}
    assert plugin.results_picture(payload, Results(results), {"threshold": 0.5}).startswith(b"\x89PNG")


def test_the_component_answers_what_is_declared() -> None:
    class Model:
        def score_samples(self, rows: np.ndarray) -> np.ndarray:
            return -rows.sum(axis=1)

    detector = component().Detector(Model(), list(COLUMNS), 3.0)
    assert detector.process({"vibration": 1.0, "current": 2.0}) == {"score": 3.0, "alarm": True}
    assert detector.process({"vibration": 1.0, "current": 1.0}) == {"score": 2.0, "alarm": False}
    assert detector.process({"vibration": None, "current": 1.0}) is None
