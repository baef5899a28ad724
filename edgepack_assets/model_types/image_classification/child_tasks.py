"""What runs in the component's environment ahead of packaging: finding out what the model is, by loading it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any


def inspect_model(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the packaged model takes and gives, in JSON. Raises ValueError where it classifies no images.

    The working directory is the component's folder, whose inference.py does the work: what is told here is
    what the edge will do. `component` goes into model.json, so that the edge need not find it out again."""
    inference = importlib.import_module("inference")
    classifier = inference.load(Path.cwd())
    entered, source, target = classifier.input, classifier.model.input, classifier.model.output
    scores = classifier.probe()[0]
    return {
        "runtime": "litert" if isinstance(classifier.model, inference.LiteRt) else "onnxruntime",
        "input": {
            "name": source.name,
            "shape": list(source.shape),
            "layout": entered.layout,
            "type": source.dtype,
            "height": entered.height,
            "width": entered.width,
            "channels": entered.channels,
            "quantization": _quantization(source.quantization),
            "black": entered.levels[0].item(),
            "white": entered.levels[255].item(),
        },
        "output": {
            "name": target.name,
            "shape": list(target.shape),
            "type": target.dtype,
            "classes": max(2, len(scores)),
            "quantization": _quantization(target.quantization),
            "scores": classifier.scores,
        },
        "component": {"scores": classifier.scores},
    }


def _quantization(found: tuple[float, int] | None) -> dict[str, float] | None:
    return None if found is None else {"scale": found[0], "zero_point": found[1]}
