"""What loading the code location refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgepack_assets.config.implementations import installed
from edgepack_assets.definitions import build_defs
from edgepack_assets.errors import ConfigError
from edgepack_assets.model_types import model_type

CONFIG = """\
model_types:
  press:
    implementation: state_identifier
    model_name: press_model
    package_name: Press
    raw_data: {name: press_raw}
    gates: {silhuette: {min: 0.2}}
"""


def test_a_gate_on_a_metric_that_does_not_exist_is_refused_at_load(tmp_path: Path) -> None:
    (tmp_path / "edgepack.yaml").write_text(CONFIG)
    with pytest.raises(
        ConfigError, match=r"press.gates: silhuette is no metric of .*: accuracy, .*dunn_index, inertia, .*silhouette"
    ):
        build_defs(tmp_path / "edgepack.yaml")


@pytest.mark.parametrize("name", installed())
def test_a_model_type_knows_the_worse_direction_of_its_own_metrics_only(name: str) -> None:
    assert model_type(name).lower_is_better <= model_type(name).metric_names


def test_whoever_builds_definitions_of_their_own_gets_no_others(tmp_path: Path) -> None:
    """No command pays for two, or is told twice what is wrong with a plug-in."""
    code = "import edgepack_assets.definitions as d; print('defs' in vars(d), 'defs' in dir(d), hasattr(d, 'other'))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EDGEPACK", "DAGSTER"))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("False True False\n", "")
