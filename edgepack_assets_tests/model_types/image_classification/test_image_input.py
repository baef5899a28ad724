"""What the packaging says of a model's input and output, and what trying the usual inputs on labelled images finds."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgepack_assets.checks import CheckRow, all_pass
from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types.image_classification import MODEL_TYPE, image_input, input_trial
from edgepack_assets.model_types.image_classification.inspection import Inspection
from edgepack_assets.model_types.interface import Payload, PayloadWriter
from edgepack_assets.sandbox.untrusted_values import parse_report

from .helpers import encoded, entry, load_child_tasks, results, write_payload
from .onnx_models import build, save

pytest.importorskip("onnxruntime", reason="the component's runtime is not part of this environment")
child_tasks = load_child_tasks()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A component's folder without a model, as the child sees it."""
    folder = tmp_path / "component"
    folder.mkdir()
    for file in (MODEL_TYPE.folder / "component").glob("*.py"):
        shutil.copy(file, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    names = ("decoding", "inference", "preprocessing")
    kept = {name: sys.modules.pop(name, None) for name in names}
    yield folder
    for name, module in kept.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def inspect(
    folder: Path, model: Path, configured: Any = None, properties: dict[str, str] | None = None, **arguments: Any
) -> Any:
    """What inspecting the model tells, as it is believed; model.json is then what ships."""
    section = entry(input=configured).settings.input
    loaded = onnx.load(model)
    helper.set_model_props(loaded, properties or {})
    onnx.save(loaded, folder / "model.onnx")
    shipped = MODEL_TYPE.read_model(folder / "model.onnx", entry(input=configured)).model
    assert shipped == {"file": "model.onnx", "runtime": "onnxruntime"} | ({"input": section.given} if section else {})
    (folder / "model.json").write_text(json.dumps(shipped))
    told = json.loads(json.dumps(child_tasks.inspect_model(arguments), allow_nan=False))
    found = parse_report("inspecting", Inspection, told).model_dump(exclude_unset=True)
    (folder / "model.json").write_text(json.dumps({**shipped, **found["component"]}))
    return found


def row(rows: list[CheckRow], text: str) -> CheckRow:
    (found,) = [part for part in rows if text in part.name]
    return found


def rows(inspection: Any, configured: Any = None) -> list[CheckRow]:
    found = MODEL_TYPE.inspection_rows(inspection, entry(input=configured))
    assert all(part.warns for part in found) and all_pass(found)
    return found


def test_what_is_assumed_is_said_and_which_key_settles_it(folder: Path, tmp_path: Path) -> None:
    known = row(rows(inspect(folder, build(tmp_path / "m.onnx", last="Softmax"))), "how images enter")
    assert not known.passed
    assert known.found == (
        "pixel values 0 to 255 become 0 to 1 (assumed); channels in the order rgb (assumed); "
        "squeezed to 8x8 (assumed); bilinear (assumed)"
    )
    for key in ("input", "range", "mean", "std", "channel_order", "resize", "interpolation"):
        assert key in known.wanted


def test_what_is_configured_is_carried_out_and_known(folder: Path, tmp_path: Path) -> None:
    found = inspect(folder, build(tmp_path / "m.onnx", last="Softmax"), "imagenet")
    known = row(rows(found, "imagenet"), "how images enter")
    assert known.passed
    assert "assumed" not in known.found and "central 0.875 is cut to 8x8 (configured)" in known.found
    assert found["input"]["black"] == pytest.approx([-2.1179, -2.0357, -1.8044], abs=1e-4)
    assert (
        found["component"]["input"] == found["input"]["preprocessing"] == entry(input="imagenet").settings.input.given
    )


def test_what_is_configured_in_part_leaves_the_rest_assumed(folder: Path, tmp_path: Path) -> None:
    configured = {"channel_order": "bgr"}
    found = inspect(folder, build(tmp_path / "m.onnx", last="Softmax"), configured)
    known = row(rows(found, configured), "how images enter")
    assert not known.passed
    assert "become 0 to 1 (assumed); channels in the order bgr (configured)" in known.found


def test_metadata_is_taken_where_nothing_is_configured(folder: Path, tmp_path: Path) -> None:
    properties = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"}
    found = inspect(folder, build(tmp_path / "m.onnx", last="Softmax"), properties=properties)
    assert found["component"]["input"] == {"range": [0, 255], "channel_order": "bgr"}
    known = row(rows(found), "how images enter")
    assert known.passed
    assert "become 0 to 255 (ONNX metadata); channels in the order bgr (ONNX metadata); squeezed" in known.found
    assert row(rows(found), "agrees").passed


def test_the_configuration_beats_metadata_and_the_difference_is_said(folder: Path, tmp_path: Path) -> None:
    properties = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"}
    configured = {"mean": 0.5, "std": 0.5, "resize": "crop"}
    found = inspect(folder, build(tmp_path / "m.onnx", last="Softmax"), configured, properties)
    assert found["component"]["input"] == {**entry(input=configured).settings.input.given, "channel_order": "bgr"}
    assert (found["input"]["black"], found["input"]["white"]) == (-1, 1)
    differs = row(rows(found, configured), "agrees")
    assert not differs.passed
    assert "ONNX metadata says {range: [0, 255], channel_order: bgr}" in differs.found
    assert "edgepack.yaml says {mean: [0.5], std: [0.5]}" in differs.found


@pytest.mark.parametrize(
    ("configured", "agrees"),
    [
        ({"range": [-1, 1]}, True),
        ({"mean": 0.4980392, "std": 0.4980392}, True),
        ({"mean": [0.5, 0.5, 0.5], "std": 0.5, "channel_order": "rgb"}, True),
        ({"channel_order": "rgb"}, True),
        ({"range": [0, 1]}, False),
        ({"channel_order": "bgr"}, False),
    ],
)
def test_the_same_input_written_otherwise_is_no_contradiction(
    folder: Path, tmp_path: Path, configured: Any, agrees: bool
) -> None:
    properties = {"Image.BitmapPixelFormat": "Rgb8", "Image.NominalPixelRange": "Normalized_1_1"}
    found = inspect(folder, build(tmp_path / "m.onnx", last="Softmax"), configured, properties)
    assert row(rows(found, configured), "agrees").passed is agrees


def test_metadata_that_is_not_carried_out_is_said(folder: Path, tmp_path: Path) -> None:
    model = build(tmp_path / "m.onnx", last="Softmax")
    noted = row(rows(inspect(folder, model, properties={"Image.ColorSpaceGamma": "Linear"})), "metadata is carried out")
    assert not noted.passed and "linear" in noted.found


def test_an_input_of_whole_numbers_is_known_by_its_type(folder: Path, tmp_path: Path) -> None:
    properties = {"Image.NominalPixelRange": "Normalized_1_1"}
    found = inspect(folder, build(tmp_path / "m.onnx", element=TensorProto.UINT8, last="Softmax"), None, properties)
    assert found["component"]["input"] == {}
    known = row(rows(found), "how images enter")
    assert known.passed and "0 to 255 (the model's uint8 input)" in known.found


def features(path: Path, shape: list[int], last: str) -> Path:
    """A model of 32 outputs: `last` of random combinations of the mean colours."""
    weights = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["mixed"]),
        helper.make_node(last, ["mixed"], ["last"]),
        helper.make_node("Reshape", ["last", "shape"], ["scores"]),
    ]
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array(shape), "shape")]
    return save(path, nodes, shape=(1, 3, 8, 8), output=shape, element=TensorProto.FLOAT, weights=constants)


@pytest.mark.parametrize(
    ("shape", "last", "doubt"),
    [
        ([1, 32], "Relu", "never below 0"),
        ([1, 1, 1, 32], "Identity", "4 axes"),
        ([1, 32], "Identity", None),
        ([1, 32], "Softmax", None),
        ([1, 32], "Sigmoid", None),
        ([1, 32], "Softmax", None),
        ([1, 32], "LpNormalization", "length 1"),
    ],
)
def test_features_are_no_scores(folder: Path, tmp_path: Path, shape: list[int], last: str, doubt: str | None) -> None:
    output = row(rows(inspect(folder, features(tmp_path / "m.onnx", shape, last))), "one score for each class")
    assert output.passed is (doubt is None)
    assert doubt is None or doubt in output.found


def test_more_labels_in_the_metadata_than_scores(folder: Path, tmp_path: Path) -> None:
    found = inspect(folder, build(tmp_path / "m.onnx", last="Softmax"))
    found["input"]["metadata"] = {"source": "TFLite metadata", "input": {}, "labels": 5, "notes": []}
    labels = row(MODEL_TYPE.inspection_rows(found, entry()), "as many labels")
    assert not labels.passed and not labels.warns
    assert labels.found == "5 labels" and "set output: {classes: 3} in edgepack.yaml" in labels.wanted
    found = inspect(folder, build(tmp_path / "m.onnx", last="Softmax"), classes=3)
    found["input"]["metadata"] = {"source": "TFLite metadata", "input": {}, "labels": 5, "notes": []}
    assert not row(rows(found), "as many labels").passed
    with pytest.raises(ValueError, match=r"tells 3 classes apart, and output\.classes in edgepack\.yaml says 4"):
        inspect(folder, build(tmp_path / "m.onnx", last="Softmax"), classes=4)


# --- right answers: models whose answer depends on how the image enters


def bright(path: Path, threshold: float, channel: int = 0) -> Path:
    """Class 1 where the mean of a channel is above the threshold."""
    weights = np.zeros((3, 2), np.float32)
    weights[channel] = [-1, 1]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["mixed"]),
        helper.make_node("Add", ["mixed", "bias"], ["scores"]),
    ]
    bias = np.array([threshold, -threshold], np.float32)
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")]
    return save(path, nodes, shape=(1, 3, 8, 8), output=[1, 2], element=TensorProto.FLOAT, weights=constants)


def payload_of(folder: Path, images: list[tuple[Image.Image, int]]) -> Payload:
    """A payload of labelled images."""
    for number, (image, label) in enumerate(images):
        file = folder / "raw" / f"class{label}" / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(image))
    return write_payload(folder / "raw", {f"class{label}": str(label) for _, label in images}, folder / "payload")[0]


def shades(count: int) -> list[tuple[Image.Image, int]]:
    """Dark (0) and bright (1) reds on a ground that says nothing."""
    return [(Image.new("RGB", (12, 9), (40 + 170 * (n % 2) + n % 7, 90, 128)), n % 2) for n in range(count)]


def trial_of(folder: Path, tmp_path: Path, model: Path, images: list[Any], configured: Any = None) -> Any:
    """(the trial, its rows, its table) of a model that answers these images as packaged."""
    found = inspect(folder, model, configured)
    payload = payload_of(tmp_path, images)
    job = {"inputs": [found["component"]["input"]], "records": str(payload.records)}
    as_packaged = child_tasks.try_inputs(job)["classes"][0]
    answers = results(tmp_path, list(enumerate(as_packaged)))
    trial = MODEL_TYPE.trial(payload, answers, found, entry(input=configured), tmp_path)
    if trial is None:
        return None, None, None
    assert all(path.parent == tmp_path for path in trial.inputs.values())
    told = json.loads(json.dumps(child_tasks.try_inputs({**trial.arguments, "records": str(trial.inputs["records"])})))
    parts, table = trial.rows(told)
    assert all(part.warns for part in parts)
    return trial, parts[0], table


@pytest.mark.parametrize(
    ("threshold", "channel", "better"),
    [
        (0.0, 0, "{range: [-1, 1], channel_order: rgb, resize: squeeze, interpolation: bilinear}"),
        (128, 0, "{range: [0, 255], channel_order: rgb, resize: squeeze, interpolation: bilinear}"),
        (0.5, 2, "{range: [0, 1], channel_order: bgr, resize: squeeze, interpolation: bilinear}"),
    ],
)
def test_a_model_trained_otherwise_answers_better_as_it_was_trained(
    folder: Path, tmp_path: Path, threshold: float, channel: int, better: str
) -> None:
    trial, part, table = trial_of(folder, tmp_path, bright(tmp_path / "m.onnx", threshold, channel), shades(40))
    assert len(trial.images) == 40 and len(trial.tried) == 15
    assert not part.passed and "input" in part.wanted
    assert part.found == f"of 40 images, 0.500 are right as packaged; best of 15 others: 1.000 with input: {better}"
    assert table[0] == {"input": "as packaged", "right": 20, "of": 40, "accuracy": 0.5}
    assert table[1]["input"] == better and [r["right"] for r in table[1:]] == sorted(
        (r["right"] for r in table[1:]), reverse=True
    )


def test_a_model_trained_on_the_centre_of_images(folder: Path, tmp_path: Path) -> None:
    images = []
    for n in range(40):
        image = Image.new("RGB", (90, 30), (255, 0, 0) if n % 4 < 2 else (0, 0, 0))
        image.paste((255, 0, 0) if n % 2 else (0, 0, 0), (28, 0, 62, 30))
        images.append((image, n % 2))
    _, part, table = trial_of(folder, tmp_path, bright(tmp_path / "m.onnx", 0.5), images)
    assert not part.passed
    assert "resize: crop" in table[1]["input"] and table[1]["accuracy"] == 1


def test_a_configured_input_is_not_second_guessed(folder: Path, tmp_path: Path) -> None:
    model = bright(tmp_path / "m.onnx", 128)
    assert trial_of(folder, tmp_path, model, shades(12), {"range": [0, 1]}) == (None, None, None)


def test_nothing_is_tried_where_all_is_right(folder: Path, tmp_path: Path) -> None:
    assert trial_of(folder, tmp_path, bright(tmp_path / "m.onnx", 0.5), shades(12)) == (None, None, None)


def test_a_model_that_is_bad_however_images_enter_is_not_blamed_on_its_input(folder: Path, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, 40).tolist()
    images = [(image, label) for (image, _), label in zip(shades(40), labels, strict=True)]
    _, part, table = trial_of(folder, tmp_path, bright(tmp_path / "m.onnx", 0.5), images)
    assert part.passed and len(table) == 16


def test_records_without_an_image_are_wrong_not_fatal(folder: Path, tmp_path: Path) -> None:
    inspect(folder, bright(tmp_path / "m.onnx", 0.5))
    writer = PayloadWriter(tmp_path / "r.gz", tmp_path / "s.gz")
    with writer.open():
        writer.add({"vision_payload": "nothing"})
        writer.add({})
    tried = child_tasks.try_inputs({"inputs": [{}, {"range": [0, 255]}], "records": str(writer.records)})
    assert tried == {"classes": [[None, None], [None, None]]}


def test_a_quantized_model_is_tried_in_other_orders_and_resizes_only() -> None:
    entered = {"preprocessing": {}, "channels": 3, "type": "uint8"}
    tried = input_trial.usual_inputs(entered)
    assert len(tried) == 3 and not any("range" in given or "mean" in given for given in tried)
    grey = input_trial.usual_inputs({**entered, "channels": 1, "type": "float32"})
    assert len(grey) == 5 and not any("mean" in given or "channel_order" in given for given in grey)


def test_metadata_is_what_the_others_are_compared_with() -> None:
    read = {"mean": [0.5], "std": [0.5], "channel_order": "bgr", "resize": "letterbox", "fill": [1, 2, 3]}
    tried = input_trial.usual_inputs({"preprocessing": read, "channels": 3, "type": "float32"})
    assert {**read, "interpolation": "bilinear"} not in tried
    assert len(tried) == 5 * 2 * 3 - 1
    assert len({json.dumps(given) for given in tried}) == len(tried)


def scored(labels: list[int]) -> list[Any]:
    from edgepack_assets.model_types.image_classification.scoring import Image as Scored

    return [Scored(record, f"c{label}/{record}.png", label, label, 1.0) for record, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "count"),
    [([0] * 1000 + [1] * 3, 35), ([0, 1], 2), (list(range(500)), 64), ([7] * 100, 64), ([0] * 40 + [1] * 40, 64)],
)
def test_a_few_images_are_chosen_evenly(labels: list[int], count: int) -> None:
    chosen = input_trial.choose(scored(labels), 64)
    assert len(chosen) == count
    assert [image.record for image in chosen] == sorted({image.record for image in chosen})
    assert chosen == input_trial.choose(scored(labels), 64)
    if len(set(labels)) <= 64:
        assert {image.truth for image in chosen} == set(labels)


@pytest.mark.parametrize(
    ("gained", "lost", "same", "better"),
    [(0, 0, 64, False), (2, 0, 0, False), (6, 0, 58, False), (7, 0, 57, True), (20, 15, 29, False), (30, 4, 30, True)],
)
def test_clearly_better_is_beyond_chance(gained: int, lost: int, same: int, better: bool) -> None:
    one = [True] * gained + [False] * lost + [True] * same
    other = [False] * gained + [True] * lost + [True] * same
    assert input_trial.clearly_better(one, other) is better


@pytest.mark.parametrize(
    "told", [None, {"classes": []}, {"classes": [[0], [1]]}, {"classes": [["0", "1"]]}, {"classes": [[-1, 0]]}]
)
def test_what_the_child_says_is_held_to_a_shape(told: Any) -> None:
    trial = input_trial.InputTrial(scored([0, 1]), [{"range": [0, 1]}], {}, {})
    with pytest.raises(ComponentError):
        trial.rows(told)


def test_a_config_package_of_an_earlier_version_is_not_tried(tmp_path: Path) -> None:
    payload = payload_of(tmp_path, shades(4))
    old = {"input": {"width": 8, "height": 8}, "output": {"classes": 2}}
    assert MODEL_TYPE.trial(payload, results(tmp_path, [(0, 1)]), old, entry(), tmp_path) is None


@pytest.mark.parametrize(("size", "count"), [(0, 64), (32 << 20, 64), (64 << 20, 32), (2 << 30, 8)])
def test_a_large_model_is_tried_on_fewer_images(tmp_path: Path, size: int, count: int) -> None:
    payload = payload_of(tmp_path, shades(80))
    entered = {"preprocessing": {}, "channels": 3, "type": "float32"}
    inspection = {"bytes": size, "input": entered, "output": {"classes": 2}}
    trial = MODEL_TYPE.trial(payload, results(tmp_path, [(0, 1)]), inspection, entry(), tmp_path)
    assert isinstance(trial, input_trial.InputTrial)
    assert len(trial.images) == count
    with gzip.open(trial.inputs["records"]) as lines:
        assert len(list(lines)) == count


def test_a_preset_is_named() -> None:
    tried = input_trial.usual_inputs({"preprocessing": {}, "channels": 3, "type": "float32"})
    assert [image_input.as_yaml(given) for given in tried].count("imagenet") == 1


def test_the_number_in_yaml_is_as_a_person_writes_it() -> None:
    given = {"mean": [0.485, 0.456, 0.406], "range": [0, 255], "std": [0.5], "resize": "crop", "shorter_side": 256}
    assert image_input.as_yaml(given) == (
        "{mean: [0.485, 0.456, 0.406], range: [0, 255], std: [0.5], resize: crop, shorter_side: 256}"
    )
