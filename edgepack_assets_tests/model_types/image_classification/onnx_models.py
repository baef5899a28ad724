"""Tiny .onnx classifiers whose answers are known: the score of a class is the mean of its colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RED, GREEN, BLUE = np.eye(3, dtype=np.float32)


def build(
    path: Path,
    shape: Sequence[int | str] = (1, 3, 8, 8),
    *,
    element: int = TensorProto.FLOAT,
    weights: np.ndarray | None = None,
    last: str | None = None,
    axes: Sequence[int] | None = None,
) -> Path:
    """Write a model: image -> float -> mean over the picture -> weights -> `last` (Softmax, Sigmoid).

    `weights` is channels x classes; by default each channel is a class."""
    nhwc = shape[-1] in (1, 3) and shape[1] not in (1, 3)
    channels = shape[-1] if nhwc else shape[1]
    channels = channels if isinstance(channels, int) else 3
    weights = np.eye(channels, dtype=np.float32) if weights is None else weights.astype(np.float32)
    axes = axes or ((1, 2) if nhwc else (2, 3))
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["mean"], axes=list(axes), keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["scores" if last is None else "logits"]),
    ]
    if last is not None:
        nodes.append(helper.make_node(last, ["logits"], ["scores"]))
    return save(
        path,
        nodes,
        shape=shape,
        output=[shape[0], weights.shape[1]],
        element=element,
        weights=[numpy_helper.from_array(weights, "weights")],
    )


def save(
    path: Path, nodes: list[Any], *, shape: Sequence[Any], output: Sequence[Any], element: int, weights: list[Any]
) -> Path:
    """Write a graph from `image` to `scores`."""
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", element, list(shape))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, list(output))],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path
