"""What runs in the sandbox with TensorFlow, as far as it needs no TensorFlow: its refusals, and looking whether a
converted model answers at all. e2e/test_keras_models.py runs it with the real one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgepack_assets_tests.model_types.image_classification.helpers import load_inference, load_keras_child_tasks

IMAGES = {"input": {"range": [0, 255]}}


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setitem(sys.modules, "inference", load_inference())
    yield load_keras_child_tasks()


class Original:
    """The brightness of an image and its opposite, as scores."""

    name, shape, dtype = "input", (None, 4, 4, 3), "float32"
    tf = SimpleNamespace(__version__="2.21.0")

    def answer(self, batch: Any) -> Any:
        mean = batch.mean(axis=(1, 2, 3)) / 255
        return np.stack([mean, 1 - mean], axis=1).astype(np.float32)


def converted_to(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Stands in for the runtime: what it answers is the original's answer, changed."""

    class Interpreter:
        def __init__(self, model_content: bytes) -> None:
            self.tensor: Any = None

        def allocate_tensors(self) -> None:
            if change is None:
                raise RuntimeError("Select TensorFlow op(s), included in the given model, is(are) not supported")

        def get_input_details(self) -> list[dict[str, int]]:
            return [{"index": 0}]

        get_output_details = get_input_details

        def set_tensor(self, index: int, tensor: Any) -> None:
            self.tensor = tensor

        def invoke(self) -> None:
            pass

        def get_tensor(self, index: int) -> Any:
            return change(Original().answer(self.tensor))

    module = ModuleType("ai_edge_litert.interpreter")
    vars(module)["Interpreter"] = Interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert", ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)


@pytest.mark.parametrize(
    ("change", "is_float", "largest"),
    [(lambda a: a, True, 0.0), (lambda a: a + 1e-5, True, 1e-5), (lambda a: a + 0.2, False, 0.2)],
)
def test_a_converted_model_that_answers_is_taken(
    child: ModuleType, monkeypatch: pytest.MonkeyPatch, change: Any, is_float: bool, largest: float
) -> None:
    converted_to(monkeypatch, change)
    difference = child._try_out(Original(), b"x", child._images(Original(), IMAGES), is_float=is_float)
    assert difference == pytest.approx(largest, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "is_float", "message"),
    [
        (lambda a: a * np.nan, True, "not finite numbers, where the original's are"),
        (lambda a: a * np.nan, False, "not finite numbers, where the original's are"),
        (lambda a: a + 0.01, True, r"other scores than the original \(by up to 0\.01\)"),
        (lambda a: a[:, :1], True, "gives 1 scores, the original 2"),
        (None, True, "does not run on TensorFlow Lite's own operations"),
    ],
)
def test_a_conversion_that_went_wrong_silently_is_refused(
    child: ModuleType, monkeypatch: pytest.MonkeyPatch, change: Any, is_float: bool, message: str
) -> None:
    converted_to(monkeypatch, change)
    with pytest.raises(child.UnfitModelError, match=message):
        child._try_out(Original(), b"x", child._images(Original(), IMAGES), is_float=is_float)


BICUBIC = """error: 'tf.ResizeBicubic' op is neither a custom op nor a flex op
error: failed while converting: 'main':
Some ops are not supported by the native TFLite runtime, you can enable TF kernels fallback using TF Select.
TF Select ops: ResizeBicubic
Details:
\ttf.ResizeBicubic(tensor<?x32x32x3xf32>, tensor<2xi32>) -> (tensor<?x48x48x3xf32>)"""
LSTM = "callsite(...): 'tf.TensorListReserve' op requires element_shape to be static during TF Lite transformation pass"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BICUBIC, "operations that it needs: ResizeBicubic. Those would need"),
        (LSTM, "operations that it needs: TensorListReserve"),
        ("something else", r"TensorFlow 2\.21\.0 cannot convert it: RuntimeError: something else"),
    ],
)
def test_the_converter_s_errors_name_the_operation(child: ModuleType, text: str, message: str) -> None:
    with pytest.raises(child.UnfitModelError, match=message), child._as_refusal(Original()):
        raise RuntimeError(text)


@pytest.mark.parametrize(
    "text",
    [
        "Could not locate class 'my>Twice'. Make sure custom classes are decorated",
        "Unknown layer: 'my>Twice'. Please ensure you are using a `keras.utils.custom_object_scope`",
        "Unknown layer: my>Twice. Please ensure this object is passed to the `custom_objects` argument",
        "Cannot deserialize object of type `my>Twice`. If `my>Twice` is a custom class, please register it",
    ],
)
def test_the_class_that_is_missing_is_named(child: ModuleType, text: str) -> None:
    with (
        pytest.raises(
            child.UnfitModelError, match=r"it needs my>Twice, which Keras 3\.15\.1 does not have.*code_paths"
        ),
        child._loading("Keras", "3.15.1"),
    ):
        raise TypeError(text)


def test_the_model_s_own_code_gives_its_classes_and_functions(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plant_one.py").write_text(
        "import math\nfrom math import sqrt\nclass Twice: pass\ndef soft(x): return x\nN = 1\n"
    )
    (tmp_path / "plant_two").mkdir()
    (tmp_path / "plant_two" / "__init__.py").write_text("from plant_two.inner import Inner\n")
    (tmp_path / "plant_two" / "inner.py").write_text("class Inner: pass\n")
    (tmp_path / "notes.txt").write_text("no code")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert sorted(child._custom_objects(str(tmp_path))) == ["Inner", "Twice", "soft"]
    assert child._custom_objects(None) == {}


def test_code_that_cannot_be_imported_is_named(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plant_broken.py").write_text("import tensorflow_of_yesterday\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(child.UnfitModelError, match="its code plant_broken cannot be imported: ModuleNotFoundError"):
        child._custom_objects(str(tmp_path))


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_sequential_of_keras_3_which_names_no_outputs_is_loaded(
    child: ModuleType, tmp_path: Path, outputs: int
) -> None:
    tensor = SimpleNamespace(name="images", shape=(None, 24, 24, 3), dtype="float32")
    model = SimpleNamespace(inputs=[tensor], outputs=[SimpleNamespace(name="scores")] * outputs)
    original = child.Original.__new__(child.Original)
    original.keras = SimpleNamespace(models=SimpleNamespace(load_model=lambda *_, **__: model))
    original.keras_version, original.tf = "3.15.1", SimpleNamespace(function=lambda function: function)

    def load() -> Any:
        return original._load_keras(tmp_path / "m.keras", {"allow_lambda": False})

    if outputs == 1:
        assert load() == ("images", (None, 24, 24, 3), "float32")
    else:
        with pytest.raises(child.UnfitModelError, match="it has 2 outputs"):
            load()


@pytest.mark.parametrize(
    ("value", "message"),
    [(b"2.1\xff", "its keras_version cannot be read"), ("2" * (4 << 20) + "0", "its keras_version has 4194305")],
)
def test_a_damaged_text_of_an_hdf5_file_is_refused_by_its_name(child: ModuleType, value: object, message: str) -> None:
    with pytest.raises(child.UnfitModelError, match=message):
        child._text({"keras_version": value}, "keras_version")


def test_an_input_without_a_known_number_of_dimensions_is_refused(child: ModuleType) -> None:
    with pytest.raises(child.UnfitModelError, match="no known number of dimensions"):
        child._sizes(SimpleNamespace(rank=None))
