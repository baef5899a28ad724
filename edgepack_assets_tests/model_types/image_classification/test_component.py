"""The whole component on models whose answers are known, with a real runtime where there is one."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edgepack_assets.model_types.image_classification import MODEL_TYPE

from .helpers import encoded, entry, photo
from .onnx_models import build, save

pytest.importorskip("onnxruntime", reason="the component's runtime is not part of this environment")

Make = Callable[..., Path]


def _component(folder: Path, model: Path, **settings: Any) -> Path:
    folder.mkdir()
    for file in (MODEL_TYPE.folder / "component").glob("*.py"):
        shutil.copy(file, folder)
    if model.exists():
        shutil.copy(model, folder / "model.onnx")
    known = {"file": "model.onnx", "runtime": "onnxruntime", **settings}
    (folder / "model.json").write_text(json.dumps(known), encoding="utf-8")
    return folder


@pytest.fixture
def component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Lays the component out as on the edge, with the folder current and first on sys.path."""

    def make(model: Path, **settings: Any) -> Path:
        folder = _component(tmp_path / "component", model, **settings)
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        return folder

    names = ("entrypoint", "decoding", "inference", "preprocessing")
    for name in names:
        sys.modules.pop(name, None)
    yield make
    for name in names:
        sys.modules.pop(name, None)


def _inspect() -> dict[str, Any]:
    file = MODEL_TYPE.folder / "child_tasks.py"
    spec = importlib.util.spec_from_file_location("child_tasks_under_test", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:  # as in the sandbox
        patch.setattr(sys, "path", [*sys.path, str(file.parent)])
        found = module.inspect_model({})
    assert isinstance(found, dict)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def _entrypoint() -> ModuleType:
    return importlib.import_module("entrypoint")


def _record(image: Image.Image, kind: str = "png") -> dict[str, str]:
    content = base64.b64encode(encoded(image, kind)).decode()
    return {"vision_payload": json.dumps({"image": f"data:image/{kind};base64,{content}"})}


COLOURS = [Image.new("RGB", (30, 20), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]


@pytest.mark.parametrize(
    ("shape", "element"),
    [
        ((1, 3, 8, 8), TensorProto.FLOAT),
        ((1, 8, 8, 3), TensorProto.FLOAT),
        (("batch", 8, 6, 3), TensorProto.FLOAT),
        (("N", 3, 6, 8), TensorProto.FLOAT16),
        ((1, 8, 8, 3), TensorProto.UINT8),
        ((1, 3, 8, 8), TensorProto.UINT8),
        ((1, 3, 8, 8), TensorProto.DOUBLE),
        ((1, 3, 8, 8), TensorProto.INT8),
    ],
)
def test_colours_are_told_apart(tmp_path: Path, component: Make, shape: tuple[Any, ...], element: int) -> None:
    component(build(tmp_path / "m.onnx", shape, element=element, last="Softmax"))

    answers = [_entrypoint().process_input(_record(colour)) for colour in COLOURS]

    assert [answer["prediction"] for answer in answers] == ["0", "1", "2"]
    for answer in answers:
        assert answer.keys() == {"prediction", "ic_probability"}
        found = json.loads(answer["ic_probability"])
        assert found.keys() == {"value"} and 1 / 3 < found["value"] <= 1


def test_the_probability_is_the_model_s(tmp_path: Path, component: Make) -> None:
    component(build(tmp_path / "m.onnx", last="Softmax"))
    answer = _entrypoint().process_input(_record(COLOURS[1]))
    assert json.loads(answer["ic_probability"])["value"] == pytest.approx(np.e / (np.e + 2), abs=1e-6)


def test_logits_become_probabilities(tmp_path: Path, component: Make) -> None:
    component(build(tmp_path / "m.onnx", weights=np.eye(3) * 4 - 2))
    answer = _entrypoint().process_input(_record(COLOURS[2]))
    assert answer["prediction"] == "2"
    assert json.loads(answer["ic_probability"])["value"] == pytest.approx(np.exp(4) / (np.exp(4) + 2), abs=1e-6)


@pytest.mark.parametrize(("colour", "prediction"), [(0, "1"), (1, "0")])
def test_one_sigmoid_for_two_classes(tmp_path: Path, component: Make, colour: int, prediction: str) -> None:
    component(build(tmp_path / "m.onnx", weights=np.array([[4.0], [-4.0], [0.0]]), last="Sigmoid"))
    assert _inspect()["output"]["classes"] == 2
    answer = _entrypoint().process_input(_record(COLOURS[colour]))
    assert answer["prediction"] == prediction
    assert json.loads(answer["ic_probability"])["value"] == pytest.approx(1 / (1 + np.exp(-4)), abs=1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1", "I;16", "CMYK"])
def test_odd_photos_are_answered(tmp_path: Path, component: Make, mode: str) -> None:
    component(build(tmp_path / "m.onnx", last="Softmax"))
    image = Image.fromarray(np.full((9, 7), 40_000, np.uint16)) if mode == "I;16" else photo(1, 333, 7).convert(mode)
    assert _entrypoint().process_input(_record(image, "jpeg" if mode == "CMYK" else "png")) is not None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "no vision_payload"),
        (None, "no vision_payload"),
        ({"vision_payload": None}, "no vision_payload"),
        ({"vision_payload": 7}, "not text"),
        ({"vision_payload": "nonsense"}, "not JSON"),
        ({"vision_payload": json.dumps({"image": "http://camera/x.png"})}, "no data URI"),
        ({"vision_payload": json.dumps({"image": "data:image/png;base64,YWJj"})}, "neither PNG nor JPEG"),
    ],
)
def test_a_bad_record_gets_no_answer_but_one_log_line(
    tmp_path: Path, component: Make, caplog: pytest.LogCaptureFixture, record: Any, reason: str
) -> None:
    component(build(tmp_path / "m.onnx", last="Softmax"))
    entrypoint = _entrypoint()
    with caplog.at_level(logging.INFO):
        assert entrypoint.process_input(record) is None
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert reason in caplog.text
    assert entrypoint.process_input(_record(COLOURS[0]))["prediction"] == "0"


def test_parameters_change_nothing(tmp_path: Path, component: Make) -> None:
    component(build(tmp_path / "m.onnx", last="Softmax"))
    entrypoint = _entrypoint()
    entrypoint.update_parameters({"unknown": 1})
    assert entrypoint.process_input(_record(COLOURS[0]))["prediction"] == "0"


def test_inspection_tells_what_the_packaging_needs(tmp_path: Path, component: Make) -> None:
    folder = component(build(tmp_path / "m.onnx", ("N", 3, 6, 8), last="Softmax"))

    found = _inspect()

    assert found["runtime"] == "onnxruntime"
    assert found["input"] == {
        "name": "image",
        "shape": [None, 3, 6, 8],
        "layout": "NCHW",
        "type": "float32",
        "height": 6,
        "width": 8,
        "channels": 3,
        "quantization": None,
        "black": 0.0,
        "white": 1.0,
        "preprocessing": {},
        "metadata": {"source": None, "input": {}, "labels": None, "notes": []},
    }
    assert found["output"]["classes"] == 3
    assert found["component"] == {"scores": "probabilities", "input": {}}
    spec = MODEL_TYPE.component_spec(found)
    assert [(v.name, v.type) for v in spec.inputs] == [("vision_payload", "String")]
    assert [(v.name, v.type) for v in spec.outputs] == [("prediction", "String")]
    assert [(v.name, v.type) for v in spec.metrics] == [("ic_probability", "String")]
    assert spec.parameters == () and spec.periodicity is None
    assert "8x6" in spec.description
    shipped = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**shipped, **found["component"]}))
    assert _entrypoint().process_input(_record(COLOURS[0]))["prediction"] == "0"


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((1, "h", "w", 3), "height and width are not fixed"),
        ((4, 3, 8, 8), "4 images at a time"),
        (("N", "c", 8, 8), "neither the second nor the last number"),
        ((1, 5, 8, 8), "neither the second nor the last number"),
    ],
)
def test_a_model_that_takes_no_image(tmp_path: Path, component: Make, shape: tuple[Any, ...], reason: str) -> None:
    weights = np.ones((shape[1] if isinstance(shape[1], int) and shape[1] in (3, 5) else 3, 2))
    component(build(tmp_path / "m.onnx", shape, weights=weights))
    with pytest.raises(ValueError, match=reason):
        _inspect()


def _picture(path: Path) -> Path:
    shape = (1, 3, 8, 8)
    node = helper.make_node("Identity", ["image"], ["scores"])
    return save(path, [node], shape=shape, output=shape, element=TensorProto.FLOAT, weights=[])


def test_a_model_with_a_picture_as_output(tmp_path: Path, component: Make) -> None:
    component(_picture(tmp_path / "m.onnx"))
    with pytest.raises(ValueError, match="1x3x8x8, not one score for each class"):
        _inspect()


def test_a_model_with_two_outputs(tmp_path: Path, component: Make) -> None:
    model = onnx.load(build(tmp_path / "m.onnx"))
    model.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, 3]))
    onnx.save(model, tmp_path / "m.onnx")
    component(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="it has 2 outputs"):
        _inspect()


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x08\x08garbage" * 50])
def test_a_file_that_is_no_model(tmp_path: Path, component: Make, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    component(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="onnxruntime cannot load it"):
        _inspect()


def test_weights_beside_the_model_ship_with_it(tmp_path: Path, component: Make) -> None:
    source = tmp_path / "registered"
    source.mkdir()
    model = onnx.load(build(tmp_path / "m.onnx", last="Softmax"))
    onnx.save(model, source / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    shipped = MODEL_TYPE.read_model(source, entry())
    folder = component(source / "none")
    for name, file in shipped.files.items():
        shutil.copy(file, folder / name)

    assert (folder / "weights.bin").stat().st_size > 0
    assert _inspect()["output"]["classes"] == 3
