"""What the AI Inference Server calls."""

from pathlib import Path
from typing import Any

from detector import Detector, load_model

_model, _settings = load_model(Path(__file__).parent)
_detector = Detector(_model, _settings["columns"], _settings["threshold"])


def process_input(data: "dict[str, Any]") -> "dict[str, Any] | None":
    """Take one record and answer it."""
    return _detector.process(data)
