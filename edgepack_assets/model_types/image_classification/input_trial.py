"""Where `input` is not configured: what a few labelled images say of the usual ways in which images enter a model.

They are tried with the packaged model in the sandbox (child_tasks.try_inputs), and only reported: of several, none is
chosen here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field

from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types.image_classification.image_input import DEFAULTS, FLOAT_RANGE, as_yaml
from edgepack_assets.model_types.image_classification.scoring import Image, match
from edgepack_assets.model_types.image_classification.settings import PRESETS
from edgepack_assets.model_types.interface import Payload, Results, Trial
from edgepack_assets.model_types.records import copy_records
from edgepack_assets.sandbox.untrusted_values import UntrustedReport, parse_report
from edgepack_assets.text_format import counted

MOST_IMAGES, FEWEST_IMAGES = 64, 8
LIGHT = 32 << 20
"""Up to so many bytes a model is tried on most images; on fewer the larger it is, as each is answered 15 times."""

_IMAGENET = PRESETS["imagenet"]
_PIXELS: Sequence[Mapping[str, Any]] = (
    {"range": FLOAT_RANGE},
    {"range": [-1, 1]},
    {"range": [0, 255]},
    {"mean": _IMAGENET["mean"], "std": _IMAGENET["std"]},
)
_RESIZES: Sequence[Mapping[str, Any]] = (
    {"resize": "squeeze"},
    {"resize": "crop", "crop_fraction": _IMAGENET["crop_fraction"]},
)
_ADVANTAGE = 0.1
"""What share of the images another input answers right more often, to be clearly better ..."""
_DEVIATIONS = 2.5
"""... and by how many standard deviations of chance, as several are tried."""

_T = TypeVar("_T")


class _Tried(UntrustedReport):
    classes: list[list[Annotated[int, Field(ge=0, le=1_000_000_000)] | None]]


def usual_inputs(entered: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The usual inputs but for the packaged one. Of quantized models, the type says what pixel values become."""
    packaged = {**DEFAULTS, **entered["preprocessing"]}
    own = {key: packaged[key] for key in ("range", "mean", "std") if key in packaged}
    colour = entered["channels"] == 3
    pixels: list[Mapping[str, Any]] = [own]
    if entered["type"].startswith("float"):
        own = own or {"range": FLOAT_RANGE}
        usual = [p for p in _PIXELS if colour or "mean" not in p]
        pixels = [own, *(p for p in usual if p != own)]
    resize = {key: packaged[key] for key in ("resize", "shorter_side", "crop_fraction", "fill") if key in packaged}
    resizes = [resize, *(r for r in _RESIZES if r["resize"] != resize["resize"])]
    orders: list[Mapping[str, Any]] = [{}]  # grey has none
    if colour:
        orders = [{"channel_order": order} for order in ("rgb", "bgr")]
    as_packaged = {**own, **{key: packaged[key] for key in orders[0]}, **resize}
    tried = ({**p, **order, **r} for r, p, order in itertools.product(resizes, pixels, orders))
    return [{**given, "interpolation": packaged["interpolation"]} for given in tried if given != as_packaged]


def choose(images: Sequence[Image], most: int) -> list[Image]:
    """A few labelled images, evenly from the labels and from the images of each; in the payload's order."""
    by_label: dict[int, list[Image]] = {}
    for image in images:
        by_label.setdefault(image.truth, []).append(image)
    labels = _evenly(sorted(by_label), most)
    chosen = [image for label in labels for image in _evenly(by_label[label], most // len(labels))]
    return sorted(chosen, key=lambda image: image.record)


def _evenly(items: Sequence[_T], count: int) -> list[_T]:
    if len(items) <= count:
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


@dataclass(frozen=True)
class InputTrial(Trial):
    """The inputs that are tried on these images."""

    function: ClassVar[str] = "try_inputs"
    images: Sequence[Image]
    tried: Sequence[Mapping[str, Any]]
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Path]

    def rows(self, answer: object) -> tuple[list[CheckRow], list[dict[str, Any]]]:
        """Whether another input answers clearly better than the packaged one; how many images each answers right."""
        classes = parse_report("trying other image inputs", _Tried, answer).classes
        labels = [image.truth for image in self.images]
        if [len(answers) for answers in classes] != [len(labels)] * len(self.tried):
            raise ComponentError(f"trying other image inputs gave other than {counted(len(labels), 'answer')} for each")
        packaged = [image.correct for image in self.images]
        correct = [[answer == label for answer, label in zip(a, labels, strict=True)] for a in classes]
        others = sorted(zip(map(as_yaml, self.tried), correct, strict=True), key=lambda other: -sum(other[1]))
        table = [
            {"input": text, "right": sum(right), "of": len(labels), "accuracy": sum(right) / len(labels)}
            for text, right in [("as packaged", packaged), *others]
        ]
        text, best = others[0]
        found = (
            f"of {len(labels)} images, {sum(packaged) / len(labels):.3f} are right as packaged; "
            f"best of {len(others)} others: {sum(best) / len(labels):.3f} with input: {text}"
        )
        return [_row(found, not clearly_better(best, packaged))], table


def clearly_better(one: Sequence[bool], other: Sequence[bool]) -> bool:
    """Whether `one` is right more often than `other`, beyond chance."""
    gained = sum(a and not b for a, b in zip(one, other, strict=True))
    lost = sum(b and not a for a, b in zip(one, other, strict=True))
    return gained - lost >= max(_ADVANTAGE * len(one), _DEVIATIONS * math.sqrt(gained + lost), 1)


def _row(found: str, passed: bool) -> CheckRow:
    return CheckRow(
        "no other usual image input answers clearly better", passed, found,
        "at most as right by chance; if the model was trained so, set it as `input` of the model type in edgepack.yaml",
        warns=True,
    )  # fmt: skip


def plan(payload: Payload, results: Results, inspection: Mapping[str, Any], work: Path) -> InputTrial | None:
    """What to try; None where the packaged input answers all of the images right, or there are no labels."""
    entered = inspection["input"]
    if "preprocessing" not in entered:  # a config package from before there was anything to try
        return None
    most = max(FEWEST_IMAGES, min(MOST_IMAGES, MOST_IMAGES * LIGHT // max(1, inspection["bytes"])))
    images = choose(match(payload, results, int(inspection["output"]["classes"])).images, most)
    if all(image.correct for image in images):
        return None
    tried = usual_inputs(entered)
    sample = work / "sample.gz"
    copy_records(payload.records, {image.record for image in images}, sample)
    return InputTrial(images, tried, {"inputs": tried}, {"records": sample})
