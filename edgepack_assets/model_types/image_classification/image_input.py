"""How an image enters the packaged model, in words: what is configured, known from the model's file or only assumed,
and what contradicts it. The rows are those of the config package's check.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.model_types.image_classification.settings import PRESETS
from edgepack_assets.text_format import counted

DEFAULTS: Mapping[str, Any] = {"channel_order": "rgb", "resize": "squeeze", "interpolation": "bilinear"}
"""What the component does where nothing is known (component/preprocessing.py)."""
FLOAT_RANGE = [0, 1]

GUESSED = "judged by test images"
"""As child_tasks.inspect_model says it."""
_TOLERANCE = 0.01
"""Of the distance between black and white: a mean of 127 and one of 127.5 are the same."""
_EMBEDDING = 16
"""So many outputs that are never negative and no probabilities, or of length 1: more likely features than scores."""


def rows(inspection: Mapping[str, Any], entry: ModelTypeSettings) -> list[CheckRow]:
    """What is assumed, what contradicts the model's metadata, and whether its output looks like scores."""
    entered = inspection["input"]
    configured = entry.settings.given
    metadata = entered["metadata"]
    table = [_input_row(entered, configured)]
    if metadata["input"]:
        table.append(_contradiction_row(metadata, configured, entered))
    if metadata["notes"]:
        table.append(
            CheckRow(
                "the model's metadata is carried out", False, "; ".join(metadata["notes"]),
                "metadata on images that is understood; else `input` in edgepack.yaml says what is right", warns=True,
            )
        )  # fmt: skip
    table += _output_rows(inspection["output"], metadata["labels"])
    return table


def as_yaml(given: Mapping[str, Any]) -> str:
    """As it is written in edgepack.yaml."""
    for name, preset in PRESETS.items():
        if given == preset:
            return name
    return "{" + ", ".join(f"{key}: {_number_text(value)}" for key, value in given.items()) + "}"


def _number_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.7g}"
    return f"[{', '.join(map(_number_text, value))}]" if isinstance(value, list) else json.dumps(value)


def _input_row(entered: Mapping[str, Any], configured: Mapping[str, Any]) -> CheckRow:
    given, read = entered["preprocessing"], entered["metadata"]["input"]

    def source(*keys: str) -> str:
        if any(key in configured for key in keys):
            return "configured"
        taken = any(key in given and given[key] == read.get(key) for key in keys)
        return str(entered["metadata"]["source"]) if taken else "assumed"

    pixels = source("range", "mean", "std")
    if pixels == "assumed" and not entered["type"].startswith("float"):
        pixels = f"the model's {entered['type']} input"
    size = f"{entered['width']}x{entered['height']}"
    order = given.get("channel_order", DEFAULTS["channel_order"])
    text = "; ".join((
        f"pixel values 0 to 255 become {_levels(entered)} ({pixels})",
        f"channels in the order {order if entered['channels'] > 1 else 'grey'} ({source('channel_order')})",
        f"{_resize(given)} to {size} ({source('resize')})",
        f"{given.get('interpolation', DEFAULTS['interpolation'])} ({source('interpolation')})",
    ))  # fmt: skip
    return CheckRow(
        "how images enter the model is known",
        pixels != "assumed",
        text,
        "what is assumed is as in training; if not, set `input` of the model type in edgepack.yaml: range or mean and "
        "std, channel_order, resize, interpolation (docs/images.md)",
        warns=True,
    )


def _levels(entered: Mapping[str, Any]) -> str:
    black, white = entered["black"], entered["white"]
    if isinstance(black, list):
        return ", ".join(f"{low:.4g} to {high:.4g}" for low, high in zip(black, white, strict=True))
    return f"{black:.4g} to {white:.4g}"


def _resize(given: Mapping[str, Any]) -> str:
    resize = given.get("resize", DEFAULTS["resize"])
    if resize == "squeeze":
        return "squeezed"
    if resize == "letterbox":
        return "scaled to fit on a ground of one colour"
    if "shorter_side" in given:
        return f"shorter side scaled to {given['shorter_side']}, cut"
    return f"scaled, of which the central {given.get('crop_fraction', 1):.4g} is cut"


def _contradiction_row(
    metadata: Mapping[str, Any], configured: Mapping[str, Any], entered: Mapping[str, Any]
) -> CheckRow:
    read, differing = metadata["input"], []
    # Quantized models are judged by their quantization: the metadata is that of the float model they came from.
    ours, theirs = black_and_white(configured), black_and_white(read)
    if entered["type"].startswith("float") and ours and theirs and not _close(ours, theirs):
        differing += [key for key in ("range", "mean", "std") if key in configured]
    differing += [
        key
        for key in ("channel_order", "resize", "shorter_side", "crop_fraction", "fill", "interpolation")
        if key in configured and key in read and configured[key] != read[key]
    ]
    said = f"{metadata['source']} says {as_yaml(read)}"
    return CheckRow(
        "`input` agrees with the model's metadata",
        not differing,
        f"{said}; edgepack.yaml says {as_yaml({key: configured[key] for key in differing})}, which is used"
        if differing
        else said,
        "the same in edgepack.yaml, or nothing there",
        warns=True,
    )


def black_and_white(given: Mapping[str, Any]) -> list[tuple[float, float]] | None:
    """What the pixel values 0 and 255 become, for each channel."""
    if "range" in given:
        return [(given["range"][0], given["range"][1])] * 3
    if "mean" not in given or "std" not in given:
        return None
    mean, std = (given[key] * (3 // len(given[key])) for key in ("mean", "std"))
    return [(-m / s, (1 - m) / s) for m, s in zip(mean, std, strict=True)]


def _close(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> bool:
    return all(
        abs(one - other) <= _TOLERANCE * abs(b[1] - b[0])
        for a, b in zip(ours, theirs, strict=True)
        for one, other in zip(a, b, strict=True)
    )


def _output_rows(output: Mapping[str, Any], labels: int | None) -> list[CheckRow]:
    shape = "x".join("?" if size is None else str(size) for size in output["shape"]) or "scalar"
    classes = output["classes"]
    doubts = []
    if len(output["shape"]) > 2:
        doubts.append(f"has {len(output['shape'])} axes, as features or maps have")
    if classes >= _EMBEDDING and output["never_negative"] and output["scores"] != "probabilities":
        doubts.append("is never below 0 and above 1 at times, as features are and scores are not")
    if classes >= _EMBEDDING and output.get("unit_length"):
        doubts.append("always has the length 1, as features that are compared with each other have")
    table = [
        CheckRow(
            "the output is one score for each class",
            not doubts,
            f"{output['name']}: {shape}" + (", which " + " and ".join(doubts) if doubts else f", {output['scores']}"),
            "scores or probabilities, one for each class; features (an embedding) classify nothing",
            warns=True,
        )
    ]
    if "scores_are" in output:  # else a config package of an earlier release
        table.append(_softmax_row(output))
    if labels is not None:
        table.append(
            CheckRow(
                "as many labels in the model's metadata as scores", labels == classes, counted(labels, "label"),
                f"{counted(classes, 'label')}, one for each score: write the metadata of this model into its file, or "
                f"set output: {{classes: {classes}}} in edgepack.yaml if that number is right",
                warns=bool(output.get("classes_are_configured")),
            )
        )  # fmt: skip
    return table


def _softmax_row(output: Mapping[str, Any]) -> CheckRow:
    """Whether the softmax is applied once: by the model or by the component."""
    kind, known = output["scores"], output["scores_are"]
    done = "applies the softmax" if kind == "logits" else "takes them as they are"
    found = f"{kind} ({known}): the component {done}"
    wanted = (
        "logits, to which the component applies it, or probabilities; if not so, set output.scores in edgepack.yaml"
    )
    name = "the softmax is applied once"
    if kind == "logits" and output["sums_to_one"]:
        return CheckRow(name, False, f"{found}, but the scores of test images sum to 1 already", wanted)
    if kind == "probabilities" and not output["within_one"]:
        return CheckRow(name, False, f"{found}, but scores of test images are beyond 0 and 1", wanted)
    is_guess = known == GUESSED and kind == "probabilities"
    doubt = ", which are between 0 and 1 but do not sum to 1" if is_guess else ""
    return CheckRow(name, not is_guess, f"{found}{doubt}", wanted, warns=True)
