"""Payloads, results and images that the tests of this folder are made from."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.model_types.image_classification import MODEL_TYPE
from edgepack_assets.model_types.image_classification.keras_conversion import CHILD_TASKS
from edgepack_assets.model_types.interface import Payload, PayloadWriter, Results, gzip_writer

INSPECTION = {
    "input": {"width": 8, "height": 8},
    "output": {"classes": 10},
}


def entry(**more: Any) -> ModelTypeSettings:
    """A configuration entry."""
    return ModelTypeSettings.model_validate(
        {
            "implementation": "image_classification",
            "model_name": "classifier",
            "package_name": "Image Classification",
            "raw_data": {"name": "photos"},
            **more,
        }
    )


def load_inference() -> ModuleType:
    """The component's inference.py, which is no part of a package; its neighbours are imported as on the edge."""
    for name in ("decoding", "preprocessing"):
        _load(name, MODEL_TYPE.folder / "component" / f"{name}.py")
    return _load("component_inference", MODEL_TYPE.folder / "component" / "inference.py")


def load_decoding() -> ModuleType:
    """The component's decoding.py."""
    return _load("decoding", MODEL_TYPE.folder / "component" / "decoding.py")


def load_child_tasks() -> ModuleType:
    """What runs in the component's environment while packaging."""
    for name in ("child_batches", "child_versions"):
        _load(name, MODEL_TYPE.folder / f"{name}.py")
    return _load("image_child_tasks", MODEL_TYPE.folder / "child_tasks.py")


def load_keras_child_tasks() -> ModuleType:
    """What runs where Keras and TensorFlow models are converted."""
    return _load("keras_child_tasks", CHILD_TASKS)


def _load(name: str, file: Path) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and imports look a module up
    spec.loader.exec_module(module)
    return module


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(seed: int, width: int = 20, height: int = 15) -> Image.Image:
    """A colourful picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def photos(root: Path, per_class: Mapping[str, int]) -> Path:
    """A folder of class folders with PNG files 0.png, 1.png, ..."""
    seed = 0
    for name, count in per_class.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(encoded(photo(seed)))
            seed += 1
    return root


def write_payload(raw: Path, tags: Mapping[str, str], folder: Path) -> tuple[Payload, dict[str, Any]]:
    """The payload of raw data, with its facts."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = PayloadWriter(folder / "records.gz", folder / "sources.gz")
    with writer.open():
        facts = MODEL_TYPE.write_payload(raw, tags, writer, entry())
    return Payload(writer.records, writer.sources, writer.count), {**facts, "records": writer.count}


def labelled_payload(folder: Path, labels: Sequence[int], files: Sequence[str] | None = None) -> Payload:
    """A payload with a tiny picture for each label."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = PayloadWriter(folder / "records.gz", folder / "sources.gz")
    with writer.open():
        for number, label in enumerate(labels):
            file = files[number] if files else f"class-{label}/{number}.png"
            message = {"image": "data:image/png;base64," + _base64(encoded(photo(number)))}
            writer.add({"vision_payload": json.dumps(message)}, file, label)
    return Payload(writer.records, writer.sources, writer.count)


def _base64(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()


def results(folder: Path, answers: Sequence[tuple[int, Any]], probability: float = 0.9) -> Results:
    """Results with these (record, prediction); a prediction None is a record without an answer."""
    path = folder / "results.gz"
    with gzip_writer(path) as stream:
        for record, prediction in answers:
            outputs = None
            if prediction is not None:
                outputs = {"prediction": str(prediction), "ic_probability": json.dumps({"value": probability})}
            stream.write(json.dumps({"record": record, "outputs": outputs}).encode() + b"\n")
    return Results(path)
