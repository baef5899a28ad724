"""Runs in the component's environment: learns the envelope from a payload's images, and tries faults of cameras and
small changes on the packaged model. A file of its own: child_tasks.py is not needed for it."""

from __future__ import annotations

import base64
import gzip
import importlib
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_MOST_IMAGES = 64
_MOST_LEARNED = 2000
_SEED = 18
Fault = Callable[[Any, Any], Any]


def learn_envelope(arguments: dict[str, Any]) -> dict[str, Any]:
    """The envelope of the payload's images, of very many the evenly chosen."""
    envelope, features = importlib.import_module("envelope"), importlib.import_module("image_features")
    wanted = _evenly(arguments["count"], _MOST_LEARNED)
    found = [
        features.image_features(image) for image in _images(Path(arguments["records"]), wanted)
        if image is not None
    ]  # fmt: skip
    learned: dict[str, Any] = envelope.learn(np.array(found), features.NAMES, features.FLOORS, alone=features.ALONE)
    return learned


def probe_faults(arguments: dict[str, Any]) -> dict[str, Any]:
    """How many answers change under each fault, and how many images are noticed."""
    settings = json.loads(Path("model.json").read_text(encoding="utf-8"))
    classifier = _load()
    wanted = _evenly(arguments["count"], _MOST_IMAGES)
    images = [image for image in _images(Path(arguments["records"]), wanted) if image is not None]
    plain = [_answer(classifier, image) for image in images]
    found = []
    for name, kind, fault in _faults():
        answers = changed = noticed = unnoticed = 0
        is_noticed = _notices(settings)
        for number, (image, before) in enumerate(zip(images, plain, strict=True)):
            given = fault(image, np.random.default_rng(_SEED + number))
            now = _answer(classifier, given)
            is_seen, is_other = now is None or is_noticed(given), now != before
            answers += now is not None
            changed += is_other
            noticed += is_seen
            unnoticed += is_other and not is_seen
        found.append({
            "name": name, "kind": kind, "records": len(images), "answers": answers, "changed": changed,
            "noticed": noticed, "unnoticed": unnoticed,
        })  # fmt: skip
    return {"probes": found, "what": "images"}


def _load() -> Any:
    """The packaged classifier."""
    return importlib.import_module("onnx_options" if Path("onnx_options.py").is_file() else "inference").load(
        Path.cwd()
    )


def _images(records: Path, wanted: Collection[int]) -> Iterator[Any]:
    """The images of these records; None where a record has none."""
    decoding = importlib.import_module("decoding")
    with gzip.open(records, "rb") as lines:
        for number, line in enumerate(lines):
            if number not in wanted:
                continue
            payload = json.loads(line, object_hook=_with_bytes).get("vision_payload")
            try:
                if isinstance(payload, dict):  # the first one of an image set
                    yield next(importlib.import_module("image_set_decoding").images_of(payload))
                else:
                    yield decoding.decode(payload)
            except decoding.NoAnswer:
                yield None


def _with_bytes(value: dict[str, Any]) -> Any:
    """Bytes are {"$bytes": base64} in a payload."""
    return base64.b64decode(value["$bytes"]) if value.keys() == {"$bytes"} else value


def _notices(settings: dict[str, Any]) -> Callable[[Any], bool]:
    """Whether the envelope of a component that has seen no image notices one after the other."""
    if "envelope" not in settings:
        return lambda _: False
    envelope = importlib.import_module("envelope").Envelope(settings["envelope"])
    features_of = importlib.import_module("image_features").image_features

    def notices(image: Any) -> bool:
        features = features_of(image)
        return bool(envelope.repeated(features) > 1) | bool(envelope.distance(features) > 1)

    return notices


def _answer(classifier: Any, image: Any) -> int | None:
    try:
        return int(classifier.classify(image)[0])
    except importlib.import_module("decoding").NoAnswer:
        return None


def _evenly(count: int, most: int) -> set[int]:
    return set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()) if count else set()


def _faults() -> list[tuple[str, str, Fault]]:
    """Name, kind, and what is done to an image."""
    from PIL import Image, ImageChops, ImageFilter

    def pixels(change: Callable[[Any, Any], Any]) -> Fault:
        def fault(image: Any, random: Any) -> Any:
            changed = change(np.asarray(image, dtype=np.float32), random)
            return Image.fromarray(np.clip(np.rint(changed), 0, 255).astype(np.uint8))

        return fault

    def blurred(image: Any, _: Any) -> Any:
        return image.filter(ImageFilter.GaussianBlur(max(image.size) / 50))

    def striped(values: Any, _: Any) -> Any:
        values = values.copy()
        values[len(values) // 4 : len(values) // 2] = 0
        return values

    def covered(values: Any, _: Any) -> Any:
        values = values.copy()
        values[len(values) // 2 :, values.shape[1] // 2 :] = 128
        return values

    def turned(image: Any, _: Any) -> Any:
        return image.transpose(Image.Transpose.ROTATE_90)

    def spotted(values: Any, random: Any) -> Any:
        return np.where(random.random(values.shape[:2])[:, :, None] < 0.001, 0, values)

    return [
        ("nothing", "none", lambda image, _: image),
        ("red and blue exchanged", "fault", pixels(lambda values, _: values[:, :, ::-1])),
        ("brightness times 1.5", "fault", pixels(lambda values, _: 1.5 * values)),
        ("brightness plus 50 of 255", "fault", pixels(lambda values, _: values + 50)),
        ("overexposed: brightness times 3", "fault", pixels(lambda values, _: 3 * values)),
        ("dark: brightness times 0.3", "fault", pixels(lambda values, _: 0.3 * values)),
        ("blurred by a fiftieth of the width", "fault", blurred),
        ("noise of 25 of 255", "fault", pixels(lambda values, random: values + 25 * random.normal(size=values.shape))),
        ("a quarter of the rows black", "fault", pixels(striped)),
        ("a quarter of the image covered", "fault", pixels(covered)),
        ("turned by a quarter", "fault", turned),
        ("one image for all: the camera is stuck", "fault", _Stuck()),
        ("one pixel aside", "small", lambda image, _: ImageChops.offset(image, 1, 0)),
        ("noise of 0.1 %, at least one step of 255", "small",
         pixels(lambda values, random: values + random.choice([-1.0, 0.0, 1.0], values.shape))),
        ("0.1 % of the pixels black", "small", pixels(spotted)),
    ]  # fmt: skip


class _Stuck:
    """Gives the first image that it got."""

    def __init__(self) -> None:
        self._first: Any = None

    def __call__(self, image: Any, _: Any) -> Any:
        self._first = self._first or image
        return self._first
