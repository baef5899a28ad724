"""What the image classification type declares, and what it costs to load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgepack_assets.errors import EdgepackError
from edgepack_assets.model_types import model_type
from edgepack_assets.model_types.image_classification import MODEL_TYPE
from edgepack_assets.model_types.interface import Prepped


def test_it_is_found_by_its_name() -> None:
    assert model_type("image_classification") is MODEL_TYPE
    assert MODEL_TYPE.folder.name == MODEL_TYPE.name == "image_classification"


def test_it_prepares_no_data() -> None:
    assert not MODEL_TYPE.prepares_data
    with pytest.raises(EdgepackError, match="prepares no data"):
        MODEL_TYPE.prepped_picture(Prepped(Path("none")))


def test_loading_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgepack_assets.model_types.image_classification\n"
        "print(*sorted({'numpy', 'pandas', 'sklearn', 'matplotlib', 'PIL', 'onnx', 'simaticai'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
