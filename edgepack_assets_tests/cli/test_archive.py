"""`edgepack model archive`, `data archive`, `model approve --revoke` and `model show`."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from edgepack_assets.cli.main import main
from edgepack_assets.config.loader import load_settings
from edgepack_assets.operations.packages import missing_packages
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.approval import approval_of
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry

CONFIG = """
registry: {type: local, path: registry}
model_types:
  press:
    implementation: state_identifier
    model_name: press_model
    package_name: Press
    raw_data: {name: raw}
    approval: required
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalRegistry:
    """Two versions of a model, the first with a package, and two of raw data."""
    (tmp_path / "edgepack.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    for name in ("EDGEPACK_CONFIG", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    made, file = LocalRegistry(tmp_path / "registry"), tmp_path / "file"
    for number in (1, 2):
        file.write_bytes(b"x" * number)
        made.register(Kind.MODEL, "press_model", file, {"lot": f"{number}\u00e9<b>"})
        made.register(Kind.DATA, "raw", file, {})
    tags = {"model_name": "press_model", "model_version": "1", "model_type": "press"}
    made.register(Kind.MODEL, "Press-edge", file, tags)
    return made


def run(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == exit_code, result.output
    return result


def test_an_archived_model_is_neither_latest_nor_missing(registry: LocalRegistry) -> None:
    settings = load_settings()
    assert missing_packages(settings, registry).unapproved == (ModelKey("press", 2),)
    assert run("model", "archive", "press_model:2").output == "press_model:2 is archived\n"
    assert run("model", "archive", "press_model:2").output == "press_model:2 is archived already\n"
    assert missing_packages(settings, registry).unapproved == ()
    assert [each["version"] for each in json.loads(run("model", "list", "press_model", "--json").output)] == [1]
    archived = json.loads(run("model", "list", "press_model", "--archived", "--json").output)
    assert [each["version"] for each in archived] == [2]
    refused = run("package", "press:2", exit_code=2).output
    assert "press_model:2 is archived (edgepack model archive press_model:2 --undo)" in refused
    assert run("model", "archive", "press_model:2", "--undo").output == "press_model:2 is no longer archived\n"
    assert missing_packages(settings, registry).unapproved == (ModelKey("press", 2),)


def test_archived_data_is_not_the_latest(registry: LocalRegistry) -> None:
    run("data", "archive", "raw:2")
    assert [each["version"] for each in json.loads(run("data", "list", "--json").output)] == [1]
    assert "is archived already" in run("data", "archive", "raw:2").output
    run("data", "archive", "raw:2", "--undo")
    assert [each["version"] for each in json.loads(run("data", "list", "--json").output)] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["model", "archive", "press_model:7"], 2, "has no version 7"),
        (["model", "archive", "nothing:1"], 2, "the registry has no model 'nothing'"),
        (["model", "archive", "press_model:latest"], 2, "archive a version by its number"),
        (["model", "archive", "Press-edge:1"], 2, "edgepack package archive Press-edge:1"),
        (["data", "archive", "raw:tuesday"], 2, "The versions of a local registry are whole numbers"),
        (["model", "approve", "press_model:1", "--revoke", "--by", "Ada"], 2, "leave it out with --revoke"),
        (["model", "show", "press_model:7"], 2, "has no version 7"),
        (["model", "show", "nothing:latest"], 2, "the registry has no model 'nothing'"),
    ],
)
def test_a_mistake_is_a_sentence_and_changes_nothing(
    registry: LocalRegistry, arguments: list[str], code: int, message: str
) -> None:
    before = {path: path.read_bytes() for path in registry.path.rglob("*") if path.suffix == ".json"}
    assert message in run(*arguments, exit_code=code).output
    assert {path: path.read_bytes() for path in registry.path.rglob("*") if path.suffix == ".json"} == before


def test_an_approval_is_taken_back(registry: LocalRegistry) -> None:
    run("model", "approve", "press_model:2", "--by", "Ada")
    assert (
        "press_model:2 is not approved any more (it was by Ada"
        in run("model", "approve", "press_model:2", "--revoke").output
    )
    model = registry.get(Kind.MODEL, "press_model", 2)
    assert approval_of(model.tags) is None
    assert model.tags == {"lot": "2é<b>"}
    assert run("model", "approve", "press_model:2", "--revoke").output == "press_model:2 was not approved\n"


def test_show_tells_what_the_registry_knows_where_dagsters_instance_cannot_be_used(registry: LocalRegistry) -> None:
    home = registry.path.parent / ".edgepack" / "dagster"
    home.mkdir(parents=True)
    (home / "history").touch()  # for root no folder is read-only: here the databases cannot be made
    shown = run("model", "show", "press_model:1")
    assert "Press-edge:1" in shown.stdout
    assert "run of it" not in shown.stdout
    assert shown.stderr.startswith("its runs are not shown: ")
    assert json.loads(run("model", "show", "press_model:1", "--json").stdout)["runs"] is None


def test_show_tells_all_about_a_version(registry: LocalRegistry) -> None:
    run("model", "approve", "press_model:1", "--by", "Ada")
    shown = run("model", "show", "press_model:1").output
    model = registry.get(Kind.MODEL, "press_model", 1)
    for text in (model.digest, "tag lot", "1é<b>", "by Ada", "press:1", "Press-edge:1", "no run of it is known"):
        assert text in shown
    run("model", "archive", "press_model:1")
    found = json.loads(run("model", "show", "press_model:1", "--json").output)
    assert found["archived"] is True
    assert [each["package"] for each in found["packages"]] == ["Press-edge:1"]
    assert found["runs"] == []
    waiting = run("model", "show", "press_model:latest").output
    assert "no, it waits for that" in waiting and "no package was made from it" in waiting


def groups() -> list[click.Group]:
    return [main, *(command for command in main.commands.values() if isinstance(command, click.Group))]


@pytest.mark.parametrize("group", groups(), ids=lambda group: group.name)
def test_no_line_of_help_is_cut_off(group: click.Group) -> None:
    shown = CliRunner().invoke(group, ["--help"], terminal_width=80).output
    commands = shown.partition("Commands:\n")[2]
    assert commands
    assert [line for line in commands.splitlines() if line.endswith("...")] == []
