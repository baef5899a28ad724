"""What the inference server calls, where the .onnx file needs options: one record in, the most probable class and its
probability out. As component/entrypoint.py, but for what loads the model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from decoding import NoAnswer, decode
from onnx_options import load

_log = logging.getLogger(__name__)
_classifier = load(Path(__file__).parent)


def process_input(data: dict[str, Any]) -> dict[str, str] | None:
    """The answer to one record; None, with a line in the log, where it holds no image that can be classified."""
    try:
        image = decode(data.get("vision_payload") if isinstance(data, dict) else None)
        label, probability = _classifier.classify(image)
    except NoAnswer as reason:
        _log.warning("no answer to this record: %s", reason)
        return None
    return {"prediction": str(label), "ic_probability": json.dumps({"value": probability})}


def update_parameters(params: dict[str, Any]) -> None:
    """The server calls this when parameters change; the component declares none, so there is nothing to do."""
