"""Names of states: what may be one, and where they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.errors import ConfigError
from edgepack_assets.model_types.state_identifier import MODEL_TYPE
from edgepack_assets.model_types.state_identifier.state_names import as_json, names_rows

INSPECTION: dict[str, Any] = {"window_size": 300, "window_step": 300, "clusters": 3, "inertia": 1.0, "component": {}}
NAMED = {**INSPECTION, "state_names": {"0": "idle", "2": "overload"}}


def entry(folder: Path, names: Any) -> ModelTypeSettings:
    keys = {"implementation": "state_identifier", "model_name": "m", "package_name": "P", "raw_data": {"name": "r"},
             "state_names": names}  # fmt: skip
    (folder / "edgepack.yaml").write_text(yaml.safe_dump({"model_types": {"press": keys}}))
    return load_settings(folder / "edgepack.yaml").model_type("press")


def settings(folder: Path, names: Any) -> Any:
    return entry(folder, names).settings


def test_names_travel_by_number(tmp_path: Path) -> None:
    assert as_json(settings(tmp_path, {2: "overload", 0: " idle "}).state_names) == {
        "state_names": {"0": "idle", "2": "overload"}
    }
    assert as_json(settings(tmp_path, {}).state_names) == {}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({0: "idle", 1: "idle"}, "two states are called idle"),
        ({0: ""}, "state_names"),
        ({0: "x" * 61}, "state_names"),
        ({0: "a\u202eb"}, "cannot be shown"),
        ({True: "on"}, "must be a number"),
        ({"first": "idle"}, "state_names"),
        ({number: f"n{number}" for number in range(101)}, "state_names"),
        (["idle"], "state_names"),
    ],
)
def test_what_is_no_name_of_a_state_is_refused(tmp_path: Path, names: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, names)


def test_names_stand_in_the_package_and_only_there_where_there_are_some() -> None:
    assert MODEL_TYPE.component_spec(NAMED).description.endswith("the machine's state (0 idle, 2 overload)")
    assert MODEL_TYPE.component_spec(INSPECTION).description.endswith("the machine's state")


def test_a_name_of_no_state_fails_and_counts_the_shipped_numbers(tmp_path: Path) -> None:
    assert names_rows(INSPECTION, range(3)) == []
    assert [row.passed for row in names_rows(NAMED, range(3))] == [True]
    (row,) = names_rows(NAMED, [0, 1])
    assert not row.passed and row.found == "no such state: 2 (overload)"
    # the package answers 5 to 7, as the one before it
    given = {**NAMED, "clustering": "KMeans", "renumbering": [[0, 5], [1, 6], [2, 7]]}
    rows = MODEL_TYPE.inspection_rows(given, entry(tmp_path, {}))
    assert [row.found for row in rows if not row.passed] == ["no such state: 0 (idle), 2 (overload)"]
