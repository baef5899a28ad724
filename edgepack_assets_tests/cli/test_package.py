"""`edgepack package list`, `show`, `promote` and `rollback`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from edgepack_assets.cli.main import main
from edgepack_assets.errors import PluginError
from edgepack_assets.operations import packages
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry

CONFIG = """
registry: {type: local, path: registry}
lines: [line-1, line-2]
model_types:
  press:
    implementation: state_identifier
    model_name: press_model
    package_name: Press
    raw_data: {name: raw}
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalRegistry:
    config = tmp_path / "edgepack.yaml"
    config.write_text(CONFIG)
    monkeypatch.setenv("EDGEPACK_CONFIG", str(config))
    monkeypatch.chdir(tmp_path)
    made = LocalRegistry(tmp_path / "registry")
    file = tmp_path / "package.zip"
    for number, silhouette in enumerate(("0.5", "0.7", "odd"), start=1):
        file.write_bytes(b"zip" * number)
        tags = {"model_name": "press_model", "model_version": str(number), "silhouette": silhouette, "run_id": "r"}
        overridden = {"gates_overridden": "the line stands"} if number == 2 else {}
        made.register(Kind.MODEL, "press_model", file, {})
        made.register(Kind.MODEL, "Press-edge", file, tags | overridden)
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["package", *arguments], env={"COLUMNS": "200"})


def test_the_list_shows_what_a_person_asks_first(registry: LocalRegistry) -> None:
    assert run("promote", "press:2", "--by", "Ada").exit_code == 0
    lines = [line.split() for line in run("list").output.splitlines()]
    assert lines[0] == ["PACKAGE", "MODEL", "CREATED", "GATES", "STAGE", "SIZE", "METRICS"]
    assert [line[:2] for line in lines[1:]] == [[f"Press-edge:{n}", f"press_model:{n}"] for n in (1, 2, 3)]
    assert lines[1][4:] == ["passed", "-", "3", "B", "silhouette=0.5"]
    assert lines[2][4:6] == ["overridden", "production"]
    assert lines[3][-1] == "B", "a tag that is no number is no metric"


def test_the_list_fits_the_terminal_or_is_wide(registry: LocalRegistry) -> None:
    package = registry.get(Kind.MODEL, "Press-edge", 1)
    registry.set_tags(package, {"dunn_index": "0.123456", "inertia": "12345.678"})
    narrow = CliRunner().invoke(main, ["package", "list"], env={"COLUMNS": "110"}).output
    assert max(map(len, narrow.splitlines())) <= 110
    assert "…" in narrow
    wide = CliRunner().invoke(main, ["package", "list", "--wide"], env={"COLUMNS": "110"}).output
    assert "dunn_index=0.1235 inertia=1.235e+04 silhouette=0.5" in wide


def test_json_holds_everything(registry: LocalRegistry) -> None:
    first, *_ = json.loads(run("list", "press", "--json").output)
    assert first["tags"]["run_id"] == "r"
    assert first["metrics"] == {"silhouette": 0.5}
    assert json.loads(run("show", "Press-edge:1", "--json").output) == first


def test_a_plug_in_that_cannot_be_used_hides_no_package(
    registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(implementation: str) -> None:
        raise PluginError(f"the model type {implementation} cannot be imported")

    monkeypatch.setattr(packages, "model_type", broken)
    for command in (["list"], ["show", "Press-edge:1"]):
        result = run(*command)
        assert result.exit_code == 0, result.output
        assert "Press-edge:1" in result.stdout
        assert "press are not shown: the model type state_identifier cannot be imported" in result.stderr


def test_show_prints_the_interface(registry: LocalRegistry, tmp_path: Path) -> None:
    variable = {"type": "Double", "metric": False}
    flow = {
        "components": [{"name": "inference", "runtime": {"type": "python", "version": "3.11"}}],
        "pipelineInputs": [{"name": "ph1", "type": "Double"}],
        "pipelineOutputs": [{"name": "y", **variable}, {"name": "m_min", "type": "String", "metric": True}],
        "pipelineParameters": [{"name": "step", "type": "Integer", "defaultValue": 300}],
    }
    with zipfile.ZipFile(tmp_path / "interface.zip", "w") as archive:
        archive.writestr("pipeline_config.yml", yaml.safe_dump({"dataFlowPipeline": flow}))
        archive.writestr("datalink_metadata.yml", "timeShifting: {enabled: true, periodicity: 250}\n")
    registry.register(Kind.MODEL, "Press-edge", tmp_path / "interface.zip", {})
    assert [line.split() for line in run("show", "Press-edge:latest", "--interface").output.splitlines()] == [
        ["PART", "NAME", "TYPE"], ["input", "ph1", "Double"], ["output", "y", "Double"], ["metric", "m_min", "String"],
        ["parameter", "step", "Integer,", "300"], ["component", "inference", "python", "3.11"],
        ["periodicity", "250", "ms"],
    ]  # fmt: skip
    assert json.loads(run("show", "Press-edge:latest", "--interface", "--json").output)["periodicity"] == 250
    # what was registered first is no package
    refused = run("show", "press:1", "--interface")
    assert refused.exit_code == 1 and "package.zip" in refused.output


def test_show_has_the_history_of_stages(registry: LocalRegistry) -> None:
    for arguments in (
        ["promote", "press:1", "--line", "line-1", "--reason", "the first"],
        ["promote", "press:latest", "--line", "line-1"],
        ["rollback", "press", "--line", "line-1", "--by", "Bob", "--reason", "it stopped"],
    ):
        assert run(*arguments).exit_code == 0
    shown = run("show", "press:1").output
    assert "production of line-1" in shown
    assert "rollback: it stopped" in shown
    assert "the first" in shown
    assert "stages                -" not in shown


def test_promote_and_rollback_say_what_they_did(registry: LocalRegistry) -> None:
    assert run("promote", "press:1").output == "Press-edge:1 is in production now\n"
    assert run("promote", "press:1").output == "Press-edge:1 is in production already\n"
    assert run("promote", "Press-edge:3").output == (
        "Press-edge:3 is in production now, in the place of Press-edge:1\n"
    )
    assert run("rollback", "press").output == "Press-edge:1 is in production now, in the place of Press-edge:3\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["promote", "press:7"],
            2,
            "versions are: 1, 2, 3; Press-edge:3 was made from its version 3",
        ),
        (["promote", "Press-edge:7"], 2, "has no version 7"),
        (["promote", "other:1"], 2, "'other:1' is no model version and no package of"),
        (["promote", "press"], 2, "'press' is no model version and no package of"),
        (["promote", "press:1", "--line", "line-9"], 2, "`lines` has: line-1, line-2"),
        (["promote", "press:1", "--stage", "test"], 2, "'test' is not one of 'staging', 'production'"),
        (["rollback", "press"], 1, "no package Press-edge was ever moved to production"),
        (["rollback", "other"], 2, "model_types has no entry 'other'"),
        (["archive", "press:7"], 2, "has no version 7"),
        (["compare", "press:9", "other:1"], 2, "model 'press_model' has no version 9"),
        (["compare", "Press-edge:1", "Press-edge:1"], 1, "name two different packages"),
        (["compare", "Press-edge:1", "other:1"], 2, "'other:1' is no model version"),
        (["compare", "Press-edge:1"], 2, "Missing argument 'B'"),
        (["run", "press:1", "/nowhere.parquet"], 2, "/nowhere.parquet: no such file or folder"),
        (["run", "press:1", "edgepack.yaml"], 1, "edgepack.yaml: not a readable Parquet file"),
        (["run", "press:1", "edgepack.yaml", "--output-file", "x.xls"], 2, "ends in none of .csv, .json, .parquet"),
        (["verify-run", "other:1"], 2, "'other:1' is no model version"),
        (["show", "press:0"], 2, "'press:0' is no model version"),
        (["list", "other"], 2, "model_types has no entry 'other'"),
        (["lst"], 2, "'lst' is no model version and no package of"),
        (["press:1", "--output-file", "/proc/none/x"], 2, "--output-file: /proc/none/x cannot be written"),
        (
            ["run", "press:1", "edgepack.yaml", "--output-file", "edgepack.yaml/x.csv"],
            2,
            "edgepack.yaml is not a folder that you may write to",
        ),
        (["compare", "press:1", "press:2", "--html", "edgepack.yaml/x"], 2, "edgepack.yaml is not a folder"),
        (["show", "press:1", "--html", "edgepack.yaml/x"], 2, "edgepack.yaml/x cannot be written"),
        (["press:1", "press:2", "--output-file", "x"], 2, "--output-file takes one model version"),
        (["press:1", "--no-wait", "--from", "metrics"], 2, "--no-wait hands over whole runs"),
        (["press:1", "--from", "nothing"], 2, "'nothing' is none of payload_data"),
        (["press:1", "--all-missing"], 2, "name model versions"),
        ([], 2, "name model versions"),
    ],
)
def test_a_mistake_is_a_sentence_and_changes_nothing(
    registry: LocalRegistry, arguments: list[str], code: int, message: str
) -> None:
    before = [dict(version.tags) for version in registry.versions(Kind.MODEL, "Press-edge")]
    done = run(*arguments)
    assert done.exit_code == code
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert [dict(version.tags) for version in registry.versions(Kind.MODEL, "Press-edge")] == before


def test_an_archived_package_is_no_longer_offered(registry: LocalRegistry) -> None:
    assert run("promote", "press:1").exit_code == 0
    assert run("promote", "press:2").exit_code == 0
    assert run("promote", "press:3").exit_code == 0
    assert run("archive", "press:2", "--by", "Ada", "--reason", "<b>it stopped</b>").output == (
        "Press-edge:2 is archived\n"
    )
    assert run("archive", "press:2").output == "Press-edge:2 is archived already\n"
    assert [entry["version"] for entry in json.loads(run("list", "--json").output)] == [1, 3]
    assert "Press-edge:2" not in run("list").output
    listed = json.loads(run("list", "--all", "--json").output)
    assert listed[1]["archived"]["by"] == "Ada"
    assert "archived" in run("list", "--all").output
    assert "archived by Ada" in run("show", "press:2").output
    refused = run("promote", "press:2")
    assert refused.exit_code == 1 and "Press-edge:2 is archived: edgepack package archive" in refused.output
    # 3 came in the place of 2, which is passed over
    assert run("rollback", "press").output == "Press-edge:1 is in production now, in the place of Press-edge:3\n"
    assert run("archive", "press:3").exit_code == 0
    assert "press_model:1" in run("show", "Press-edge:latest").output
    assert run("archive", "press:2", "--undo").output == "Press-edge:2 is no longer archived\n"
    assert run("archive", "press:2", "--undo").output == "Press-edge:2 is not archived\n"
    assert "press_model:2" in run("show", "Press-edge:latest").output


def test_what_a_line_uses_is_archived_only_by_force(registry: LocalRegistry) -> None:
    assert run("promote", "press:1", "--line", "line-2").exit_code == 0
    refused = run("archive", "press:1")
    assert refused.exit_code == 1
    assert "Press-edge:1 is in production of line-2: move another package there first" in refused.output
    assert "archived" not in registry.get(Kind.MODEL, "Press-edge", 1).tags
    assert run("archive", "press:1", "--force").exit_code == 0
    assert run("archive", "press:1", "--reason", "x" * 1000).output == "Press-edge:1 is archived already\n"
    long = run("archive", "press:2", "--reason", "x" * 1000)
    assert long.exit_code == 1 and "shorten it" in long.output


def test_nothing_before_but_archived_packages_is_no_way_back(registry: LocalRegistry) -> None:
    for each in ("press:1", "press:2"):
        assert run("promote", each).exit_code == 0
    assert run("archive", "press:1").exit_code == 0
    refused = run("rollback", "press")
    assert refused.exit_code == 1
    assert "what was in production before Press-edge:2 is archived: Press-edge:1" in refused.output


def test_a_model_type_counts_versions_of_the_model_in_every_command(registry: LocalRegistry) -> None:
    """And a package's name counts packages."""

    def shown(name: str) -> tuple[str, str]:
        done = run("show", name, "--json")
        return f"{json.loads(done.stdout)['name']}:{json.loads(done.stdout)['version']}", done.stderr

    # The number is the same for both, as long as each version has one package.
    assert shown("press:2") == shown("Press-edge:2") == ("Press-edge:2", "")
    registry.set_tags(registry.get(Kind.MODEL, "Press-edge", 3), {"model_version": "1"})
    assert shown("press:1") == ("Press-edge:3", "press:1 is taken as Press-edge:3; it also has Press-edge:1\n")
    assert shown("Press-edge:1") == ("Press-edge:1", "")
    refused = run("promote", "press:3")
    assert refused.exit_code == 2
    assert (
        "press_model has no package: edgepack package press:3 makes one; Press-edge:3 was made from its version 1"
        in (refused.stderr)
    )
    assert run("promote", "press:latest").exit_code == 2  # the latest model has none
    assert run("promote", "press:1").stdout == "Press-edge:3 is in production now\n"
    assert run("promote", "Press-edge:1").exit_code == run("archive", "Press-edge:3").exit_code == 0
    assert shown("press:1")[0] == "Press-edge:1"  # of several, one that is not archived
    assert run("archive", "press:1").stdout == "Press-edge:3 is archived already\n"  # not the other one as well
    assert run("rollback", "Press-edge").exit_code == run("rollback", "press").exit_code == 1
    assert len(json.loads(run("list", "Press-edge", "--json").stdout)) == 2


def test_help_shows_both_forms() -> None:
    shown = run("--help").output
    assert "edgepack package [OPTIONS] KEY..." in shown
    for word in ("--all-missing", "promote", "rollback", "show"):
        assert word in shown
