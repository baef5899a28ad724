"""What loading the code location refuses."""

from __future__ import annotations

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
