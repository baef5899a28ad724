"""What an image looks like, for the envelope: brightness, contrast, colour, sharpness and noise. Ships if `envelope` is
set. Some rows of the image are looked at, so that the cost grows with its width alone."""

from typing import Any

import numpy as np

NAMES = [
    "red", "green", "blue", "contrast", "sharpness", "noise", "black pixels", "white pixels", "rows of one colour",
]  # fmt: skip
FLOORS = [0.01, 0.01, 0.01, 0.05, 0.1, 0.1, 0.01, 0.01, 0.01]
"""Differences that mean nothing."""
_ROWS = 96
_LEAST = 1e-3


def image_features(image: Any) -> "np.ndarray":
    """Of an RGB image (Pillow)."""
    pixels = np.asarray(image)
    rows = np.linspace(0, len(pixels) - 1, min(len(pixels), _ROWS)).astype(int)
    part = pixels[rows].astype(np.float32) / 255
    grey = part.mean(axis=2)
    across = np.diff(grey, axis=1)
    bends = np.abs(np.diff(across, axis=1))
    return np.array(
        [
            *part.mean(axis=(0, 1)),
            np.log(grey.std() + _LEAST),
            np.log((np.abs(across).mean() if across.size else 0.0) + _LEAST),
            np.log((np.median(bends) if bends.size else 0.0) + _LEAST),
            (grey < 0.02).mean(),
            (grey > 0.98).mean(),
            (np.ptp(grey, axis=1) < 0.01).mean(),
        ],
        dtype=np.float64,
    )
