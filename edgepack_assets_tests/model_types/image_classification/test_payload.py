"""The payload: what an image folder becomes, and each defect that is refused by name."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepack_assets.checks import all_pass
from edgepack_assets.errors import RawDataError
from edgepack_assets.model_types.image_classification import MODEL_TYPE, payload
from edgepack_assets.model_types.interface import read_lines

from .helpers import encoded, load_decoding, photo, photos, write_payload

TAGS = {"cat": "0", "dog": "1"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return photos(tmp_path / "raw", {"dog": 2, "cat": 3})


def test_a_record_for_each_image_in_a_fixed_order(raw: Path, tmp_path: Path) -> None:
    found, facts = write_payload(raw, {**TAGS, "description": "pets", "horse": "2"}, tmp_path / "out")

    sources = list(read_lines(found.sources))
    assert [source["record"] for source in sources] == [0, 1, 2, 3, 4]
    assert [source["file"] for source in sources] == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png"]
    assert [source["label"] for source in sources] == [0, 0, 0, 1, 1]
    assert facts["classes"] == {"cat": 0, "dog": 1}
    assert facts["images"] == facts["records"] == 5
    assert facts["images_per_class"] == {"cat": 3, "dog": 2}
    assert facts["formats"] == {"image/png": 5}
    assert facts["modes"] == {"RGB": 5}
    assert all_pass(MODEL_TYPE.payload_rows(facts))


def test_a_record_is_what_a_camera_sends(raw: Path, tmp_path: Path) -> None:
    found, _ = write_payload(raw, TAGS, tmp_path / "out")

    records = list(read_lines(found.records))
    assert all(list(record) == ["vision_payload"] for record in records)
    message = json.loads(records[3]["vision_payload"])
    assert message.keys() == {"timestamp", "sensor_id", "image", "status"}
    assert message["status"] == {"genicam_signal": {"code": 3}}
    kind, _, content = message["image"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == (raw / "dog" / "0.png").read_bytes()


def test_equal_images_give_equal_bytes(raw: Path, tmp_path: Path) -> None:
    first, _ = write_payload(raw, TAGS, tmp_path / "first")
    copy = photos(tmp_path / "copy", {"cat": 0, "dog": 0})
    for file in sorted(raw.rglob("*.png"), reverse=True):
        (copy / file.relative_to(raw)).write_bytes(file.read_bytes())
    second, _ = write_payload(copy, dict(reversed(TAGS.items())), tmp_path / "second")

    assert first.records.read_bytes() == second.records.read_bytes()
    assert first.sources.read_bytes() == second.sources.read_bytes()


@pytest.mark.parametrize("name", ["a.PNG", "b.Jpg", "c.JPEG"])
def test_suffixes_of_any_case(raw: Path, tmp_path: Path, name: str) -> None:
    kind = "png" if name.endswith("PNG") else "jpeg"
    (raw / "cat" / name).write_bytes(encoded(photo(9), kind))

    _, facts = write_payload(raw, TAGS, tmp_path / "out")

    assert facts["images_per_class"]["cat"] == 4


def test_the_content_says_what_an_image_is(raw: Path, tmp_path: Path) -> None:
    (raw / "cat" / "0.png").write_bytes(encoded(photo(9), "jpeg"))

    found, facts = write_payload(raw, TAGS, tmp_path / "out")

    first = json.loads(next(iter(read_lines(found.records)))["vision_payload"])
    assert first["image"].startswith("data:image/jpeg;base64,")
    assert facts["formats"] == {"image/jpeg": 1, "image/png": 4}


def test_a_phone_photo_with_a_second_picture_inside_is_a_jpeg(raw: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    photo(1).save(buffer, "MPO", save_all=True, append_images=[photo(2)])
    (raw / "cat" / "0.jpg").write_bytes(buffer.getvalue())

    _, facts = write_payload(raw, TAGS, tmp_path / "out")

    assert facts["formats"] == {"image/jpeg": 1, "image/png": 5}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [*((mode, "png") for mode in ("RGBA", "LA", "P", "L", "1", "I;16")), ("L", "jpeg"), ("CMYK", "jpeg")],
)
def test_odd_modes_are_taken_as_they_are(raw: Path, tmp_path: Path, mode: str, kind: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    else:
        image = photo(3).convert(mode)
    (raw / "cat" / f"odd.{kind}").write_bytes(encoded(image, kind))

    _, facts = write_payload(raw, TAGS, tmp_path / "out")

    assert facts["modes"] == {"RGB": 5, mode: 1}


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "._0.png", "desktop.ini"])
def test_what_operating_systems_leave_is_ignored(raw: Path, tmp_path: Path, name: str) -> None:
    (raw / name).write_bytes(b"x")
    (raw / "cat" / name).write_bytes(b"x")

    _, facts = write_payload(raw, TAGS, tmp_path / "out")

    assert facts["images"] == 5


def _refused(raw: Path, tmp_path: Path, tags: dict[str, str] | None = None) -> str:
    with pytest.raises(RawDataError) as caught:
        write_payload(raw, TAGS if tags is None else tags, tmp_path / "out")
    return str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"")
    assert "photos.zip: not a folder" in _refused(tmp_path / "photos.zip", tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    assert "no class folder" in _refused(tmp_path / "raw", tmp_path)


def test_an_empty_class_folder(raw: Path, tmp_path: Path) -> None:
    for file in (raw / "dog").iterdir():
        file.unlink()
    (raw / "dog" / ".DS_Store").write_bytes(b"x")
    assert "dog/: the class folder holds no image" in _refused(raw, tmp_path)


def test_a_file_beside_the_class_folders(raw: Path, tmp_path: Path) -> None:
    (raw / "stray.png").write_bytes(encoded(photo(1)))
    assert "stray.png" in _refused(raw, tmp_path)


def test_a_folder_within_a_class_folder(raw: Path, tmp_path: Path) -> None:
    (raw / "cat" / "more").mkdir()
    assert "cat/more: a folder within" in _refused(raw, tmp_path)


@pytest.mark.parametrize("name", ["x.bmp", "x.gif", "x", "x.png.txt", "x.tiff"])
def test_another_suffix(raw: Path, tmp_path: Path, name: str) -> None:
    (raw / "cat" / name).write_bytes(encoded(photo(1)))
    assert f"cat/{name}: not one of .png, .jpg, .jpeg" in _refused(raw, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no image at all", id="text"),
        pytest.param(encoded(photo(1), "bmp"), id="bmp"),
        pytest.param(encoded(photo(1), "gif"), id="gif"),
        pytest.param(encoded(photo(1), "webp"), id="webp"),
        pytest.param(encoded(photo(1))[:-200], id="cut png"),
        pytest.param(encoded(photo(1, 64, 64), "jpeg")[:900], id="cut jpeg"),
        pytest.param(encoded(photo(1))[:20] + b"\xff" * 200, id="damaged png"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", id="lfs pointer"),
    ],
)
def test_an_unreadable_image(raw: Path, tmp_path: Path, content: bytes) -> None:
    (raw / "cat" / "1.png").write_bytes(content)
    message = _refused(raw, tmp_path)
    assert "cat/1.png: not a readable PNG or JPEG" in message
    assert "0x" not in message


def test_an_image_larger_than_the_component_reads(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MAX_PIXELS", 20 * 15)
    (raw / "cat" / "1.png").write_bytes(encoded(photo(1, 20, 16)))
    assert "cat/1.png: is 20x16" in _refused(raw, tmp_path)
    monkeypatch.setattr(payload, "MAX_IMAGE_BYTES", 10)
    assert "cat/0.png: has " in _refused(raw, tmp_path)


def test_the_limits_are_the_component_s() -> None:
    decoding = load_decoding()
    assert payload.MAX_PIXELS == decoding.MAX_PIXELS
    assert payload.MAX_IMAGE_BYTES == decoding.MAX_IMAGE_BYTES


def test_a_class_without_a_tag(raw: Path, tmp_path: Path) -> None:
    message = _refused(raw, tmp_path, {"cat": "0", "Dog": "1"})
    assert "dog/: the data asset has no tag 'dog'" in message
    assert "Dog=1, cat=0" in message


@pytest.mark.parametrize("value", ["one", "", "1.0", "-1", "0x1", "1_0", "\uff11", "99999999999"])
def test_a_tag_that_is_no_label(raw: Path, tmp_path: Path, value: str) -> None:
    message = _refused(raw, tmp_path, {"cat": "0", "dog": value})
    assert f"dog={value!r} is no label" in message


def test_parts_say_what_does_not_hold(raw: Path, tmp_path: Path) -> None:
    _, facts = write_payload(raw, TAGS, tmp_path / "out")

    def failing(**more: object) -> list[str]:
        return [part.name for part in MODEL_TYPE.payload_rows({**facts, **more}) if not part.passed]

    assert failing() == []
    assert failing(records=4) == ["every image is a record"]
    assert failing(inputs=["image"]) == ["the records hold"]
    assert failing(images_per_class={"cat": 3}) == ["every class has images"]
    assert "there are images" in failing(images=0, records=0)
