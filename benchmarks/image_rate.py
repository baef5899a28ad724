"""Images per second through the image classifier's component, against the model's own inference.

    python -m benchmarks.image_rate [--images 20] [--rounds 5] [--json FILE]

In this process, in turn, with the same onnxruntime session settings, on a generated network of depthwise separable
convolutions with the cost of a small MobileNet, 224x224 pixels:

- component: entrypoint.py as it ships is given records as the server hands them over, JSON with a data URI, and
  decodes, scales and normalizes the image, runs the model and applies the softmax;
- model alone: onnxruntime is given tensors that are ready.

What the component costs besides is mostly the decoding of the photo, so it is told for three kinds of photos. Both must
name the same classes. The ratio is of processor time, which other work on the machine changes less than the clock's.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

COMPONENT = Path(__file__).parents[1] / "edgepack_assets/model_types/image_classification/component"
SIDE, CLASSES = 224, 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTOS = {"PNG 224x224": ("PNG", 224, 224), "JPEG 640x480": ("JPEG", 640, 480), "JPEG 1920x1080": ("JPEG", 1920, 1080)}


def write_model(path: Path) -> None:
    """Depthwise separable convolutions from 3 to 512 channels; what it answers is of no meaning."""
    rng = np.random.default_rng(0)
    weights: list[Any] = []
    nodes = []

    def convolution(source: str, target: str, shape: Sequence[int], **attributes: Any) -> None:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weights.append(numpy_helper.from_array((rng.standard_normal(shape) * scale).astype(np.float32), f"w{target}"))
        nodes.append(helper.make_node("Conv", [source, f"w{target}"], [f"c{target}"], **attributes))
        nodes.append(helper.make_node("Relu", [f"c{target}"], [target]))

    convolution("image", "first", (32, 3, 3, 3), strides=[2, 2], pads=[1] * 4)
    last, channels = "first", 32
    for number, (wider, step) in enumerate([(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)]):
        deep, wide = f"deep{number}", f"wide{number}"
        convolution(last, deep, (channels, 1, 3, 3), strides=[step, step], pads=[1] * 4, group=channels)
        convolution(deep, wide, (wider, channels, 1, 1))
        last, channels = wide, wider
    weights.append(numpy_helper.from_array(rng.standard_normal((channels, CLASSES)).astype(np.float32), "out"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "out"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "separable", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def photos(kind: str, width: int, height: int, count: int) -> list[dict[str, str]]:
    """Records with images that are as hard to decode as photos: coarse shapes under fine noise."""
    rng = np.random.default_rng(1)
    records = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
        pixels = np.asarray(coarse, np.int16) + rng.integers(-8, 9, (height, width, 3))
        content = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(content, kind)
        uri = f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
        records.append({"vision_payload": json.dumps({"image": uri})})
    return records


def measured(function: Callable[[Any], Any], inputs: Sequence[Any]) -> tuple[float, float, list[Any]]:
    """Processor seconds and seconds for one input, and the answers."""
    began, clock = time.process_time(), time.perf_counter()
    answers = [function(each) for each in inputs]
    return (time.process_time() - began) / len(inputs), (time.perf_counter() - clock) / len(inputs), answers


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgepack-benchmark-") as name:
        folder = Path(name)
        for file in COMPONENT.glob("*.py"):
            (folder / file.name).write_bytes(file.read_bytes())
        write_model(folder / "model.onnx")
        entered = {"mean": list(MEAN), "std": list(STD)}
        settings = {"file": "model.onnx", "runtime": "onnxruntime", "input": entered, "scores": "logits"}
        (folder / "model.json").write_text(json.dumps(settings))
        sys.path.insert(0, name)
        entrypoint, decoding = importlib.import_module("entrypoint"), importlib.import_module("decoding")
        table = {kind: _compare(entrypoint, decoding, folder, photos(*how, options.images), options.rounds)
                 for kind, how in PHOTOS.items()}  # fmt: skip
    print(f"images a second, medians of {options.rounds} rounds of {options.images} images")
    for kind, row in table.items():
        print(
            f"{kind:>15}: component {row['component']:.1f}, model alone {row['model']:.1f}; "
            f"processor time, component / model {row['ratio']:.2f}"
        )
    if options.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        options.json.write_text(json.dumps({"machine": machine, "rounds": options.rounds, "images_per_second": table}))
    return 0


def _compare(
    entrypoint: Any, decoding: Any, folder: Path, records: list[dict[str, str]], rounds: int
) -> dict[str, float]:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    tensors = [_tensor(decoding.decode(record["vision_payload"])) for record in records]

    def alone(tensor: np.ndarray) -> int:
        return int(np.argmax(session.run(None, {"image": tensor})[0]))

    shares, ours, theirs = [], [], []
    alone(tensors[0]), entrypoint.process_input(records[0])  # what is imported or built late is there
    for _ in range(rounds):
        cost, seconds, answers = measured(entrypoint.process_input, records)
        bare, bare_seconds, classes = measured(alone, tensors)
        assert [int(answer["prediction"]) for answer in answers] == classes, "the component names other classes"
        shares.append(cost / bare), ours.append(seconds), theirs.append(bare_seconds)
    return {
        "component": 1 / statistics.median(ours), "model": 1 / statistics.median(theirs),
        "ratio": statistics.median(shares),
    }  # fmt: skip


def _tensor(image: Image.Image) -> np.ndarray:
    """By numpy alone, as training code does it."""
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 255
    return ((pixels - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)[None].astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
