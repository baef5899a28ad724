"""What the image classification type declares, and what it costs to load."""

from __future__ import annotations

import subprocess
import sys

from edgepack_assets.model_types import model_type
from edgepack_assets.model_types.image_classification import MODEL_TYPE


def test_it_is_found_by_its_name() -> None:
    assert model_type("image_classification").folder == MODEL_TYPE.folder
    assert MODEL_TYPE.folder.name == "image_classification"


def test_it_prepares_no_data() -> None:
    assert model_type("image_classification").preparation is None


def test_loading_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgepack_assets.model_types.image_classification\n"
        "print(*sorted({'numpy', 'pandas', 'sklearn', 'matplotlib', 'PIL', 'onnx', 'simaticai'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
