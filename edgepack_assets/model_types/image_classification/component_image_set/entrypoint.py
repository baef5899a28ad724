"""What the inference server calls where images come as an ImageSet: one record in, the most probable class and its
probability out. A record of the JSON form is taken as well."""

from __future__ import annotations

import json
import logging
from importlib import import_module
from pathlib import Path
from typing import Any

from decoding import NoAnswer
from image_set_decoding import images_of

_log = logging.getLogger(__name__)
_folder = Path(__file__).parent
_loader = import_module("onnx_options" if (_folder / "onnx_options.py").is_file() else "inference")
_classifier = _loader.load(_folder)


def process_input(data: dict[str, Any]) -> dict[str, str] | None:
    """The answer to one record; None, with a line in the log, where it holds no image that can be classified.

    Of several images, the answer is that to the image which the model is most sure of."""
    answers = []
    try:
        for image in images_of(data.get("vision_payload") if isinstance(data, dict) else None):
            answers.append(_classifier.classify(image))
    except NoAnswer as reason:
        _log.warning("no answer to this record: %s", reason)
        return None
    label, probability = max(answers, key=lambda answer: answer[1])
    return {"prediction": str(label), "ic_probability": json.dumps({"value": probability})}


def update_parameters(params: dict[str, Any]) -> None:
    """The server calls this when parameters change; the component declares none, so there is nothing to do."""
