"""What is wrong with the files of a plug-in that run in the sandbox, told as the plug-in's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import ComponentError
from edgepack_assets.sandbox.jobs import CallJob
from edgepack_assets.sandbox.sandbox import Sandbox, TaskFailedError
from edgepack_assets.tasks.plugin_faults import naming_plugin
from edgepack_assets_tests.environments.plain import environment, plain_settings, store

__all__ = ["environment", "plain_settings", "store"]

PLUGIN: Any = "the model type press (press-types 1.0)"


@pytest.fixture
def sandbox(plain_settings: RuntimeSettings) -> Iterator[Sandbox]:
    with Sandbox(plain_settings, backends=["unshare", "none"]) as made:
        yield made


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ("def inspect(arguments): return {}", "child_tasks.py defines no function inspect_model"),
        ("def inspect_model(arguments) return", "child_tasks.py is no Python: .*, line 1"),
        ("import child_more", "child_more.py is no Python: .*, line 2"),
    ],
)
def test_a_file_of_the_plug_in_is_named_with_it(
    sandbox: Sandbox, environment: Environment, tmp_path: Path, tasks: str, said: str
) -> None:
    (tmp_path / "component").mkdir()
    (tmp_path / "child_tasks.py").write_text(tasks)
    (tmp_path / "child_more.py").write_text("\nx = = 1")
    job = CallJob(tmp_path / "component", tmp_path / "child_tasks.py", "inspect_model", {})
    with (
        pytest.raises(ComponentError, match=rf"^the model type press \(press-types 1.0\): {said}$"),
        naming_plugin(PLUGIN),
    ):
        sandbox.run("inspecting", environment, [], job)


def test_what_the_model_s_own_code_does_is_the_model_s(
    sandbox: Sandbox, environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "component").mkdir()
    (tmp_path / "component" / "own.py").write_text("x = = 1")
    (tmp_path / "child_tasks.py").write_text("def inspect_model(arguments): import own")
    job = CallJob(tmp_path / "component", tmp_path / "child_tasks.py", "inspect_model", {})
    with pytest.raises(TaskFailedError, match="inspecting failed"), naming_plugin(PLUGIN):
        sandbox.run("inspecting", environment, [], job)


def test_an_error_of_its_code_names_it_and_what_was_wanted(
    sandbox: Sandbox, environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "component").mkdir()
    (tmp_path / "child_tasks.py").write_text("def prepare(arguments): return {}['x']")
    job = CallJob(tmp_path / "component", tmp_path / "child_tasks.py", "prepare", {})
    said = (
        r"^the model type press \(press-types 1.0\): prepare should return a dict; it raised KeyError: "
        r"preparing failed: 'x'\n\| Traceback"
    )
    with pytest.raises(ComponentError, match=said), naming_plugin(PLUGIN, "prepare should return a dict"):
        sandbox.run("preparing", environment, [], job)


def test_a_refusal_in_words_for_the_user_is_left_as_it_is(
    sandbox: Sandbox, environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "component").mkdir()
    (tmp_path / "child_tasks.py").write_text(
        "class Refused(Exception): is_for_user = True\ndef prepare(arguments): raise Refused('too few rows')"
    )
    job = CallJob(tmp_path / "component", tmp_path / "child_tasks.py", "prepare", {})
    said = "^preparing failed: too few rows$"
    with pytest.raises(TaskFailedError, match=said), naming_plugin(PLUGIN, "prepare should return a dict"):
        sandbox.run("preparing", environment, [], job)
