"""Entrypoint of a component with an envelope: what the AI Inference Server calls."""

from pathlib import Path

from enveloped import enveloped
from inference import load_model

_identifier = enveloped(*load_model(Path(__file__).parent))


def process_input(data: dict) -> "dict | None":
    """Take one record; answer when it completes a window."""
    return _identifier.process(data)


def update_parameters(params: dict) -> None:
    """Take changed pipeline parameters while running."""
    _identifier.update_parameters(params)
