"""What the AI Inference Server calls."""

from pathlib import Path

from detector import Detector, load_model

_model, _settings = load_model(Path(__file__).parent)
_detector = Detector(_model, _settings["columns"], _settings["threshold"])


def process_input(data: dict) -> "dict | None":
    """Take one record and answer it."""
    return _detector.process(data)
