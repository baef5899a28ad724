"""Image sets: what is made of raw data is what the AI SDK's own camera stream sends, and the component answers both
routes alike, on a model whose answers are known."""

from __future__ import annotations

import gzip
import importlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from edgepack_assets.checks import all_pass
from edgepack_assets.errors import RawDataError
from edgepack_assets.model_types.image_classification import MODEL_TYPE, contact_sheet, image_sets
from edgepack_assets.model_types.interface import Payload, PayloadWriter, read_lines
from edgepack_assets.sandbox import value_types

from .helpers import encoded, entry, photo, photos, results
from .onnx_models import build

pytest.importorskip("onnxruntime", reason="the component's runtime is not part of this environment")

TAGS = {"blue": "2", "green": "1", "red": "0"}
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}
IMAGE_SET = entry(payload="image_set")
_MODULES = ("entrypoint", "decoding", "inference", "preprocessing", "image_set_decoding", "imageset")


def written(raw: Path, folder: Path, tags: dict[str, str] = TAGS, **settings: Any) -> tuple[Payload, dict[str, Any]]:
    folder.mkdir()
    writer = PayloadWriter(folder / "records", folder / "sources")
    with writer.open():
        facts = MODEL_TYPE.write_payload(raw, tags, writer, entry(payload="image_set", **settings))
    return Payload(writer.records, writer.sources, writer.count), {**facts, "records": writer.count}


@pytest.fixture
def entrypoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The component for image sets, laid out as on the edge; its model answers with the most frequent colour."""
    folder = tmp_path / "component"
    folder.mkdir()
    for part in MODEL_TYPE.component_folders(IMAGE_SET, None):
        for file in part.glob("*.py"):
            shutil.copy(file, folder)
    source = MODEL_TYPE.read_model(build(tmp_path / "m.onnx", last="Softmax"), IMAGE_SET)
    for name, file in source.files.items():
        shutil.copy(file, folder / name)
    (folder / "model.json").write_text(json.dumps(source.model))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name in _MODULES:
        sys.modules.pop(name, None)
    yield importlib.import_module("entrypoint")
    for name in _MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        (tmp_path / "raw" / name).mkdir(parents=True)
        noise = np.random.default_rng(1).integers(0, 60, (14, 18, 3)) + np.array(colour) * 0.7
        (tmp_path / "raw" / name / "a.png").write_bytes(encoded(Image.fromarray(noise.astype(np.uint8))))
    return tmp_path / "raw"


@pytest.mark.parametrize("image_format", image_sets.FORMATS)
def test_a_record_is_what_the_sdks_camera_sends(tmp_path: Path, image_format: str) -> None:
    os.environ.setdefault("SIMATICAI_TELEMETRY", "deny")
    from simaticai.testing.vca_stream import VCAStream

    raw = photos(tmp_path / "raw", {"cat": 1})
    (raw / "cat" / "0.png").write_bytes(encoded(photo(3, 20, 16)))
    made, _ = written(raw, tmp_path / "out", {"cat": "0"}, image_format=image_format)
    [ours] = [record["vision_payload"] for record in read_lines(made.records)]
    theirs = next(iter(VCAStream(raw, image_format=image_format)))["vision_payload"]
    assert ours.keys() == theirs.keys()
    [our_image], [their_image] = ours["detail"], theirs["detail"]
    assert our_image.keys() == their_image.keys()
    for name in ("image", "width", "height", "format", "seq", "metadata"):
        assert our_image[name] == their_image[name], name
    assert isinstance(our_image["image"], bytes)


@pytest.mark.parametrize("image_format", sorted(set(image_sets.FORMATS) - {"Mono8"}))
def test_the_component_sees_the_colours_of_every_format(
    tmp_path: Path, colours: Path, entrypoint: ModuleType, image_format: str
) -> None:
    made, facts = written(colours, tmp_path / "out", image_format=image_format)
    answers = [entrypoint.process_input(record) for record in read_lines(made.records)]
    assert [answer["prediction"] for answer in answers] == ["2", "1", "0"]
    assert [label for _, label in sorted(made.labels().items())] == [2, 1, 0]
    assert facts["formats"] == {image_format: 3}
    assert all_pass(MODEL_TYPE.payload_rows(facts))


def test_both_routes_give_one_answer(tmp_path: Path, colours: Path, entrypoint: ModuleType) -> None:
    made, _ = written(colours, tmp_path / "out")
    sets = [entrypoint.process_input(record) for record in read_lines(made.records)]
    writer = PayloadWriter(tmp_path / "records", tmp_path / "sources")
    with writer.open():
        MODEL_TYPE.write_payload(colours, TAGS, writer, entry())
    assert sets == [entrypoint.process_input(record) for record in read_lines(writer.records)]


def test_the_raw_data_says_its_format_and_the_configuration_has_the_last_word(tmp_path: Path, colours: Path) -> None:
    tags = {**TAGS, "image_format": "BayerGB8"}
    assert written(colours, tmp_path / "a", tags)[1]["formats"] == {"BayerGB8": 3}
    assert written(colours, tmp_path / "b", tags, image_format="Mono8")[1]["formats"] == {"Mono8": 3}
    with pytest.raises(RawDataError, match="tag image_format='Bayer' is no format of an ImageSet; known are RGB8"):
        written(colours, tmp_path / "c", {**TAGS, "image_format": "Bayer"})


def test_a_grey_image_of_a_bayer_camera_is_its_mosaic(tmp_path: Path) -> None:
    mosaic = np.random.default_rng(0).integers(0, 256, (8, 10), np.uint8)
    (tmp_path / "raw" / "red").mkdir(parents=True)
    (tmp_path / "raw" / "red" / "a.png").write_bytes(encoded(Image.fromarray(mosaic)))
    for image_format in ("BayerRG8", "Mono8"):
        made, _ = written(tmp_path / "raw", tmp_path / image_format, image_format=image_format)
        [record] = read_lines(made.records)
        assert record["vision_payload"]["detail"][0]["image"] == mosaic.tobytes()


def test_a_folder_within_a_class_is_one_record_and_the_surest_image_answers(
    tmp_path: Path, colours: Path, entrypoint: ModuleType
) -> None:
    part = colours / "red" / "part-7"
    part.mkdir()
    (part / "left.png").write_bytes(encoded(Image.new("RGB", (12, 12), (120, 128, 120))))
    (part / "right.png").write_bytes(encoded(Image.new("RGB", (8, 8), (255, 0, 0))))
    made, facts = written(colours, tmp_path / "out")
    assert (facts["records"], facts["image_sets"], facts["images"]) == (4, 4, 5)
    assert all_pass(MODEL_TYPE.payload_rows(facts))
    *_, record = read_lines(made.records)
    details = record["vision_payload"]["detail"]
    assert [detail["id"] for detail in details] == ["red/part-7/left.png", "red/part-7/right.png"]
    assert record["vision_payload"]["count"] == 2
    assert entrypoint.process_input(record)["prediction"] == "0"
    first, second = (entrypoint.process_input({"vision_payload": {"detail": [detail]}}) for detail in details)
    assert first["prediction"] == "1"
    assert entrypoint.process_input(record) == second


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"detail": []}, "0 images under detail"),
        ({"detail": None}, "no list of images"),
        ({"detail": [{}] * 65}, "65 images under detail; 1 to 64"),
        ({"detail": ["x"]}, "image 0 of its image set: it is not a mapping but str"),
        ({"format": "Mono12"}, "its format is 'Mono12'; known are RGB8"),
        ({"format": ["RGB8"]}, "its format is"),
        ({"width": 0}, "its size is 0 x 8"),
        ({"width": True}, "its size is True x 8"),
        ({"width": 10**9}, "at most 80000000 pixels"),
        ({"width": 7}, "192 bytes; 7x8 in RGB8 are 168"),
        ({"image": b""}, "0 bytes"),
        ({"image": "AAAA"}, "its image is not bytes but str"),
        ({"image": None}, "its image is not bytes but NoneType"),
    ],
)
def test_a_broken_image_set_gets_no_answer_and_a_reason(
    entrypoint: ModuleType, caplog: pytest.LogCaptureFixture, change: dict[str, Any], words: str
) -> None:
    detail = {"format": "RGB8", "width": 8, "height": 8, "image": bytes(192)}
    good = {"version": "1", "detail": [detail]}
    assert entrypoint.process_input({"vision_payload": good}) is not None
    bad = {**good, **change} if "detail" in change else {**good, "detail": [{**detail, **change}]}
    with caplog.at_level(logging.WARNING):
        assert entrypoint.process_input({"vision_payload": bad}) is None
    assert words in caplog.text
    # one of several: an answer without it might be another one
    if "detail" not in change:
        assert entrypoint.process_input({"vision_payload": {"detail": [detail, {**detail, **change}]}}) is None


def test_the_sandbox_takes_the_records_as_an_image_set(tmp_path: Path, colours: Path) -> None:
    made, _ = written(colours, tmp_path / "out", image_format="Mono8")
    check = value_types.check_of("ImageSet")
    records = list(read_lines(made.records))
    assert len(records) == 3
    assert all(check(record["vision_payload"]) for record in records)


@pytest.mark.parametrize(
    ("size", "image_format", "words"),
    [
        ((7, 8), "YUV422Packed", "red/a.png: is 7 pixels wide"),
        ((8, 7), "BayerRG8", "red/a.png: is 8x7; BayerRG8 needs"),
    ],
)
def test_a_size_that_a_format_cannot_have_is_refused(
    tmp_path: Path, size: tuple[int, int], image_format: str, words: str
) -> None:
    (tmp_path / "raw" / "red").mkdir(parents=True)
    (tmp_path / "raw" / "red" / "a.png").write_bytes(encoded(Image.new("RGB", size)))
    with pytest.raises(RawDataError, match=words):
        written(tmp_path / "raw", tmp_path / "out", image_format=image_format)


def test_what_ships_without_image_sets_stays_as_it_is(tmp_path: Path) -> None:
    model = build(tmp_path / "m.onnx")
    plain, with_sets = MODEL_TYPE.read_model(model, entry()), MODEL_TYPE.read_model(model, IMAGE_SET)
    assert [folder.name for folder in MODEL_TYPE.component_folders(entry(), None)] == ["component"]
    assert plain.model == {"file": "model.onnx", "runtime": "onnxruntime"}
    assert set(with_sets.files) - set(plain.files) == {"imageset.py"}
    assert set(with_sets.requirements) - set(plain.requirements) == {"opencv-python-headless"}
    assert any("opencv-python-headless" in line for line in with_sets.constraints)


def test_the_inspection_says_which_payload_the_package_takes(entrypoint: ModuleType) -> None:
    sys.path.append(str(MODEL_TYPE.folder))
    try:
        told = importlib.import_module("child_tasks").inspect_model({})
    finally:
        sys.path.remove(str(MODEL_TYPE.folder))
        sys.modules.pop("child_tasks")
    inspection = MODEL_TYPE.inspection.model_validate(told).model_dump(exclude_unset=True)
    [variable] = MODEL_TYPE.component_spec(inspection).inputs
    assert (variable.name, variable.type) == ("vision_payload", "ImageSet")
    rows = {row.name: row for row in MODEL_TYPE.inspection_rows(inspection, IMAGE_SET)}
    assert rows["payload"].passed
    assert not {row.name: row for row in MODEL_TYPE.inspection_rows(inspection, entry())}["payload"].passed


def test_images_of_sets_are_drawn_and_tried(tmp_path: Path, colours: Path, entrypoint: ModuleType) -> None:
    made, _ = written(colours, tmp_path / "out", image_format="BayerBG8")
    picture = contact_sheet.draw(made, results(tmp_path, [(0, 2), (1, 0), (2, 0)]))
    assert picture.startswith(b"\x89PNG")
    sys.path.append(str(MODEL_TYPE.folder))
    try:
        told = importlib.import_module("child_tasks").try_inputs({"records": str(made.records), "inputs": [{}]})
    finally:
        sys.path.remove(str(MODEL_TYPE.folder))
        sys.modules.pop("child_tasks")
    assert told == {"classes": [[2, 1, 0]]}


def test_settings() -> None:
    assert entry().settings.payload == "json"
    assert entry(payload="image_set", image_format="Mono8").settings.image_format == "Mono8"
    for wrong in ({"payload": "binary"}, {"payload": "image_set", "image_format": "Mono16"}, {"image_format": "Mono8"}):
        with pytest.raises(ValidationError, match=r"payload|image_format"):
            entry(**wrong)


def test_equal_images_give_equal_bytes(tmp_path: Path, colours: Path) -> None:
    one, other = (written(colours, tmp_path / name)[0].records for name in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()
    with gzip.open(one, "rt") as lines:
        time = json.loads(lines.readline())["vision_payload"]["timestamp"]
    assert datetime.fromisoformat(time) == datetime(2024, 1, 1, tzinfo=UTC)
