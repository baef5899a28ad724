"""The .onnx file that the GPU runtime gets: it answers as the registered one, and holds what the server can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.image_classification import MODEL_TYPE
from edgepack_assets.model_types.image_classification.onnx_file import read_onnx
from edgepack_assets.model_types.image_classification.onnx_fixed import tensor_of, write_fixed
from edgepack_assets_tests.model_types.image_classification.helpers import entry

onnxruntime = pytest.importorskip("onnxruntime", reason="the component's runtime is not part of this environment")

SCORES: dict[str, Any] = {"output": {"name": "scores"}}
RNG = np.random.default_rng(7)
WEIGHTS = RNG.normal(size=(3, 5)).astype(np.float32)


def model(
    path: Path, shape: list[Any], *, element: int = TensorProto.FLOAT, names: tuple[str, str] = ("image", "scores"),
    ir_version: int = 8, external: bool = False, nested: bool = False,
) -> Path:  # fmt: skip
    """Mean over the picture, weights; with a second output before the one with scores."""
    image, scores = names
    kind = {TensorProto.FLOAT16: np.float16}.get(element, np.float32)
    weights = numpy_helper.from_array(WEIGHTS.astype(kind), "weights")
    inner = TensorProto.FLOAT16 if element == TensorProto.FLOAT16 else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", [image], ["real"], to=inner),
        helper.make_node("ReduceMean", ["real"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], [scores]),
    ]
    initializers = [weights]
    if nested:
        body = helper.make_graph([], "body", [], [helper.make_tensor_value_info("w", inner, [3, 5])], [weights])
        body.output[0].name = "weights"
        nodes[2:2] = [helper.make_node("If", ["yes"], ["weights2"], then_branch=body, else_branch=body)]
        nodes[3].input[1] = "weights2"
        initializers = [numpy_helper.from_array(np.array(True), "yes")]
    inputs = [helper.make_tensor_value_info(image, element, shape)]
    if ir_version < 4:
        inputs.insert(0, helper.make_tensor_value_info("weights", inner, [3, 5]))
    outputs = [helper.make_tensor_value_info(name, inner, [shape[0], n]) for name, n in (("mean", 3), (scores, 5))]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=ir_version)
    if external:
        onnx.external_data_helper.convert_model_to_external_data(
            made, location="weights.bin", size_threshold=0, convert_attribute=True
        )
    onnx.save(made, path)
    return path


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def fixed(path: Path, name: str, *, batch: int | None = 1) -> tuple[Path, Any]:
    """The file for the server, and its output as the package has it."""
    found = read_onnx(path)
    dtype = {1: "float32", 2: "uint8", 3: "int8", 10: "float16", 11: "float64"}[found.inputs[0].element]
    entered = tensor_of(found.inputs[0], dtype, (batch, 3, 6, 4), "edgepack_image")
    output = next(each for each in found.outputs if each.name == name)
    answered = tensor_of(output, "float16" if dtype == "float16" else "float32", (batch, 5), "edgepack_scores")
    target = path.with_name("fixed.onnx")
    write_fixed(path, found, target, entered, (name, answered), {"weights.bin": path.with_name("weights.bin")})
    return target, answered


KINDS: dict[str, dict[str, Any]] = {
    "as it is": {"shape": [1, 3, 6, 4]},
    "open": {"shape": ["batch", 3, "height", "width"]},
    "float16": {"shape": ["batch", 3, 6, 4], "element": TensorProto.FLOAT16},
    "float16 with weights elsewhere": {"shape": [1, 3, "h", "w"], "element": TensorProto.FLOAT16, "external": True},
    "uint8": {"shape": [1, 3, 6, 4], "element": TensorProto.UINT8},
    "float64": {"shape": [1, 3, 6, 4], "element": TensorProto.DOUBLE},
    "initializers among the inputs": {"shape": [1, 3, "h", "w"], "ir_version": 3},
    "weights elsewhere": {"shape": [1, 3, 6, 4], "external": True},
    "names that config.pbtxt cannot hold": {"shape": [1, 3, 6, 4], "names": ('im"age\n', "sc\\ores")},
    "a name that the SDK reserves": {"shape": [1, 3, 6, 4], "names": ("timestamp", "Timestamp")},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, None])
def test_it_answers_as_the_registered_file(tmp_path: Path, kind: str, batch: int | None) -> None:
    options = dict(KINDS[kind])
    shape = options.pop("shape")
    if batch is None and shape[0] == 1:
        shape = ["n", *shape[1:]]
    path = model(tmp_path / "model.onnx", shape, **options)
    name = options.get("names", ("", "scores"))[1]
    target, answered = fixed(path, name, batch=batch)
    (tmp_path / "moved").mkdir()
    target = target.rename(tmp_path / "moved" / "model.onnx")  # no file beside it

    onnx.checker.check_model(onnx.load(target), full_check=True)
    before, after = session(path), session(target)
    [entered], [given] = after.get_inputs(), after.get_outputs()
    assert (entered.shape[0] == 1) == (batch == 1) and entered.shape[1:] == [3, 6, 4]
    assert (given.name, given.type) == (answered.name, "tensor(float)")
    assert entered.type != "tensor(float16)"
    images = RNG.uniform(0, 255, (1 if batch else 3, 3, 6, 4))
    types = {"float": np.float32, "float16": np.float16, "double": np.float64, "uint8": np.uint8}
    first = before.get_inputs()[0]
    was = types[first.type.removeprefix("tensor(").removesuffix(")")]
    now = types[entered.type.removeprefix("tensor(").removesuffix(")")]
    images = images.astype(was)
    [expected] = before.run([name], {first.name: images})
    [found] = after.run(None, {entered.name: images.astype(now)})
    # onnxruntime computes float16 in float32 on the processor, and may leave out a rounding between two casts
    tolerance = 2e-3 if was is np.float16 else 0
    np.testing.assert_allclose(found, expected.astype(np.float32), rtol=tolerance, atol=0)


def test_weights_of_a_nested_graph_elsewhere_are_refused(tmp_path: Path) -> None:
    path = model(tmp_path / "model.onnx", [1, 3, 6, 4], external=True, nested=True)
    if not read_onnx(path).external:
        pytest.fail("the test's model keeps nothing elsewhere")
    with pytest.raises(ModelError, match=r"nested graph in 'weights.bin'.* export the model as one file"):
        MODEL_TYPE.read_model(tmp_path, entry(settings={"runtime": "gpu", **SCORES}))
    assert MODEL_TYPE.read_model(tmp_path, entry(settings=SCORES))


def test_a_model_of_more_than_two_gigabytes_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    path = model(tmp_path / "model.onnx", [1, 3, 6, 4], external=True)
    loaded = onnx.load(path, load_external_data=False)
    for fields in (tensor.external_data for tensor in loaded.graph.initializer if tensor.external_data):
        for each in fields:
            each.value = str(2**31) if each.key == "length" else each.value
    path.write_bytes(loaded.SerializeToString())
    with path.with_name("weights.bin").open("r+b") as data:
        data.truncate(2**31 + 2**20)  # with a hole, which takes no room on the disk
    with pytest.raises(
        ModelError, match=r"model\.onnx: has 2\d{9,} bytes with its weights; runtime: gpu takes .*float16"
    ):
        MODEL_TYPE.read_model(tmp_path, entry(settings={"runtime": "gpu", **SCORES}))
    assert MODEL_TYPE.read_model(tmp_path, entry(settings=SCORES)).model["onnx"]["is_large"]


def test_weights_that_are_cut_short_meanwhile_are_refused(tmp_path: Path) -> None:
    path = model(tmp_path / "model.onnx", [1, 3, 6, 4], external=True)
    data = path.with_name("weights.bin")
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(ModelError, match="cut short"):
        fixed(path, "scores")
