"""What `edgepack model-type` refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepack_assets.cli.model_type import model_type
from edgepack_assets.errors import EdgepackError


@pytest.mark.parametrize("name", ["Pump", "pump-level", "1pump", "pump__level", "../pump", ""])
def test_a_name_that_is_no_module_is_refused(tmp_path: Path, name: str) -> None:
    done = CliRunner().invoke(model_type, ["new", name, str(tmp_path / "new")])
    assert done.exit_code == 2
    assert not (tmp_path / "new").exists()


def test_a_folder_that_exists_and_a_name_that_is_taken_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgepackError, match="exists: name another folder"):
        CliRunner().invoke(model_type, ["new", "pump_level", str(tmp_path)], catch_exceptions=False)
    with pytest.raises(EdgepackError, match="there is a model type state_identifier already, of edgepack-assets"):
        CliRunner().invoke(model_type, ["new", "state_identifier", str(tmp_path / "x")], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []


def test_the_installed_ones_are_listed_with_their_distribution() -> None:
    done = CliRunner().invoke(model_type, ["list"])
    assert "state_identifier" in done.output
    assert "edgepack-assets" in done.output
