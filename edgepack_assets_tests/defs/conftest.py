"""What tests of the assets and sensors share: state of Dagster that is made once and copied for each test."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from edgepack_assets_tests.defs.assets.staleness import prepared_plant

__all__ = ["empty_storage", "prepared_plant"]


@pytest.fixture(scope="session")
def empty_storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Dagster writes into a new home: the databases. Making them takes a hundred times as long as a copy."""
    home = tmp_path_factory.mktemp("empty-storage")
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        assert instance.get_dynamic_partitions("models") == []
    return home
