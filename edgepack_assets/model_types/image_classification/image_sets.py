"""Records with images as an ImageSet of the AI SDK, as the Vision Connector sends them in binary.

The SDK's module imageset.py is made to be copied: it imports OpenCV and numpy alone. It ships with the component, and
is loaded here from its file, so that nothing of the SDK itself is imported. The format is what the camera delivers: a
colour image is converted to it by the SDK, a grey one of a Bayer format is the sensor's mosaic itself.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from edgepack_assets.errors import RawDataError

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

FORMATS = (
    "RGB8", "BGR8", "Mono8", "BayerRG8", "BayerGR8", "BayerBG8", "BayerGB8", "YUV422Packed", "YUV422_YUYV_Packed",
)  # fmt: skip
DEFAULT_FORMAT = "RGB8"
FORMAT_TAG = "image_format"
"""The tag of a data asset that says its format."""
MOST_IMAGES = 64
"""The component's own limit (component_image_set/image_set_decoding.py)."""
_FILE = "simaticai/payloads/imageset.py"
_GREY = ("1", "L", "I", "I;16", "F", "LA")


def sdk_file() -> Path:
    """The SDK's imageset.py."""
    return Path(str(distribution("simaticai").locate_file(_FILE)))


def requirement() -> str:
    """The OpenCV that the SDK itself asks for."""
    lines = [line for line in distribution("simaticai").requires or () if Requirement(line).name.startswith("opencv")]
    return lines[0]


@cache
def _sdk() -> Any:
    spec = importlib.util.spec_from_file_location("edgepack_sdk_imageset", sdk_file())
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def chosen_format(configured: str | None, tags: Mapping[str, str]) -> str:
    """The format of the configuration, else that of the data asset's tag, else RGB8. Raises RawDataError."""
    name = configured or tags.get(FORMAT_TAG) or DEFAULT_FORMAT
    if name not in FORMATS:
        raise RawDataError(
            f"the data asset's tag {FORMAT_TAG}={name!r:.60} is no format of an ImageSet; known are "
            f"{', '.join(FORMATS)}"
        )
    return name


def record(images: Sequence[tuple[str, Pixels]], image_format: str, at: datetime, number: int) -> dict[str, Any]:
    """One ImageSet of images with their names. Raises RawDataError naming the image."""
    time = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    details = []
    for place, (name, image) in enumerate(images):
        data, height, width = _converted(name, image, image_format)
        details.append(
            {
                "id": name, "seq": number * len(images) + place, "timestamp": time, "format": image_format,
                "width": width, "height": height, "metadata": {"ptpstatus": "Disabled", "ptptimestamp": "0"},
                "image": data,
            }
        )  # fmt: skip
    return {"version": "1", "count": len(details), "cameraid": "edgepack", "timestamp": time, "detail": details}


def _converted(name: str, image: Pixels, image_format: str) -> tuple[bytes, int, int]:
    import numpy as np

    if image_format.startswith("YUV") and image.width % 2:
        raise RawDataError(f"{name}: is {image.width} pixels wide; {image_format} needs an even width")
    if image_format.startswith("Bayer") and (image.width % 2 or image.height % 2):
        raise RawDataError(f"{name}: is {image.width}x{image.height}; {image_format} needs an even width and height")
    if image.mode in _GREY and (image_format == "Mono8" or image_format.startswith("Bayer")):
        return _grey(image).tobytes(), image.height, image.width
    colours = _colours(image)
    converted: tuple[bytes, int, int] = _sdk().ImageDetails.convert_image_from_BGR(
        np.ascontiguousarray(np.asarray(colours)[:, :, ::-1]), image_format
    )
    return converted


def _grey(image: Pixels) -> Pixels:
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bit, which Pillow would clip to white
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) // 256).astype(np.uint8))
    return image.convert("L")


def _colours(image: Pixels) -> Pixels:
    if image.mode in _GREY:
        return _grey(image).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about the direct way
    return image.convert("RGB")


def first_image(image_set: Mapping[str, Any]) -> Pixels:
    """The first image of a record, as RGB."""
    from PIL import Image

    return Image.fromarray(_sdk().ImageDetails.from_dict(image_set["detail"][0]).get_image_rgb())
