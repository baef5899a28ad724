"""Envelopes and faults, as tasks ask for them: where a model type has none, and where trying fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepack_assets.errors import ComponentError, ModelError
from edgepack_assets.model_types.envelope import DISTANCE, alert_rules
from edgepack_assets.model_types.envelope.fault_probes import FaultProbes
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.envelope import envelope_folders, learn_envelope, try_faults

KEY = ModelKey("press", 1)


def context(per: str | None = None, probes: Any = None, answer: Any = None, **entry: Any) -> Any:
    def run(*_: Any, **__: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    implementation = SimpleNamespace(
        name="pump", envelope_per=per, envelope_tasks="child_tasks.py", folder=Path("/nowhere"),
        probes=lambda *_: probes, trial_rows=lambda trial, answer: trial.rows(answer),
    )  # fmt: skip
    return SimpleNamespace(
        entry=lambda _: SimpleNamespace(**{"envelope": False, "fault_probes": None, **entry}),
        model_type=lambda _: implementation, child_imports=lambda *_: (), sandbox=SimpleNamespace(run=run),
    )  # fmt: skip


def tried(given: Any) -> Any:
    nothing: Any = SimpleNamespace(lock=None)
    return try_faults(KEY, nothing, nothing, {}, Path(), nothing, Path(), given)


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    assert envelope_folders(KEY, context("window")) == ()
    nothing: Any = None
    assert learn_envelope(KEY, Path(), {"a": 1}, nothing, context("window")) == {"a": 1}
    assert tried(context("window", answer=AssertionError())) == ([], [])


def test_a_model_type_without_an_envelope_says_so() -> None:
    with pytest.raises(ModelError, match="pump has no envelope: remove `envelope` of press"):
        envelope_folders(KEY, context(envelope=True))


@pytest.mark.parametrize("setting", ["warn", "fail"])
def test_faults_that_cannot_be_tried_never_pass(setting: str) -> None:
    (none,), _ = tried(context(fault_probes=setting))
    probes = FaultProbes(Path("records"), 1, warns=setting == "warn")
    (broken,), _ = tried(context(probes=probes, answer=ComponentError("it died"), fault_probes=setting))
    (odd,), _ = tried(context(probes=probes, answer={"probes": []}, fault_probes=setting))
    for row in (none, broken, odd):
        assert (row.passed, row.warns) == (False, setting == "warn")
    assert "it died" in broken.found


def test_rules_are_suggested_for_the_metrics_that_there_are() -> None:
    text = alert_rules((DISTANCE,), {"learned_from": 80, "quantiles": {"ph1": [0, 1, 2, 3, 4.5]}}, "window")
    assert "from the 80 that" in text
    assert "`envelope_distance`" in text
    assert "`envelope_outside`" not in text
    assert "| ph1 | 0 | 1 | 2 | 3 | 4.5 |" in text
