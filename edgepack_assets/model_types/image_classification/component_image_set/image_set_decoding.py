"""From an ImageSet, as the Vision Connector sends it, to images. Runs on the edge, with the AI SDK's imageset.py, which
ships beside it, and with the OpenCV that this needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

from decoding import MAX_PIXELS, NoAnswer, decode
from imageset import ImageDetails, ImageFormat
from PIL import Image

MAX_IMAGES = 64
"""The most images of one record that are read."""
_BYTES_PER_PIXEL = {"RGB8": 3, "BGR8": 3, "YUV422Packed": 2, "YUV422_YUYV_Packed": 2}


def images_of(payload: object) -> Iterator[Image.Image]:
    """The RGB images of a vision_payload: an ImageSet, or the JSON text of the other route. Raises NoAnswer where
    there is none, or where one of them cannot be read: an answer without it might be another one."""
    if not isinstance(payload, dict):
        yield decode(payload)
        return
    details = payload.get("detail")
    if not isinstance(details, list) or not 0 < len(details) <= MAX_IMAGES:
        count = f"{len(details)} images" if isinstance(details, list) else "no list of images"
        raise NoAnswer(f"its image set holds {count} under detail; 1 to {MAX_IMAGES} are read")
    for number, detail in enumerate(details):
        try:
            yield _image(detail)
        except NoAnswer as reason:
            raise NoAnswer(f"image {number} of its image set: {reason}") from None


def _image(detail: object) -> Image.Image:
    if not isinstance(detail, dict):
        raise NoAnswer(f"it is not a mapping but {type(detail).__name__}")
    fields: dict[str, Any] = detail
    name, width, height, data = fields.get("format"), fields.get("width"), fields.get("height"), fields.get("image")
    if not isinstance(name, str) or name not in ImageFormat.__members__:
        raise NoAnswer(f"its format is {name!r:.60}; known are {', '.join(ImageFormat.__members__)}")
    if not (_is_size(width) and _is_size(height)) or width * height > MAX_PIXELS:
        raise NoAnswer(f"its size is {width!r:.20} x {height!r:.20}; at most {MAX_PIXELS} pixels are read")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise NoAnswer(f"its image is not bytes but {type(data).__name__}")
    wanted = width * height * _BYTES_PER_PIXEL.get(name, 1)
    if len(data) != wanted:
        raise NoAnswer(f"its image has {len(data)} bytes; {width}x{height} in {name} are {wanted}")
    try:
        image = ImageDetails(id="", width=width, height=height, format=ImageFormat[name], image=bytes(data))
        return Image.fromarray(image.get_image_rgb())
    except Exception as error:  # what OpenCV raises has no common base
        raise NoAnswer(f"it cannot be converted ({type(error).__name__}: {error})") from error


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
