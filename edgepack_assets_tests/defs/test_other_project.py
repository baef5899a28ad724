"""A shell that was prepared for one folder, used in another one."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepack_assets.cli.main import main
from edgepack_assets.defs.instance import environment, other_home

VARIABLES = ("EDGEPACK_CONFIG", "EDGEPACK_EXPORTED_CONFIG", "DAGSTER_HOME")
CONFIG = """
model_types:
  NAME:
    implementation: state_identifier
    model_name: NAME
    package_name: NAME
    raw_data: {name: raw}
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two projects; the shell is prepared for the first one and stands in the second one."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("first", "second"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "edgepack.yaml").write_text(CONFIG.replace("NAME", name))
    monkeypatch.chdir(tmp_path / "first")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path / "second" / "below")
    return tmp_path / "first", tmp_path / "second"


def test_the_project_that_is_here_wins_over_one_that_was_exported(folders: tuple[Path, Path]) -> None:
    first, second = folders
    done = CliRunner().invoke(main, ["env"])
    assert f"export EDGEPACK_CONFIG={second / 'edgepack.yaml'}\n" in done.stdout
    assert f"export DAGSTER_HOME={second / '.edgepack' / 'dagster'}\n" in done.stdout
    assert str(first) not in done.stdout
    assert done.stderr.startswith(f"using {second / 'edgepack.yaml'}, not {first / 'edgepack.yaml'}")


def test_what_a_person_named_stays_and_is_said(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = folders
    (first / "prod.yaml").write_text((first / "edgepack.yaml").read_text())
    monkeypatch.setenv("EDGEPACK_CONFIG", str(first / "prod.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", str(first))
    done = CliRunner().invoke(main, ["config", "check"])
    assert done.stdout == f"{first / 'prod.yaml'} is valid; model types: first\n"
    assert done.stderr.startswith(f"using {first / 'prod.yaml'}, which EDGEPACK_CONFIG names, not {second}")


def test_in_its_own_folder_nothing_is_said(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders[0])
    assert CliRunner().invoke(main, ["config", "check"]).stderr == ""


def test_another_home_than_the_projects_is_said(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = folders
    assert other_home(first / "edgepack.yaml") is None
    assert "not in this project's" in (other_home(second / "edgepack.yaml") or "")
    monkeypatch.delenv("DAGSTER_HOME")
    assert 'eval "$(edgepack env)"' in (other_home(first / "edgepack.yaml") or "")
