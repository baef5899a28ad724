"""Exit codes and --json are the same in every command."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgepack_assets.azure.errors import MissingRoleError
from edgepack_assets.cli.main import main
from edgepack_assets.cli.outcome import failure_of, print_json
from edgepack_assets.errors import (
    ConfigError,
    CorruptError,
    EdgepackError,
    IndexUnreachableError,
    ModelError,
    NotFoundError,
    PluginError,
)

CONFIG = """
model_types:
  press: {implementation: state_identifier, model_name: press_model, package_name: Press, raw_data: {name: raw}}
"""


def _with_json(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Every command that has --json, with something for each argument that it needs."""
    for name, command in group.commands.items():
        words = path if command.hidden else (*path, name)
        if isinstance(command, click.Group):
            yield from _with_json(command, words)
        elif any("--json" in parameter.opts for parameter in command.params):
            needed = [each for each in command.params if isinstance(each, click.Argument)]
            yield [*words, *("press:1" for each in needed if each.required or each.nargs == -1), "--json"]


@pytest.mark.parametrize("arguments", _with_json(main), ids=" ".join)
def test_stdout_is_json_when_the_configuration_is_wrong(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edgepack.yaml").write_text(f"{CONFIG}modeltypes: {{}}\n")
    monkeypatch.setenv("EDGEPACK_CONFIG", str(tmp_path / "edgepack.yaml"))
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    told = json.loads(done.stdout)
    assert told["exit_code"] == 2
    assert "unknown key 'modeltypes'" in told["error"]
    assert f"Error: {told['error']}" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["sync"], ["sensors"], ["package", "press:1"], ["package", "press:1", "--no-wait"]]
)
def test_an_instance_that_cannot_be_used_is_infrastructure(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edgepack.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPACK_CONFIG", str(tmp_path / "edgepack.yaml"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    (tmp_path / "model").write_bytes(b"x")
    assert CliRunner().invoke(main, ["model", "add", "press_model", "model", "--force"]).exit_code == 0
    home = tmp_path / ".edgepack" / "dagster"
    (home / "history" / "runs.db").write_bytes(b"no database" * 1000)
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stdout) == (3, "")
    assert f"Error: the Dagster instance in {home} cannot be used" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelError("no model"), 1), (EdgepackError("refused"), 1), (CorruptError("damaged"), 1),
        (ConfigError("wrong"), 2), (NotFoundError("gone"), 2), (PluginError("broken"), 2),
        (IndexUnreachableError("silent"), 3), (MissingRoleError("not allowed"), 3),
        (OSError(errno.ENOSPC, "No space left on device", "file"), 3), (KeyboardInterrupt(), 130),
    ],
)  # fmt: skip
def test_the_kind_of_an_error_is_its_exit_code(error: EdgepackError | OSError | KeyboardInterrupt, code: int) -> None:
    failure = failure_of(error)
    assert (failure.exit_code, "\n" in failure.message) == (code, False)


def test_numbers_that_json_does_not_have_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    with click.Context(main):
        print_json([{"silhouette": float("nan"), "größe": float("inf"), "one": 1.5}])
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == [
        {"silhouette": None, "größe": None, "one": 1.5}
    ]


def test_an_output_without_every_character_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "line … 4").mkdir()
    (tmp_path / "line … 4" / "edgepack.yaml").write_text(CONFIG)
    monkeypatch.setenv("EDGEPACK_CONFIG", str(tmp_path / "line … 4" / "edgepack.yaml"))
    done = CliRunner(charset="latin-1").invoke(main, ["config", "check"])
    assert done.exit_code == 0, done.output
    assert "line \\u2026 4" in done.stdout
