"""What tests of tasks share: the packages of the tiny component, and a plant that makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack_assets_tests.environments.plain import plain_settings
from edgepack_assets_tests.packaging.conftest import Built, built
from edgepack_assets_tests.tasks.plant import Plant

__all__ = ["built", "plain_settings"]


@pytest.fixture
def plant(built: Built, tmp_path: Path) -> Plant:
    return Plant(built, tmp_path)
