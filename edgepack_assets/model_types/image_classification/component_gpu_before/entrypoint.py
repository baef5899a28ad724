"""What the inference server calls first where the model runs in its GPU runtime: one record in, its images out, as the
flat array that the model takes. A record of the JSON form and, where they are configured, image sets are taken."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from decoding import NoAnswer, decode
from inference import ImageInput, Tensor, read_settings
from preprocessing import Preprocessing

_log = logging.getLogger(__name__)
_settings = read_settings(Path(__file__).parent)
_tensor = Tensor(**{**_settings["gpu"]["input"], "shape": tuple(_settings["gpu"]["input"]["shape"])})
_input = ImageInput(_tensor, "NCHW", Preprocessing.of(_settings.get("input", {})))
_most: int = _settings["gpu"]["max_batch_size"]
_image_sets = import_module("image_set_decoding") if "payload" in _settings else None


def process_input(data: dict[str, Any]) -> dict[str, Any] | None:
    """The images of one record as one flat array, image after image; None, with a line in the log, where it holds none
    that can be classified."""
    payload = data.get("vision_payload") if isinstance(data, dict) else None
    try:
        images = [decode(payload)] if _image_sets is None else list(_image_sets.images_of(payload))
        if len(images) > _most:
            raise NoAnswer(f"it holds {len(images)} images, and max_batch_size is {_most}")
        return {_tensor.name: np.concatenate([_input.fill(image).reshape(-1) for image in images])}
    except NoAnswer as reason:
        _log.warning("no answer to this record: %s", reason)
        return None


def update_parameters(params: dict[str, Any]) -> None:
    """The server calls this when parameters change; the component declares none, so there is nothing to do."""
