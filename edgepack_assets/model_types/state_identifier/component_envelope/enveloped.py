"""A state identifier that tells with each answer how far its window is from what the package was proven on.

Ships if `envelope` is set, beside inference.py, which does the work, and general_inference.py where that is needed.
"""

import importlib
from pathlib import Path
from typing import Any

import inference
import numpy as np
from envelope import Envelope, metric
from window_features import window_features


def identifier_class() -> Any:
    """The class that answers without an envelope."""
    if (Path(__file__).parent / "general_inference.py").is_file():
        return importlib.import_module("general_inference").GeneralStateIdentifier
    return inference.StateIdentifier


def enveloped(model: Any, settings: "dict[str, Any]") -> Any:
    """An object of that class whose answers have the envelope's metrics."""
    learned = settings["envelope"]
    envelope = Envelope(learned)
    low, high = np.asarray(learned["low"]), np.asarray(learned["high"])

    class Enveloped(identifier_class()):  # type: ignore[misc]
        """With each answer, the metrics of its window. What a record costs stays the same."""

        def _answer(self) -> "dict[str, Any] | None":
            answer: dict[str, Any] | None = super()._answer()
            if answer is None:
                return None
            window = np.asarray(self._rows, dtype=np.float64)[-self.window_size :]
            return answer | {
                "envelope_distance": metric(envelope.distance(window_features(window))),
                "envelope_outside": metric(float(((window < low) | (window > high)).mean())),
                "envelope_missing": metric(float(np.isnan(window).mean())),
            }

    return Enveloped(model, settings)
