"""ONNX models that need options, from the registered file to the answers of the component in a process of its own."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.image_classification import MODEL_TYPE, onnx_model
from edgepack_assets.model_types.image_classification.inspection import Inspection
from edgepack_assets.model_types.interface import ModelSource
from edgepack_assets.sandbox.untrusted_values import parse_report

from .helpers import encoded, entry
from .onnx_models import build

pytest.importorskip("onnxruntime", reason="the component's runtime is not part of this environment")

_CHILD = """
import importlib.util, json, os, sys
folder, tasks, job = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
os.chdir(folder)
sys.path = [folder, *sys.path, os.path.dirname(tasks)]  # as in the sandbox
spec = importlib.util.spec_from_file_location("tasks", tasks)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
refused, told, answers = None, None, []
try:
    told = module.inspect_model(job["arguments"])
    known = json.loads(open("model.json").read()) | told["component"]
    open("model.json", "w").write(json.dumps(known))
    import entrypoint
    answers = [entrypoint.process_input(record) for record in job["records"]]
except Exception as error:
    refused = f"{type(error).__name__}: {error}"
peak = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
print(json.dumps({"refused": refused, "told": told, "answers": answers, "peak": peak}))
"""


class Packaged:
    """A component as config_package lays it out, and what its child says."""

    def __init__(self, folder: Path, model: Path, records: list[Image.Image], **settings: Any) -> None:
        self.entry = entry(settings=settings)
        self.source: ModelSource = MODEL_TYPE.read_model(model, self.entry)
        self.folder = folder
        folder.mkdir()
        own = {file.name: file for file in (MODEL_TYPE.folder / "component").glob("*.py")}
        for name, file in {**own, **self.source.component_files, **self.source.files}.items():
            shutil.copyfile(file, folder / name)
        (folder / "model.json").write_text(json.dumps(dict(self.source.model)))
        MODEL_TYPE.finish_component(folder, self.source)
        job = {"arguments": dict(self.source.arguments), "records": [_record(image) for image in records]}
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, folder, MODEL_TYPE.folder / "child_tasks.py", json.dumps(job)],
            capture_output=True, text=True, check=True, timeout=300,
        )  # fmt: skip
        found = json.loads(done.stdout.splitlines()[-1])
        self.refused: str | None = found["refused"]
        self.told: dict[str, Any] = found["told"]
        self.answers = [
            answer and (int(answer["prediction"]), json.loads(answer["ic_probability"])["value"])
            for answer in found["answers"]
        ]
        self.peak: int = found["peak"] * 1024

    def rows(self) -> Mapping[str, Any]:
        """The rows of the config package's check."""
        inspection = parse_report("inspecting", Inspection, self.told).model_dump(exclude_unset=True)
        return {row.name: row for row in MODEL_TYPE.inspection_rows(inspection, self.entry)}


def _record(image: Image.Image) -> dict[str, str]:
    content = base64.b64encode(encoded(image)).decode()
    return {"vision_payload": json.dumps({"image": f"data:image/png;base64,{content}"})}


RED, GREEN, BLUE = (Image.new("RGB", (30, 20), colour) for colour in ((250, 10, 10), (10, 250, 10), (10, 10, 250)))
_SOFTMAX = "the softmax is applied once"


def _two_outputs(path: Path, shape: list[Any], *, half: bool = False) -> Path:
    """A model with features, logits and probabilities, which tells colours apart."""
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    sharp = (np.eye(3) * 8).astype(np.float16 if half else np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "sharp"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["exact"]),
        helper.make_node("Cast", ["exact"], ["probabilities"], to=element),
    ]
    outputs = [
        helper.make_tensor_value_info(n, element, [shape[0], 3]) for n in ("features", "logits", "probabilities")
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", element, shape)], outputs,
        [numpy_helper.from_array(sharp, "sharp")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def _probability(image: Image.Image, label: int) -> float:
    scores = np.asarray(image, float)[0, 0] / 255 * 8
    return float(np.exp(scores[label]) / np.exp(scores).sum())


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_the_named_output_answers_with_one_softmax(tmp_path: Path, output: str, half: bool) -> None:
    model = _two_outputs(tmp_path / "m.onnx", ["n", 3, "height", "width"], half=half)

    found = Packaged(tmp_path / "c", model, [RED, GREEN, BLUE], output={"name": output}, input={"size": [6, 9]})

    assert found.refused is None
    assert [label for label, _ in found.answers] == [0, 1, 2]
    exact = [_probability(image, label) for label, image in enumerate((RED, GREEN, BLUE))]
    assert [p for _, p in found.answers] == pytest.approx(exact, abs=4e-3 if half else 1e-6)
    assert (found.told["input"]["height"], found.told["input"]["width"]) == (6, 9)
    assert found.told["output"]["name"] == output
    row = found.rows()[_SOFTMAX]
    known = "the model's last operation is Softmax" if output == "probabilities" else "judged by test images"
    assert row.passed and row.found.startswith(f"{output} ({known}): the component ")


def test_one_of_several_outputs_must_be_named(tmp_path: Path) -> None:
    model = _two_outputs(tmp_path / "m.onnx", [1, 3, 8, 8])
    wanted = (
        r"m.onnx: has 3 outputs, 'features' \(1x3\), 'logits' \(1x3\), 'probabilities' \(1x3\); set the one .*, "
        r"as output: \{name: logits\}"
    )
    with pytest.raises(ModelError, match=wanted):
        MODEL_TYPE.read_model(model, entry())
    with pytest.raises(ModelError, match=r"has no output 'label', which output.name says; its outputs: 'features'"):
        MODEL_TYPE.read_model(model, entry(output={"name": "label"}))


def test_a_model_that_takes_no_images_is_refused_for_that(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"m.onnx: its input 'image' is \?x16000x1, not batch, height.* takes no images"
    ):
        MODEL_TYPE.read_model(_two_outputs(tmp_path / "m.onnx", ["n", 16000, 1]), entry())


@pytest.mark.parametrize(
    ("shape", "size", "reason"),
    [
        (
            ["n", 3, "h", "w"],
            None,
            r"'image' is \?x3x\?x\?, so height and width are not fixed; set .*size: \[224, 224\]",
        ),
        (["n", "h", "w", 3], None, "height and width are not fixed"),
        ([1, 3, 8, "w"], [9, 8], r"but input.size is \[9, 8\], \[height, width\]"),
        ([1, 8, 8, 3], [8, 9], r"but input.size is \[8, 9\]"),
    ],
)
def test_a_size_that_is_missing_or_wrong(tmp_path: Path, shape: list[Any], size: Any, reason: str) -> None:
    build(tmp_path / "m.onnx", shape)
    with pytest.raises(ModelError, match=reason):
        MODEL_TYPE.read_model(tmp_path / "m.onnx", entry(**({"input": {"size": size}} if size else {})))


def test_a_size_that_the_model_fixes_changes_nothing(tmp_path: Path) -> None:
    build(tmp_path / "m.onnx", last="Softmax")
    plain = MODEL_TYPE.read_model(tmp_path / "m.onnx", entry())
    assert not plain.component_files and set(plain.model) == {"file", "runtime"}
    assert MODEL_TYPE.read_model(tmp_path / "m.onnx", entry(input={"size": 8})) == plain


def test_channels_last_of_any_size(tmp_path: Path) -> None:
    build(tmp_path / "m.onnx", [1, "h", "w", 3], weights=np.eye(3) * 8)
    found = Packaged(tmp_path / "c", tmp_path / "m.onnx", [BLUE], input={"size": [5, 7]})
    assert (found.refused, found.answers[0][0]) == (None, 2)
    assert found.told["input"]["shape"] == [1, 5, 7, 3]


@pytest.mark.parametrize(("key", "value"), [("input", {"size": 8}), ("output", {"name": "scores"})])
def test_settings_for_onnx_are_refused_for_tflite(tmp_path: Path, key: str, value: Any) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"goes with an \.onnx file"):
        MODEL_TYPE.read_model(tmp_path / "m.tflite", entry(**{key: value}))


@pytest.mark.parametrize("scores", ["logits", "probabilities"])
def test_scores_that_nothing_tells_are_doubted_and_may_be_configured(tmp_path: Path, scores: str) -> None:
    """Means of colours are between 0 and 1, and are no probabilities: only a person can know."""
    build(tmp_path / "m.onnx")
    guessed = Packaged(tmp_path / "guessed", tmp_path / "m.onnx", [RED])
    row = guessed.rows()[_SOFTMAX]
    assert (row.passed, row.warns) == (False, True)
    assert "between 0 and 1 but do not sum to 1" in row.found and "set output.scores" in row.wanted

    found = Packaged(tmp_path / "configured", tmp_path / "m.onnx", [RED], output={"scores": scores})
    assert found.rows()[_SOFTMAX].passed
    red = np.asarray(RED, float)[0, 0] / 255
    exact = red[0] if scores == "probabilities" else np.exp(red[0]) / np.exp(red).sum()
    assert found.answers == [(0, pytest.approx(exact, abs=1e-6))]


def test_a_second_softmax_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "m.onnx", last="Softmax")
    with pytest.raises(ModelError, match=r"output\.scores is logits, but the model's last operation is Softmax"):
        MODEL_TYPE.read_model(tmp_path / "m.onnx", entry(output={"scores": "logits"}))

    # a softmax that the graph does not show: only the scores tell
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Exp", ["flat"], ["raised"]),
        helper.make_node("ReduceSum", ["raised", "axes"], ["sum"], keepdims=1),
        helper.make_node("Div", ["raised", "sum"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.array([1]), "axes")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "d.onnx")
    row = Packaged(tmp_path / "known", tmp_path / "d.onnx", [RED]).rows()[_SOFTMAX]
    assert row.passed and row.found.startswith("probabilities (they sum to 1)")
    twice = Packaged(tmp_path / "twice", tmp_path / "d.onnx", [RED], output={"scores": "logits"}).rows()[_SOFTMAX]
    assert (twice.passed, twice.warns) == (False, False)
    assert "sum to 1 already" in twice.found


def test_logits_that_are_configured_as_probabilities_fail(tmp_path: Path) -> None:
    build(tmp_path / "m.onnx", weights=np.eye(3) * 8)
    row = Packaged(tmp_path / "c", tmp_path / "m.onnx", [RED], output={"scores": "probabilities"}).rows()[_SOFTMAX]
    assert (row.passed, row.warns) == (False, False)


@pytest.mark.parametrize(("field", "what"), [("ir", "ONNX IR version 90"), ("opset", "opset 90")])
def test_a_version_beyond_onnxruntime_is_refused_with_the_newest_it_runs(tmp_path: Path, field: str, what: str) -> None:
    import onnxruntime

    model = onnx.load(build(tmp_path / "m.onnx", last="Softmax"))
    if field == "ir":
        model.ir_version = 90
    else:
        model.opset_import[0].version = 90
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())

    found = Packaged(tmp_path / "c", tmp_path / "m.onnx", [])

    assert found.refused is not None
    text = f"UnfitModel: it has {what}, and onnxruntime {onnxruntime.__version__} runs up to "
    assert found.refused.startswith(text) and "export the model for that" in found.refused
    newest = int(found.refused.removeprefix(text).partition(":")[0])
    assert newest >= (10 if field == "ir" else 21)
    for version, runs in ((newest, True), (newest + 1, False)):  # and that is true
        (onnx_ir, opset) = (version, 13) if field == "ir" else (8, version)
        model = onnx.load(build(tmp_path / "m.onnx", last="Softmax"))
        model.ir_version, model.opset_import[0].version = onnx_ir, opset
        for node in model.graph.node:  # of an operation that has not changed since
            if node.op_type == "ReduceMean":
                node.CopyFrom(helper.make_node("GlobalAveragePool", ["real"], ["pooled"]))
                model.graph.node.insert(2, helper.make_node("Flatten", ["pooled"], ["mean"]))
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        if runs:
            onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        else:
            with pytest.raises(Exception, match=r"(?i)version|opset"):
                onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_a_model_that_fails_for_another_reason_keeps_its_reason(tmp_path: Path) -> None:
    model = onnx.load(build(tmp_path / "m.onnx"))
    model.graph.node[0].op_type = "NoSuchOperation"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    refused = Packaged(tmp_path / "c", tmp_path / "m.onnx", []).refused
    assert refused is not None and "NoSuchOperation" in refused and "runs up to" not in refused


def _large(path: Path, mib: int, kind: str) -> Path:
    """A model with large weights: in one tensor, or of convolutions."""
    if kind != "convolutions":
        side = int((mib * 2**18) ** 0.5)
        weights = {"in": np.ones((3, side), np.float32), "w": np.ones((side, side), np.float32)}
        nodes = [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "in"], ["wide"]),
            helper.make_node("MatMul", ["wide", "w"], ["last"]),
        ]
    else:
        side, count = 256, mib * 2**20 // (256 * 256 * 9 * 4)
        weights = {"in": np.ones((side, 3, 1, 1), np.float32)}
        weights |= {f"w{i}": np.full((side, side, 3, 3), 1 / (side * 9), np.float32) for i in range(count)}
        nodes = [helper.make_node("Conv", ["image", "in"], ["c0"])]
        nodes += [helper.make_node("Conv", [f"c{i}", f"w{i}"], [f"c{i + 1}"], pads=[1] * 4) for i in range(count)]
        nodes += [
            helper.make_node("GlobalAveragePool", [f"c{count}"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["last"]),
        ]
    weights["out"] = np.eye(side, 3, dtype=np.float32)
    nodes.append(helper.make_node("MatMul", ["last", "out"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["scores"]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    if kind == "constants":  # as PaddlePaddle's exporter writes weights
        for tensor in graph.initializer:
            output, tensor.name = tensor.name, "another name"
            graph.node.insert(0, helper.make_node("Constant", [], [output], value=tensor))
        del graph.initializer[:]
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("kind", ["one tensor", "convolutions", "constants"])
@pytest.mark.long
def test_a_large_model_is_in_memory_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    import onnxruntime

    monkeypatch.setattr(onnx_model, "LARGE", 64 << 20)
    monkeypatch.setattr(onnx_model, "HUGE_TENSOR", 64 << 20)
    model = _large(tmp_path / "m.onnx", 192, kind)
    size = model.stat().st_size
    small = Packaged(tmp_path / "small", build(tmp_path / "s.onnx", last="Softmax"), [RED]).peak

    found = Packaged(tmp_path / "c", model, [RED])

    assert found.refused is None
    pixels = np.broadcast_to(np.asarray(RED, np.float32)[0, 0][None, :, None, None] / 255, (1, 3, 8, 8))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [scores] = session.run(None, {"image": np.ascontiguousarray(pixels)})
    assert found.answers == [(int(scores.argmax()), pytest.approx(float(scores.max()), rel=1e-5))]
    assert (found.folder / "model.onnx").stat().st_size < 1 << 20
    assert found.peak - small < 1.5 * size, "its weights are in memory more than once"
