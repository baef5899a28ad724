"""The envelope of a state identifier: what it learns, that answers stay as they are, and what it notices."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import numpy as np
import pytest

from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types import envelope
from edgepack_assets.model_types.envelope.fault_probes import FaultProbes
from edgepack_assets.model_types.state_identifier.model_type import StateIdentifier
from edgepack_assets.sandbox.untrusted_values import parse_report
from edgepack_assets_tests.model_types.state_identifier.conftest import FOLDER
from edgepack_assets_tests.model_types.state_identifier.models import fitted

SIZE = 50
SETTINGS = {"file": "model.pkl", "format": "joblib", "input": "array", "columns": ["ph1", "ph2", "ph3"]}
CHANNELS = ("ph1", "ph2", "ph3")


@pytest.fixture
def child(child_tasks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """child_tasks.py beside a component with an envelope, in whose folder it runs."""
    for folder in (envelope.FOLDER, FOLDER / "component_envelope", tmp_path):
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(tmp_path)
    yield child_tasks
    for name in ("envelope", "window_features", "enveloped"):
        sys.modules.pop(name, None)


def recording(seed: int, windows: int = 120) -> np.ndarray:
    """Three states, each for three windows; channels of different level."""
    random = np.random.RandomState(seed)
    levels = np.repeat([1.0, 4.0, 10.0], 3 * SIZE)
    level = np.tile(levels, windows * SIZE // len(levels) + 1)[: windows * SIZE]
    level = level * np.repeat(random.uniform(0.9, 1.1, windows), SIZE)
    return level[:, None] * [1.0, 0.8, 1.3] * (1 + 0.05 * random.normal(size=(len(level), 3)))


def packaged(rows: np.ndarray, **settings: Any) -> dict[str, Any]:
    """Lay out a component that was fitted on these rows. The arguments of a task on them."""
    joblib.dump(fitted(SIZE, SIZE, rows=rows), "model.pkl")
    Path("model.json").write_text(json.dumps({**SETTINGS, **settings}))
    return records(rows)


def records(rows: np.ndarray) -> dict[str, Any]:
    with gzip.open("records", "wt") as stream:
        for row in rows:
            values = [None if np.isnan(value) else float(value) for value in row]
            stream.write(json.dumps(dict(zip(CHANNELS, values, strict=True))) + "\n")
    return {"records": "records", "count": len(rows)}


def answers(identifier: Any, rows: np.ndarray) -> list[dict[str, Any]]:
    found = [identifier.process(dict(zip(CHANNELS, map(float, row), strict=True))) for row in rows]
    return [answer for answer in found if answer is not None]


def distances(identifier: Any, rows: np.ndarray) -> np.ndarray:
    return np.array([json.loads(answer["envelope_distance"])["value"] for answer in answers(identifier, rows)])


def test_other_recordings_lie_inside_faults_outside_and_answers_stay(child: ModuleType, inference: ModuleType) -> None:
    rows = recording(1)
    learned = child.learn_envelope(packaged(rows))
    parse_report("learning", envelope.LearnedEnvelope, json.loads(json.dumps(learned)))
    model, settings = inference.load_model(Path.cwd())
    enveloped = importlib.import_module("enveloped").enveloped

    def identifier() -> Any:
        return enveloped(model, {**settings, "envelope": learned})

    later = recording(2)
    assert (distances(identifier(), later) > 1).mean() <= 0.05
    stuck, swapped, gained = later.copy(), later[:, [1, 0, 2]], later * [1.3, 1, 1]
    stuck[:, 1] = stuck[0, 1]
    for fault in (stuck, swapped, gained):
        assert (distances(identifier(), fault) > 1).mean() >= 0.9
    with_it, without = answers(identifier(), later), answers(inference.StateIdentifier(model, settings), later)
    names = {metric.name for metric in StateIdentifier().component_spec(INSPECTION | {"envelope": learned}).metrics}
    assert names == {name for name in with_it[0] if name not in {"prediction", "inertia"}}
    assert [{name: answer[name] for name in without[0]} for answer in with_it] == without


INSPECTION: dict[str, Any] = {
    "window_size": SIZE, "window_step": SIZE, "inertia": 1.0, "component": {}, "clustering": "KMeans", "clusters": 3,
}  # fmt: skip


@pytest.mark.long
def test_probes_tell_what_is_noticed_with_and_without_an_envelope(child: ModuleType) -> None:
    rows = recording(3)
    task = packaged(rows)
    plain = child.probe_faults(task)
    packaged(rows, envelope=child.learn_envelope(task))
    noticed = child.probe_faults(task)
    assert child.probe_faults(task) == noticed
    probes = FaultProbes(Path("records"), len(rows), warns=False)
    (faults, unchanged, *small), table = probes.rows(json.loads(json.dumps(noticed)))
    assert (faults.passed, unchanged.passed, unchanged.warns) == (True, True, True)
    assert [row.warns for row in small] == [True] * 3
    assert len(table) == 13
    without, _ = probes.rows(json.loads(json.dumps(plain)))
    assert (without[0].passed, without[0].warns) == (False, False)
    assert [probe["changed"] for probe in plain["probes"]] == [probe["changed"] for probe in noticed["probes"]]


@pytest.mark.parametrize(
    "change", [{"unnoticed": 3}, {"changed": 200}, {"records": 0}, {"answers": -1}, {"kind": "x"}, {"extra": 1}]
)
def test_a_report_that_cannot_be_true_is_refused(change: dict[str, Any]) -> None:
    probe = {"name": "x", "kind": "fault", "records": 9, "answers": 9, "changed": 2, "noticed": 0, "unnoticed": 2}
    probes = FaultProbes(Path("records"), 9, warns=True)
    assert len(probes.rows({"probes": [probe], "what": "windows"})[0]) == 1
    with pytest.raises(ComponentError):
        probes.rows({"probes": [{**probe, **change}], "what": "windows"})


def test_too_little_to_learn_from_is_said(child: ModuleType) -> None:
    with pytest.raises(ValueError, match="cannot be learned from 4 answers") as caught:
        child.learn_envelope(packaged(recording(4, windows=4)))
    assert caught.value.is_for_user  # type: ignore[attr-defined]


def test_missing_values_and_a_dead_channel(child: ModuleType, inference: ModuleType) -> None:
    rows = recording(5)
    rows[:, 2] = 0.0
    rows[5::97, 0] = np.nan
    learned = child.learn_envelope(packaged(rows))
    assert np.isfinite(learned["scale"]).all()
    model, settings = inference.load_model(Path.cwd())
    found = distances(importlib.import_module("enveloped").enveloped(model, {**settings, "envelope": learned}), rows)
    assert (found <= 1).mean() >= 0.95
