"""Trains the classifier of digits. Runs in the training environment.

    python train_digits.py IMAGES MODEL

IMAGES is an .npz file with `images` (n x height x width, uint8) and `labels`, MODEL the .onnx file to write.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.neural_network import MLPClassifier

# Old enough for every onnxruntime that runs on Python 3.11 and 3.12.
OPSET, IR_VERSION = 13, 8


def main(images: Path, model: Path) -> None:
    """Fit a small network and write it as a graph from an RGB image to the classes' probabilities."""
    with np.load(images) as data:
        pixels, labels = data["images"], data["labels"]
    flat = (pixels.reshape(len(pixels), -1) / 255).astype(np.float32)
    network = MLPClassifier(hidden_layer_sizes=(64,), alpha=1e-3, max_iter=60, tol=1e-3, random_state=0)
    network.fit(flat, labels)
    weights = {
        f"{name}{layer}": values.astype(np.float32)
        for name, layers in (("weight", network.coefs_), ("bias", network.intercepts_))
        for layer, values in enumerate(layers)
    }
    onnx.save(graph(weights, *pixels.shape[1:]), model)


def graph(weights: dict[str, NDArray[np.float32]], height: int, width: int) -> onnx.ModelProto:
    """The ONNX model: float RGB pixels in [0, 1] (1 x height x width x 3) to probabilities (1 x classes)."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["grey"], axes=[3], keepdims=0),
        helper.make_node("Reshape", ["grey", "row"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "weight0", "bias0"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "weight1", "bias1"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    constants: dict[str, NDArray[Any]] = {"row": np.array([1, height * width], dtype=np.int64), **weights}
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "digits",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, height, width, 3])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, weights["bias1"].size])],
            [numpy_helper.from_array(values, name) for name, values in constants.items()],
        ),
        producer_name="edgepack-assets quickstart",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    # How images enter the model, in the keys that ONNX has for it.
    image = {"BitmapPixelFormat": "Rgb8", "ColorSpaceGamma": "SRGB", "NominalPixelRange": "Normalized_0_1"}
    helper.set_model_props(made, {f"Image.{key}": value for key, value in image.items()})
    onnx.checker.check_model(made, full_check=True)
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
