"""Makes the sample data: a three-phase power recording, and images of digits.

The same call gives the same data. No package is validated on the data that its model was trained on: the recordings
have different seeds, and the images are disjoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

PHASES = ("ph1", "ph2", "ph3")
RECORDING_FILE = "power_recording.parquet"
ROWS = 24_000
ROW_MILLISECONDS = 250
TRAINING_SEED, VALIDATION_SEED = 1, 2

STATES = ("idle", "running", "heavy load")
_LEVELS = (900.0, 4_500.0, 8_500.0)  # mean power of a phase in each state
_RIPPLES = (15.0, 240.0, 480.0)  # how much a phase swings in each state
_IMBALANCE = (1.0, 0.97, 1.02)

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGES_PER_CLASS = 20
IMAGE_SIZE = 32


@dataclass(frozen=True)
class Recording:
    """A recording, and the state (index into STATES) that the machine was in at each row."""

    frame: pd.DataFrame
    states: NDArray[np.int64]


def power_recording(seed: int, rows: int = ROWS) -> Recording:
    """DateTime, ph1, ph2, ph3 of a machine that changes between three states at irregular times."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(seed)
    states = _states(random, rows)
    # The machine needs some seconds to come to power: the level follows its state with a lag.
    lag = 0.9 ** np.arange(120)
    level = np.convolve(np.take(_LEVELS, states), lag / lag.sum())[:rows]
    level[: len(lag)] = _LEVELS[states[0]]
    ripple = np.take(_RIPPLES, states)
    shared = random.normal(0.0, 1.0, rows)  # the load swings on all phases at once
    seconds = np.arange(rows) * ROW_MILLISECONDS / 1000
    drift = 1.0 + 0.02 * np.sin(2 * np.pi * seconds / 2_700)
    phases = np.empty((rows, len(PHASES)))
    for number, imbalance in enumerate(_IMBALANCE):
        own = random.normal(0.0, 0.35, rows)
        phases[:, number] = imbalance * (level * drift + ripple * (shared + own))
    phases = phases.round(2)
    for first, length, lost in _gaps(random, rows):
        phases[first : first + length, lost] = np.nan
    start = datetime(2024, 3, 4, 6, 0, tzinfo=UTC)
    times = pd.date_range(start, periods=rows, freq=f"{ROW_MILLISECONDS}ms", unit="us")
    columns = {name: phases[:, number] for number, name in enumerate(PHASES)}
    return Recording(pd.DataFrame({"DateTime": times, **columns}), states)


def _states(random: np.random.Generator, rows: int) -> NDArray[np.int64]:
    import numpy as np

    parts: list[NDArray[np.int64]] = []
    state, filled = 0, 0
    while filled < rows:
        length = int(random.integers(700, 3_000))
        parts.append(np.full(length, state))
        filled += length
        state = (state + int(random.integers(1, len(STATES)))) % len(STATES)  # always a different state
    return np.concatenate(parts)[:rows]


def _gaps(random: np.random.Generator, rows: int) -> Iterator[tuple[int, int, list[int]]]:
    """(first row, length, phases) of missing values. None is in the first rows, which could not be filled. Some gaps
    begin exactly at the start of a window of 300 rows: a component that forgets the value before its window gets these
    wrong."""
    for window in random.choice(range(2, rows // 300), size=5, replace=False):
        yield int(window) * 300, 3, [0, 1, 2]
    for first in random.integers(100, rows - 10, size=80):
        lost = sorted(random.choice(3, size=int(random.integers(1, 4)), replace=False).tolist())
        yield int(first), int(random.integers(1, 5)), lost


def write_recording(folder: Path) -> Path:
    """Write the recording that packages are validated on as a Parquet file; return the file."""
    file = folder / RECORDING_FILE
    power_recording(VALIDATION_SEED).frame.to_parquet(file, index=False)
    return file


@dataclass(frozen=True)
class Digits:
    """Grey images (n, 32, 32) of handwritten digits, their labels, and their numbers in the data set."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    numbers: NDArray[np.int64]


@cache
def digits() -> tuple[Digits, Digits]:
    """(training, validation) images from scikit-learn's digits; the validation images are the last of each
    class, which other people wrote than most of the training images."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    images = np.stack([np.asarray(Image.fromarray(g).resize(size, Image.Resampling.BICUBIC)) for g in grey])
    labels = data.target.astype(np.int64)
    last = [np.flatnonzero(labels == label)[-IMAGES_PER_CLASS:] for label in range(len(CLASS_NAMES))]
    validation = np.sort(np.concatenate(last))
    training = np.setdiff1d(np.arange(len(labels)), validation)
    return (
        Digits(images[training], labels[training], training),
        Digits(images[validation], labels[validation], validation),
    )


def write_images(folder: Path) -> Path:
    """Write the validation images as PNG files in class folders; return the folder."""
    from PIL import Image

    _, validation = digits()
    root = folder / "digits"
    for image, label, number in zip(validation.images, validation.labels, validation.numbers, strict=True):
        file = root / CLASS_NAMES[label] / f"digit_{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return root


def image_tags() -> dict[str, str]:
    """The tags that map a class folder's name to its label."""
    return {name: str(label) for label, name in enumerate(CLASS_NAMES)}
