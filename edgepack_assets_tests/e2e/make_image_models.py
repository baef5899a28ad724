"""Run by the `image_models` fixture in an environment with ai-edge-litert and onnx: classifiers of an image's mean
colour (class 0 red, 1 green, 2 blue), float and quantized, as .tflite and .onnx. Argument: the folder to write into."""

import sys
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

SIZE = 8
TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int8": 9}
MEAN, SOFTMAX = 40, 25


class Lite:
    """A .tflite model: the mean over height and width, then softmax."""

    def __init__(self, kind: str, quantization: tuple[float, int] | None, output: tuple[float, int] | None) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, "mean colour"
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        graph = schema.SubGraphT()
        graph.name, graph.operators = "main", []
        graph.tensors = [
            self.tensor("image", (1, SIZE, SIZE, 3), kind, quantization),
            self.tensor("axes", (2,), "int32", None, np.array([1, 2], np.int32)),
            self.tensor("mean", (1, 3), kind, quantization),
            self.tensor("scores", (1, 3), kind, output),
        ]
        softmax = schema.SoftmaxOptionsT()
        softmax.beta = 8.0
        version = 2 if kind == "int8" else 1
        self.operator(graph, MEAN, [0, 1], [2], schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT(), version)
        self.operator(graph, SOFTMAX, [2], [3], schema.BuiltinOptions.SoftmaxOptions, softmax, version)
        graph.inputs, graph.outputs = [0], [3]
        self.model.subgraphs = [graph]

    def tensor(self, name, shape, kind, quantization, data=None):
        made = schema.TensorT()
        made.name, made.shape, made.type = name, list(shape), TYPES[kind]
        if quantization is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [quantization[0]], [quantization[1]]
        buffer = schema.BufferT()
        if data is not None:
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        made.buffer = len(self.model.buffers) - 1
        return made

    def operator(self, graph, code, inputs, outputs, kind, options, version):  # noqa: PLR0917
        made = schema.OperatorCodeT()
        made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), version
        self.model.operatorCodes.append(made)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, outputs
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        graph.operators.append(operator)

    def write(self, path: Path) -> None:
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))


def write_onnx(path: Path, channels_first: bool, trained_otherwise: bool = False) -> None:
    """A float .onnx model: the mean over height and width, then softmax. `trained_otherwise`: on BGR."""
    shape = [1, 3, SIZE, SIZE] if channels_first else [1, SIZE, SIZE, 3]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3] if channels_first else [1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "sharpness"], ["sharp"]),
        helper.make_node("Softmax", ["sharp"], ["scores"]),
    ]
    sharpness = np.eye(3, dtype=np.float32) * 8
    if trained_otherwise:
        sharpness = sharpness[:, ::-1]
    graph = helper.make_graph(
        nodes,
        "mean colour",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.ascontiguousarray(sharpness), "sharpness")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def write_open_onnx(folder: Path) -> None:
    """A float16 model as exporters write it: batch and size open, logits beside features, weights in another file."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "sharpness"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean colour",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT16, ["n", 3, "height", "width"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n", 3]) for name in ("features", "logits")],
        [numpy_helper.from_array(np.eye(3, dtype=np.float16) * 8, "sharpness")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    folder.mkdir()
    onnx.save(model, str(folder / "m.onnx"), save_as_external_data=True, location="m.onnx.data", size_threshold=0)


def main(out: Path) -> None:
    """Write every model."""
    Lite("float32", None, None).write(out / "float.tflite")
    Lite("uint8", (1 / 255, 0), (1 / 256, 0)).write(out / "uint8.tflite")
    Lite("int8", (1 / 255, -128), (1 / 256, -128)).write(out / "int8.tflite")
    write_onnx(out / "nhwc.onnx", channels_first=False)
    write_onnx(out / "nchw.onnx", channels_first=True)
    write_open_onnx(out / "open")
    write_onnx(out / "bgr.onnx", channels_first=True, trained_otherwise=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
