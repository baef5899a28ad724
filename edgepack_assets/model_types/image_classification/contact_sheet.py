"""A sheet of a few images with their answers, drawn evenly from the payload, some wrong ones among them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from edgepack_assets.model_types.figures import WIDTH, name_text, png
from edgepack_assets.model_types.image_classification.figure_labels import airy_figure
from edgepack_assets.model_types.image_classification.image_sets import first_image
from edgepack_assets.model_types.image_classification.payload import INPUT
from edgepack_assets.model_types.image_classification.scoring import NO_ANSWER, Image, match
from edgepack_assets.model_types.interface import Payload, Results, read_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image as Pixels

_T = TypeVar("_T")

_SHOWN, _WRONG, _COLUMNS = 12, 4, 4
_RIGHT_COLOUR, _WRONG_COLOUR = "#2a7d3c", "#c2321e"
_GROUND = "#eef1f5"
_EDGE = 320  # pixels along a tile's side


def draw(payload: Payload, results: Results) -> bytes:
    """A PNG of the sheet."""
    scored = match(payload, results)
    chosen = choose(scored.images)
    names = scored.names
    pixels = _pixels(payload, {image.record for image in chosen})
    rows = max(1, -(-len(chosen) // _COLUMNS))
    figure = airy_figure(WIDTH, 2.75 * rows + 0.6)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image in zip(grid.flat, chosen, strict=False):
        _draw_image(axes, image, pixels[image.record], names)
    correct = sum(image.correct for image in scored.images)
    figure.suptitle(
        f"{len(chosen)} of {len(scored.images)} images ({correct} of {len(scored.images)} answered right)",
        fontsize=13,
    )
    return png(figure)


def choose(images: Sequence[Image]) -> list[Image]:
    """A dozen, in the payload's order: up to four wrong ones and the rest right, as far as there are that many."""
    wrong = [image for image in images if not image.correct]
    right = [image for image in images if image.correct]
    few = min(len(wrong), max(_WRONG, _SHOWN - len(right)))
    chosen = [*_evenly(wrong, few), *_evenly(right, _SHOWN - few)]
    return sorted(chosen, key=lambda image: image.record)


def _evenly(items: Sequence[_T], count: int) -> list[_T]:
    if len(items) <= count:
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def _pixels(payload: Payload, wanted: set[int]) -> dict[int, Pixels]:
    tiles: dict[int, Pixels] = {}
    for number, record in enumerate(read_lines(payload.records)):
        if number in wanted:
            tiles[number] = _tile(_image_of(record[INPUT]))
        if len(tiles) == len(wanted):
            break
    return tiles


def _image_of(value: Any) -> Pixels:
    from PIL import Image as Pillow

    if isinstance(value, dict):
        return first_image(value)
    return Pillow.open(io.BytesIO(base64.b64decode(json.loads(value)["image"].partition(",")[2])))


def _tile(image: Pixels) -> Pixels:
    """The image, as large as fits, in the middle of a square; small ones enlarged without blurring."""
    import numpy as np
    from PIL import Image as Pillow

    if image.mode.startswith("I"):  # 16 bit grey, which Pillow would clip to white
        image = Pillow.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    scale = _EDGE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    way = Pillow.Resampling.NEAREST if scale > 4 else Pillow.Resampling.BICUBIC
    tile = Pillow.new("RGB", (_EDGE, _EDGE), _GROUND)
    tile.paste(image.convert("RGB").resize(size, way), ((_EDGE - size[0]) // 2, (_EDGE - size[1]) // 2))
    return tile


def _draw_image(axes: Axes, image: Image, pixels: Pixels, names: dict[int, str]) -> None:
    from matplotlib.patches import Rectangle

    colour = _RIGHT_COLOUR if image.correct else _WRONG_COLOUR
    axes.imshow(pixels)
    frame = Rectangle(
        (0, 0), 1, 1, transform=axes.transAxes, fill=False, clip_on=False,
        edgecolor=colour, linewidth=1.5 if image.correct else 4,
    )  # fmt: skip
    axes.add_patch(frame)
    sure = "" if image.probability is None else f"  {image.probability:.0%}"
    if image.correct:
        verdict = f"✓ {name_text(names[image.truth], 20)}{sure}"
    elif image.prediction == NO_ANSWER:
        verdict = f"✗ no answer\nis {name_text(names[image.truth], 22)}"
    else:
        answer = names.get(image.prediction, f"class {image.prediction}")
        verdict = f"✗ {name_text(answer, 20)}{sure}\nis {name_text(names[image.truth], 22)}"
    axes.set_title(verdict, fontsize=10.5, color=colour)
    axes.text(
        0.5, -0.05, name_text(image.file, 34), transform=axes.transAxes, ha="center", va="top",
        fontsize=8.5, color="#5b6470",
    )  # fmt: skip
