"""Entrypoint of a component with channels, windows or an estimator of its own: what the AI Inference Server calls."""

from pathlib import Path

from general_inference import GeneralStateIdentifier
from inference import load_model

_identifier = GeneralStateIdentifier(*load_model(Path(__file__).parent))


def process_input(data: dict) -> "dict | None":
    """Take one record; answer when it completes a window."""
    return _identifier.process(data)


def update_parameters(params: dict) -> None:
    """Take changed pipeline parameters while running."""
    _identifier.update_parameters(params)
