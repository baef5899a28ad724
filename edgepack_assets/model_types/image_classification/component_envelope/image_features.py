"""What an image looks like, for the envelope: brightness, contrast, colour, sharpness and noise. Ships if `envelope` is
set. Some rows of the image are looked at, so that the cost grows with its width alone, and quantiles are of some of
their pixels."""

from typing import Any

import numpy as np

_SHADES = (0.01, 0.1, 0.5, 0.9, 0.99)
NAMES = [
    "red", "green", "blue", "contrast", "sharpness", "noise", "black pixels", "white pixels", "rows of one colour",
    *(f"brightness of {share:.0%}" for share in _SHADES),
    "fineness", "sharpness downwards", "red less green", "green less blue", "spread of red less green",
    "spread of green less blue", "least noise", "hardest edges",
]  # fmt: skip
FLOORS = [
    0.01, 0.01, 0.01, 0.05, 0.1, 0.1, 0.01, 0.01, 0.01, *(0.02 for _ in _SHADES),
    0.05, 0.05, 0.01, 0.01, 0.05, 0.05, 0.1, 0.1,
]  # fmt: skip
"""Differences that mean nothing."""
ALONE = 9
"""So many of the first are looked at each by itself, too."""
_PAIRS = 48
"""Of rows below each other."""
_COLUMNS = 256
_COARSE = 4
"""Pixels from one to the next for what is coarse."""


def image_features(image: Any) -> "np.ndarray":
    """Of an RGB image (Pillow)."""
    pixels = np.asarray(image)
    last = len(pixels) - 1
    upper = np.linspace(0, max(0, last - 1), min((last + 2) // 2, _PAIRS)).astype(int)
    lower = np.minimum(upper + 1, last)
    part = pixels[np.unique(np.concatenate([upper, lower]))].astype(np.float32) / 255
    grey = part.mean(axis=2)
    across = np.abs(np.diff(grey, axis=1))
    coarse = np.abs(grey[:, _COARSE:] - grey[:, :-_COARSE])
    down = np.abs(pixels[lower].astype(np.float32).mean(axis=2) - pixels[upper].astype(np.float32).mean(axis=2)) / 255
    bends = _some(np.abs(np.diff(grey, n=2, axis=1)))
    sharpness = _log(_mean(across))
    red_less_green, green_less_blue = part[:, :, 0] - part[:, :, 1], part[:, :, 1] - part[:, :, 2]
    return np.array(
        [
            *part.mean(axis=(0, 1)),
            _log(grey.std()),
            sharpness,
            _log(_quantile(bends, 0.5)),
            (grey < 0.02).mean(),
            (grey > 0.98).mean(),
            (np.ptp(grey, axis=1) < 0.01).mean(),
            *_quantile(_some(grey), _SHADES),
            sharpness - _log(_mean(coarse)),
            _log(_mean(down)) - sharpness,
            red_less_green.mean(),
            green_less_blue.mean(),
            _log(red_less_green.std()),
            _log(green_less_blue.std()),
            _log(_quantile(bends, 0.1)),
            _log(_quantile(_some(across), 0.99)),
        ],
        dtype=np.float64,
    )


def _some(values: "np.ndarray") -> "np.ndarray":
    """Of wide rows some pixels."""
    return values[:, :: max(1, values.shape[1] // _COLUMNS)]


def _mean(values: "np.ndarray") -> float:
    return float(values.mean()) if values.size else 0.0


def _quantile(values: "np.ndarray", share: Any) -> Any:
    return np.quantile(values, share) if values.size else np.zeros(np.shape(share))


def _log(value: Any) -> float:
    return float(np.log(value + 1e-3))
