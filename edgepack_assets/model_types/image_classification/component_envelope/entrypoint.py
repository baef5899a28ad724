"""What the inference server calls where the package has an envelope: one record in; the most probable class, its
probability and the image's distance from what the package was proven on out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from decoding import NoAnswer, decode
from envelope import Envelope, metric
from image_features import image_features

_log = logging.getLogger(__name__)
_folder = Path(__file__).parent
_loader = import_module("onnx_options" if (_folder / "onnx_options.py").is_file() else "inference")
_classifier = _loader.load(_folder)
_envelope = Envelope(json.loads((_folder / "model.json").read_text(encoding="utf-8"))["envelope"])
_takes_image_sets = (_folder / "image_set_decoding.py").is_file()


def process_input(data: dict[str, Any]) -> dict[str, str] | None:
    """The answer to one record; None, with a line in the log, where it holds no image that can be classified.

    Of several images, the answer is that to the image which the model is most sure of."""
    answers: list[tuple[float, int, int, float]] = []
    features = None
    try:
        for image in _images(data.get("vision_payload") if isinstance(data, dict) else None):
            label, probability = _classifier.classify(image)
            features = image_features(image)
            answers.append((probability, -len(answers), label, _envelope.distance(features)))
    except NoAnswer as reason:
        _log.warning("no answer to this record: %s", reason)
        return None
    probability, _, label, distance = max(answers)
    assert features is not None
    return {
        "prediction": str(label),
        "ic_probability": json.dumps({"value": probability}),
        "envelope_distance": metric(distance),
        "envelope_repeated": metric(_envelope.repeated(features)),
    }


def _images(payload: Any) -> Iterator[Any]:
    if _takes_image_sets:
        yield from import_module("image_set_decoding").images_of(payload)
    else:
        yield decode(payload)


def update_parameters(params: dict[str, Any]) -> None:
    """The server calls this when parameters change; the component declares none, so there is nothing to do."""
