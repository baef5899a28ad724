"""What the GPU runtime must know of a model: the shape of what it answers, and whether it takes several images at once.
Runs in the sandbox, beside child_tasks.py."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_TOLERANCE = 0.02
"""Of scores, between an image alone and the same image in a batch."""


def inspect_batches(classifier: Any, most: int) -> dict[str, Any]:
    """`answer_shape`: of the output for one image. Raises UnfitModel where the model does not take batches of up to
    `most` images."""
    import numpy as np

    unfit: Any = import_module("inference").UnfitModel
    model, image = classifier.model, classifier.input.tensor
    source, target = model.input, model.output
    alone = model.run(image)
    if alone.ndim == 0:
        raise unfit(f"its output {target.name!r} is a number without a shape, which the GPU runtime does not give")
    if most > 1:
        advice = "set gpu.max_batch_size to 1, or export the model with a batch of any size"
        if source.shape[0] is not None:
            raise unfit(f"its input {source.name!r} is {source.shape_text}, one image at a time: {advice}")
        try:
            both = model.run(np.concatenate([image, np.zeros_like(image)]))
        except Exception as error:  # the runtime's own errors have no common base
            raise unfit(f"it cannot answer two images at once: {error}; {advice}") from error
        if alone.shape[0] != 1 or both.shape != (2, *alone.shape[1:]):
            shapes = ("x".join(map(str, each.shape)) for each in (alone, both))
            raise unfit("its output {!r} is {} for one image and {} for two: {}".format(target.name, *shapes, advice))
        if not np.allclose(both[0].astype(float), alone[0].astype(float), _TOLERANCE, _TOLERANCE):
            raise unfit(f"it answers an image otherwise when another one is in its batch: {advice}")
    return {"answer_shape": list(alone.shape)}
