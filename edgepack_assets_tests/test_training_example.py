"""examples/training: what docs/training.md trains is a state identifier. MLflow itself is not needed here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgepack_assets.filesystem.parquet import write_columns

EXAMPLE = Path(__file__).parents[1] / "examples" / "training"


def test_it_trains_what_a_state_identifier_must_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    for name in ("train", "power_features"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    train = importlib.import_module("train")
    random = np.random.default_rng(0)
    level = np.repeat([0.0, 5.0, 9.0, 0.0, 9.0, 5.0], 900)
    columns = {column: level + random.normal(0, 0.1, level.size) for column in train.COLUMNS}
    write_columns(tmp_path / "r.parquet", columns)
    model = train.train(tmp_path / "r.parquet")
    assert [name for name, _ in model.steps] == ["preprocessing", "clustering"]
    windowing = model["preprocessing"].named_steps["windowing"]
    assert (windowing.window_size, windowing.window_step) == (300, 300)
    answers = model.predict(np.column_stack(list(columns.values()))).reshape(-1, 3)  # three windows a level
    assert all(len(set(of_level)) == 1 for of_level in answers.tolist())
    assert len(set(answers[:3, 0].tolist())) == 3
    for name in ("train", "power_features"):
        sys.modules.pop(name, None)
