"""Names of states: what may be one, and where they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.errors import ConfigError, ModelError
from edgepack_assets.model_types import model_type
from edgepack_assets.model_types.state_identifier import MODEL_TYPE
from edgepack_assets.model_types.state_identifier.state_names import as_json, names_rows
from edgepack_assets.model_types.state_identifier.state_tags import names_in_tags

INSPECTION: dict[str, Any] = {"window_size": 300, "window_step": 300, "clusters": 3, "inertia": 1.0, "component": {}}
NAMED = {**INSPECTION, "state_names": {"0": "idle", "2": "overload"}}


def entry(folder: Path, names: Any) -> ModelTypeSettings:
    keys = {"implementation": "state_identifier", "model_name": "m", "package_name": "P", "raw_data": {"name": "r"},
             "state_names": names}  # fmt: skip
    (folder / "edgepack.yaml").write_text(yaml.safe_dump({"model_types": {"press": keys}}))
    return load_settings(folder / "edgepack.yaml").model_type("press")


PLAIN = ModelTypeSettings.model_validate(
    {"implementation": "state_identifier", "model_name": "m", "package_name": "P", "raw_data": {"name": "r"}}
)


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


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ({"states": '{"0": "idle", "2": " overload "}'}, {0: "idle", 2: "overload"}),
        ({"state_names": '{"1": "running"}', "state.0": "idle", "stage": "x"}, {0: "idle", 1: "running"}),
        ({"state.7": "idle", "states": '{"7": "idle"}'}, {7: "idle"}),
        ({"states": "3", "silhouette": "0.7"}, {}),  # how many there are
    ],
)
def test_a_model_version_names_its_states_in_its_tags(tags: dict[str, str], names: dict[int, str]) -> None:
    assert names_in_tags(tags) == names


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"states": "idle, running"}, "the tag states is 'idle, running'"),
        ({"states": '["idle"]'}, "the tag states is"),
        ({"states": "[" * 100_000}, "the tag states is"),
        ({"states": '{"first": "idle"}'}, "the tag states is"),
        ({"states": '{"-1": "idle"}'}, "the tag states is"),
        ({"states": '{"0": "idle", "00": "running"}'}, "the tag states names state 0 twice"),
        ({"states": '{"0": "idle", "1": "idle"}'}, "the tag states: two states are called idle"),
        ({"states": '{"0": 5}'}, "the tag states: state 0"),
        ({"state_names": '{"0": ""}'}, "the tag state_names: state 0"),
        ({"state.two": "idle"}, "the tag state.two names no state"),
        ({"state.0": "a\u202eb"}, "the tag state.0: state 0: .* cannot be shown"),
        ({"state.0": "x" * 61}, "the tag state.0: state 0"),
        ({"state.0": "idle", "states": '{"0": "running"}'}, "the tags state.0 and states name state 0 differently"),
        ({"state.0": "idle", "state.1": "idle"}, "the tag state.0, state.1: two states are called idle"),
    ],
)
def test_a_tag_that_names_no_states_is_refused_by_name(tags: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=f"^{message}"):
        names_in_tags(tags)
    with pytest.raises(ModelError, match=f"^press_model:4: {message}"):
        model_type("state_identifier").tag_settings(tags, PLAIN, {}, "press_model:4")


def test_names_of_tags_follow_the_numbers_that_the_package_answers(tmp_path: Path) -> None:
    tags = {"states": '{"0": "idle", "1": "running", "2": "overload"}'}
    model_json, rows = MODEL_TYPE.tag_settings(tags, PLAIN, {0: 2, 1: 0, 2: 1})
    assert model_json == {"state_names": {"0": "running", "1": "overload", "2": "idle"}} and rows == []

    # edgepack.yaml names the package's numbers, and wins.
    named = entry(tmp_path, {2: "standstill", 5: "overload"})
    model_json, (row,) = MODEL_TYPE.tag_settings(tags, named, {0: 2, 1: 0, 2: 1})
    assert model_json == {"state_names": {"0": "running", "2": "standstill", "5": "overload"}}
    assert row.warns and not row.passed
    assert row.found == (
        "state 2 is standstill in edgepack.yaml and idle in the tags; "
        "state 1 is overload in the tags, as another one is in edgepack.yaml"
    )
    _, (row,) = MODEL_TYPE.tag_settings({"state.0": "running"}, entry(tmp_path, {3: "running"}), {0: 3})
    assert row.passed
