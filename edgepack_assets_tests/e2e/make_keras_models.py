"""Trains small image classifiers by Keras 3, or 2 (tf-keras), and saves them in every way; and photos, with what Keras
itself answers to them. Run in an environment with TensorFlow: make_keras_models.py GENERATION FOLDER"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

GENERATION, OUT = int(sys.argv[1]), Path(sys.argv[2])
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_USE_LEGACY_KERAS"] = "1" if GENERATION == 2 else "0"

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402

keras: Any = tf.keras
SIDE, SHAPE = 32, (32, 32, 3)
MLMODEL = "flavors:\n  {0}:\n    data: data\n  python_function:\n    data: data\n    loader_module: mlflow.{0}\n"


def draw(count: int) -> tuple[Any, Any]:
    """Noise with a square that is redder, greener or bluer; and which."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, count)
    images = random.integers(0, 120, (count, *SHAPE)).astype("float32")
    for image, label in zip(images, labels, strict=True):
        x, y = random.integers(0, SIDE - 14, 2)
        image[x : x + 14, y : y + 14, label] += random.integers(60, 135)
    return images.clip(0, 255), labels


def build(first: Any = None, inputs: Any = SHAPE) -> Any:
    given = keras.Input(inputs)
    x = given if first is None else first(given)
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(16, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(given, keras.layers.Dense(3, activation="softmax")(x))


def fit(model: Any, images: Any, labels: Any) -> Any:
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, labels, epochs=12, verbose=0)
    return model


class Twice(keras.layers.Layer):
    """A layer of the model's own."""

    def call(self, inputs: Any) -> Any:
        return inputs * 2


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    images, labels = draw(600)
    for number in range(60):
        folder = OUT / "photos" / f"colour-{labels[number]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number].astype("uint8")).save(folder / f"{number}.png")
    shown = images[:60].astype("uint8").astype("float32")
    scaled = images / 127.5 - 1

    inside = fit(build(keras.layers.Rescaling(1 / 127.5, offset=-1)), images, labels)
    outside = fit(build(), scaled, labels)
    expected = {
        "inside": inside.predict(shown, verbose=0).tolist(),
        "outside": outside.predict(shown / 127.5 - 1, verbose=0).tolist(),
    }
    (OUT / "expected.json").write_text(json.dumps(expected))
    inside.save(OUT / "inside.keras")
    inside.save(OUT / "inside.h5")
    outside.save(OUT / "outside.keras")
    keras.Sequential([keras.Input(SHAPE), *inside.layers[1:]]).save(OUT / "sequential.keras")
    inside.export(OUT / "export")
    tf.saved_model.save(inside, str(OUT / "saved"))
    for flavor in ("tensorflow", "keras"):
        (OUT / f"mlflow_{flavor}" / "data").mkdir(parents=True)
        (OUT / f"mlflow_{flavor}" / "MLmodel").write_text(MLMODEL.format(flavor))
        (OUT / f"mlflow_{flavor}" / "requirements.txt").write_text("tensorflow==2.21.0\n")
        inside.save(OUT / f"mlflow_{flavor}" / "data" / "model.keras")

    build(keras.layers.Lambda(lambda x: x / 255.0)).save(OUT / "lambda.h5")
    build(Twice()).save(OUT / "custom.h5")
    build(keras.layers.Resizing(48, 48, interpolation="bicubic")).save(OUT / "bicubic.keras")
    build(inputs=(None, None, 3)).save(OUT / "any_size.keras")
    module = tf.Module()
    module.call = tf.function(lambda x: x)
    tf.saved_model.save(module, str(OUT / "no_signature"))


main()
