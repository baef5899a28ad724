"""How an image enters the model, where model.json says so under `input`: its size, and what its pixels become.

The keys are those of `input` in edgepack.yaml. What is missing is as training libraries have it by default, or, for
the values of pixels, as the type of the model's input suggests (inference.py). Runs on the edge, with numpy and
Pillow alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

_MOST_PIXELS = 2**24
"""What would be larger when scaled is cut before it is scaled: a file of a few kilobytes can hold a line of many
million pixels, of which the shorter side is one."""


@dataclass(frozen=True)
class Preprocessing:
    """`range` is what the pixel values 0 and 255 become; or (pixel / 255 - mean) / std for each channel, in the order
    in which they enter the model. Neither: as the model's input type suggests."""

    range: tuple[float, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channel_order: str = "rgb"
    resize: str = "squeeze"
    shorter_side: int | None = None
    crop_fraction: float | None = None
    fill: tuple[int, ...] = (0, 0, 0)
    interpolation: str = "bilinear"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Preprocessing:
        """From JSON."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})

    def values(self) -> np.ndarray | None:
        """The real numbers that the pixel values 0 to 255 become: a row for each channel, or one for all of them.
        None where it is not known."""
        pixels = np.arange(256) / 255
        if self.range is not None:
            low, high = self.range
            return (low + pixels * (high - low))[None]
        if self.mean is None or self.std is None:
            return None
        mean, std = np.broadcast_arrays(np.array(self.mean, float)[:, None], np.array(self.std, float)[:, None])
        return (pixels - mean) / std

    def fit(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """The image in this size."""
        how = Image.Resampling[self.interpolation.upper()]
        if self.resize == "crop":
            return self._crop(image, width, height, how)
        if self.resize == "letterbox":
            return self._letterbox(image, width, height, how)
        return image.resize((width, height), how)

    def _crop(self, image: Image.Image, width: int, height: int, how: Image.Resampling) -> Image.Image:
        """Scale the image until it just covers a box, then cut out the centre: torchvision's Resize and CenterCrop."""
        box_width, box_height = self.box(width, height)
        if image.width * box_height >= image.height * box_width:
            scaled = max(box_width, box_height * image.width // image.height), box_height
        else:
            scaled = box_width, max(box_height, box_width * image.height // image.width)
        left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
        if scaled[0] * scaled[1] <= _MOST_PIXELS:
            return image.resize(scaled, how).crop((left, top, left + width, top + height))
        x, y = image.width / scaled[0], image.height / scaled[1]
        return image.resize((width, height), how, (left * x, top * y, (left + width) * x, (top + height) * y))

    def box(self, width: int, height: int) -> tuple[int, int]:
        """What the scaled image covers before its centre is cut out."""
        if self.shorter_side is not None:
            return self.shorter_side, self.shorter_side
        part = self.crop_fraction or 1.0
        return int(width / part), int(height / part)

    def _letterbox(self, image: Image.Image, width: int, height: int, how: Image.Resampling) -> Image.Image:
        """Scale the image until it just fits, and put it into the middle of a ground of one colour."""
        scale = min(width / image.width, height / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        fill = self.fill if len(self.fill) == 3 else self.fill * 3
        ground = Image.new("RGB", (width, height), fill).convert(image.mode)
        ground.paste(image.resize(size, how), ((width - size[0]) // 2, (height - size[1]) // 2))
        return ground
