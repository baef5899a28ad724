"""From a record's text to an image. Runs on the edge, with Pillow and numpy alone."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_IMAGE_BYTES = 64 * 2**20
"""The largest PNG or JPEG file that is decoded."""
MAX_PAYLOAD_CHARACTERS = MAX_IMAGE_BYTES // 3 * 4 + 2**20
"""The longest vision_payload that is parsed: such an image in base64, and a megabyte of what goes with it."""
MAX_PIXELS = 80_000_000
"""The largest image that is unpacked: a file of a few kilobytes can claim to be one of many gigabytes."""

_DATA_URI = re.compile(r"data:image/(?:png|jpe?g)(?:;[^;,]{0,100}){0,5};base64\Z", re.IGNORECASE)


class NoAnswer(ValueError):
    """A record that cannot be classified; the text says why."""


def decode(payload: object) -> Image.Image:
    """The RGB image in a vision_payload: JSON text whose `image` is a data URI of a PNG or JPEG."""
    if payload is None:
        raise NoAnswer("it has no vision_payload")
    if not isinstance(payload, str):
        raise NoAnswer(f"its vision_payload is not text but {type(payload).__name__}")
    if len(payload) > MAX_PAYLOAD_CHARACTERS:
        raise NoAnswer(f"its vision_payload has {len(payload)} characters; at most {MAX_PAYLOAD_CHARACTERS} are read")
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise NoAnswer(f"its vision_payload is not JSON ({error})") from error
    if not isinstance(document, dict) or "image" not in document:
        raise NoAnswer("its vision_payload is JSON without an image")
    return unpack(image_bytes(document["image"]))


def image_bytes(uri: object) -> bytes:
    """The bytes in a data URI of a PNG or JPEG. Any other kind of URL is refused, never opened."""
    if not isinstance(uri, str):
        raise NoAnswer(f"its image is not text but {type(uri).__name__}")
    header, comma, encoded = uri.partition(",")
    if not comma or not _DATA_URI.match(header):
        # Only the beginning, and no more than a scheme of a foreign URL: it may hold a password.
        seen = header[:40] if header[:5].lower() == "data:" else header.partition(":")[0][:20]
        raise NoAnswer(f"its image is no data URI of a PNG or JPEG in base64, but begins with {seen!r}")
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoAnswer(f"its image is not valid base64 ({error})") from error


def unpack(data: bytes) -> Image.Image:
    """The RGB image in the bytes of a PNG or JPEG file."""
    if len(data) > MAX_IMAGE_BYTES:
        raise NoAnswer(f"its image has {len(data)} bytes; at most {MAX_IMAGE_BYTES} are read")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise NoAnswer(f"its image is {image.width}x{image.height}; at most {MAX_PIXELS} pixels are read")
            image.load()
            return to_rgb(image)
    except NoAnswer:
        raise
    except UnidentifiedImageError as error:
        raise NoAnswer("its image is neither PNG nor JPEG") from error
    except Exception as error:  # what Pillow raises on a broken file has no common base
        raise NoAnswer(f"its image cannot be decoded ({type(error).__name__}: {error})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PNG or JPEG mode as RGB. Transparency is dropped, as training libraries do when they load RGB."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # 16 bit grey: Pillow would clip at 255, so that nearly all of it turns white.
        grey = np.clip(np.asarray(image), 0, 65535) // 256
        image = Image.fromarray(grey.astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about the direct way
    return image.convert("RGB")
