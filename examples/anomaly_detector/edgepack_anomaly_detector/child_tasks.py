"""Runs in the sandbox, in the component's environment: what the packaging must know of the model."""

from pathlib import Path
from typing import Any

import detector


class UnfitModelError(ValueError):
    """The model cannot be packaged; the text says why."""

    is_for_user = True


def inspect_model(arguments: "dict[str, Any]") -> "dict[str, Any]":
    """Try the model on one made-up record."""
    model, settings = detector.load_model(Path.cwd())
    columns, threshold = settings["columns"], settings["threshold"]
    if not hasattr(model, "score_samples"):
        raise UnfitModelError(f"the model ({type(model).__name__}) has no score_samples")
    wanted = getattr(model, "n_features_in_", len(columns))
    if wanted != len(columns):
        raise UnfitModelError(
            f"the model was fitted on {wanted} columns, but `settings.columns` in edgepack.yaml names {len(columns)}"
        )
    names = getattr(model, "feature_names_in_", None)
    if names is not None and sorted(names) != sorted(columns):
        raise UnfitModelError(
            f"the model was fitted on the columns {', '.join(names)}: name these under `settings.columns`"
        )
    if threshold is None:
        if not hasattr(model, "offset_"):
            raise UnfitModelError(f"the model ({type(model).__name__}) has no offset_: name `settings.threshold`")
        threshold = -float(model.offset_)
    detector.Detector(model, columns, threshold).process(dict.fromkeys(columns, 0.0))
    return {"model": type(model).__name__, "columns": columns, "threshold": threshold}
