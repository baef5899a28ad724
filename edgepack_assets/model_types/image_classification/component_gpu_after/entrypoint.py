"""What the inference server calls last where the model runs in its GPU runtime: the model's scores in, the most
probable class and its probability out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from decoding import NoAnswer
from inference import read_scores, read_settings

_log = logging.getLogger(__name__)
_settings = read_settings(Path(__file__).parent)
_name: str = _settings["gpu"]["output"]["name"]
_classes: int = _settings["gpu"]["classes"]


def process_input(data: dict[str, Any]) -> dict[str, str] | None:
    """The answer to one record; None, with a line in the log, where its scores are none.

    Of several images, the answer is that to the image which the model is most sure of."""
    scores = np.asarray(data[_name]).reshape(-1, _classes).astype(np.float32)
    try:
        answers = [read_scores(each, _settings["scores"]) for each in scores]
    except NoAnswer as reason:
        _log.warning("no answer to this record: %s", reason)
        return None
    label, probability = max(answers, key=lambda answer: answer[1])
    return {"prediction": str(label), "ic_probability": json.dumps({"value": probability})}


def update_parameters(params: dict[str, Any]) -> None:
    """The server calls this when parameters change; the component declares none, so there is nothing to do."""
