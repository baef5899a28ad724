"""What is configured of the GPU runtime: what is refused and where, and which libraries stand for the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.config.loader import load_settings
from edgepack_assets.errors import ConfigError, ModelError
from edgepack_assets.model_types.image_classification import MODEL_TYPE, gpu
from edgepack_assets_tests.model_types.image_classification.helpers import entry
from edgepack_assets_tests.model_types.image_classification.onnx_models import build


def read(model: Path, **settings: Any) -> Any:
    return MODEL_TYPE.read_model(model, entry(settings={"runtime": "gpu", **settings}))


@pytest.mark.parametrize(
    ("implementation", "lines", "told"),
    [
        ("image_classification", "runtime: gpu\n    gpu:\n      max_batch_size: 0",
         "edgepack.yaml:10: .*max_batch_size"),
        ("image_classification", "runtime: gpu\n    gpu:\n      max_batch_size: 1.5",
         "edgepack.yaml:10: .*max_batch_size"),
        ("image_classification", "runtime: gpu\n    gpu:\n      tensorrt: {fp16: true}",
         "edgepack.yaml:10: .*unknown key 'model_types.press.gpu.tensorrt.fp16'; allowed here: .*precision_mode"),
        ("image_classification", "runtime: gpu\n    gpu:\n      tensorrt: {precision_mode: INT8}",
         "edgepack.yaml:10: .*precision_mode.*FP32.*FP16"),
        ("image_classification", "runtime: gpu\n    gpu:\n      tensorrt: {trt_engine_cache_path: 'a\" b'}",
         "edgepack.yaml:10: .*trt_engine_cache_path"),
        ("image_classification", "gpu:\n      warmup: true", "edgepack.yaml:.*gpu goes with runtime: gpu"),
        ("image_classification", "runtime: cuda", "edgepack.yaml:8: .*runtime.*python.*gpu"),
        ("state_identifier", "runtime: gpu", "edgepack.yaml:8: .*unknown key 'model_types.press.runtime'"),
    ],
)  # fmt: skip
def test_what_is_configured_wrong_is_told_with_its_line(
    tmp_path: Path, implementation: str, lines: str, told: str
) -> None:
    file = tmp_path / "edgepack.yaml"
    file.write_text(
        "registry: {path: registry}\nmodel_types:\n  press:\n"
        f"    implementation: {implementation}\n    model_name: press\n    package_name: Press\n"
        f"    raw_data: {{name: raw}}\n    {lines}\n"
    )
    with pytest.raises(ConfigError, match=rf"(?s){told}"):
        load_settings(file)


@pytest.mark.parametrize("name", ["model.tflite", "model.keras", "model.h5"])
def test_a_model_that_is_no_onnx_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=f"{name}: runtime: gpu goes with an .onnx file.* exported to ONNX"):
        read(tmp_path / name)


def test_a_graph_with_two_inputs_is_refused_by_name(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(build(tmp_path / "model.onnx"))
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 8]))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"one input, this has 'image' \(1x3x8x8\), 'mask' \(1x8\)"):
        read(tmp_path / "model.onnx")


def test_the_sdk_s_own_pins_stand_for_the_server(tmp_path: Path) -> None:
    source = read(build(tmp_path / "model.onnx"))
    assert source.packaged_requirements == ("numpy", "pillow")
    names = [line.partition("==")[0] for line in source.requirements]
    assert names == ["numpy", "onnxruntime", "pillow", "protobuf"]
    assert all("==" in line for line in source.requirements if line != "pillow")
    assert MODEL_TYPE.read_model(tmp_path / "model.onnx", entry()).packaged_requirements is None


def test_what_the_configuration_names_goes_where_it_runs() -> None:
    packaged, server = gpu.requirements(["numpy<2.3", "onnxruntime==1.30", "pillow==11.0", "scikit-image"])
    assert packaged == ("numpy<2.3", "pillow==11.0", "scikit-image")
    assert server[1:3] == ("onnxruntime==1.30", "pillow==11.0") and server[4] == "scikit-image"
    assert server[0].startswith("numpy>=2") and server[3].startswith("protobuf>=")
