"""From a folder of class folders to the records that a camera would send, and what must hold for these."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import RawDataError
from edgepack_assets.filesystem.atomic_files import is_leftover
from edgepack_assets.model_types.image_classification import image_sets
from edgepack_assets.model_types.image_classification.settings import ImageClassificationSettings
from edgepack_assets.model_types.interface import Payload, PayloadWriter, read_lines

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

SUFFIXES = (".png", ".jpg", ".jpeg")
INPUT = "vision_payload"

MAX_IMAGE_BYTES = 64 * 2**20
MAX_PIXELS = 80_000_000
"""The component's own limits (component/decoding.py): a larger image would get no answer on the edge."""

_FIRST_TIMESTAMP = datetime(2024, 1, 1, tzinfo=UTC)  # a fixed one: equal images must give equal records


def write_payload(
    raw: Path, tags: Mapping[str, str], writer: PayloadWriter, settings: ImageClassificationSettings | None = None
) -> dict[str, Any]:
    """One record per image, in the order of class folder and file name. Raises RawDataError."""
    if settings is not None and settings.payload == "image_set":
        return _write_image_sets(raw, tags, writer, settings)
    classes = _classes(raw, tags)
    per_class: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    images = {name: _images(raw / name) for name in classes}
    writer.expect(sum(map(len, images.values())))
    for name, label in classes.items():
        for image in images[name]:
            content, media_type, mode = _read(image)
            writer.add(_record(content, media_type, writer.count), f"{name}/{image.name}", label)
            per_class[name] += 1
            formats[media_type] += 1
            modes[mode] += 1
    return {
        "inputs": [INPUT],
        "images": per_class.total(),
        "classes": classes,
        "images_per_class": dict(per_class),
        "formats": dict(sorted(formats.items())),
        "modes": dict(sorted(modes.items())),
    }


def write_recording(
    recording: Path, writer: PayloadWriter, settings: ImageClassificationSettings, work: Path
) -> dict[str, Any]:
    """One record per image of a file, of a folder of images, or of a folder of class folders, whose labels are not
    known. Raises RawDataError."""
    if not recording.is_dir():
        if recording.suffix.lower() not in SUFFIXES:
            raise RawDataError(f"{recording.name}: not one of {', '.join(SUFFIXES)}, nor a folder of such images")
        (work / "image").mkdir()
        shutil.copyfile(recording, work / "image" / recording.name)
        recording = work
    elif any(entry.is_file() and not is_leftover(PurePath(entry.name)) for entry in recording.iterdir()):
        shutil.copytree(recording, work / "images")
        recording = work
    names = sorted(entry.name for entry in recording.iterdir() if entry.is_dir())
    return write_payload(recording, {name: str(label) for label, name in enumerate(names)}, writer, settings)


def _write_image_sets(
    raw: Path, tags: Mapping[str, str], writer: PayloadWriter, settings: ImageClassificationSettings
) -> dict[str, Any]:
    """One ImageSet per image, or per folder of images within a class folder."""
    image_format = image_sets.chosen_format(settings.image_format, tags)
    classes = _classes(raw, tags)
    per_class: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    sets = 0
    for name, label in classes.items():
        for entry in _image_sets(raw / name):
            files = _images(entry) if entry.is_dir() else [entry]
            if len(files) > image_sets.MOST_IMAGES:
                raise RawDataError(
                    f"{name}/{entry.name}/: holds {len(files)} images; a record has at most {image_sets.MOST_IMAGES}"
                )
            images = [(file.relative_to(raw).as_posix(), _pixels(file)) for file in files]
            at = _FIRST_TIMESTAMP + timedelta(seconds=writer.count)
            record = image_sets.record(images, image_format, at, writer.count)
            writer.add({INPUT: record}, f"{name}/{entry.name}", label)
            per_class[name] += len(files)
            modes.update(image.mode for _, image in images)
            sets += 1
    return {
        "inputs": [INPUT],
        "images": per_class.total(),
        "image_sets": sets,
        "classes": classes,
        "images_per_class": dict(per_class),
        "formats": {image_format: per_class.total()},
        "modes": dict(sorted(modes.items())),
    }


def payload_rows(facts: Mapping[str, Any]) -> list[CheckRow]:
    """What must hold for a payload with these facts."""
    empty = [name for name in facts["classes"] if not facts["images_per_class"].get(name)]
    classes = len(facts["classes"])
    return [
        CheckRow("there are images", facts["images"] > 0, f"{facts['images']} images", "at least one"),
        CheckRow(
            "every image is a record",
            facts["records"] == facts["images"],
            f"{facts['records']} records",
            f"{facts['images']} records, one for each image",
        )
        if "image_sets" not in facts
        else CheckRow(
            "every image set is a record",
            facts["records"] == facts["image_sets"],
            f"{facts['records']} records",
            f"{facts['image_sets']} records of {facts['images']} images",
        ),
        CheckRow("the records hold", facts["inputs"] == [INPUT], ", ".join(facts["inputs"]), INPUT),
        CheckRow(
            "every class has images",
            classes > 0 and not empty,
            f"{classes - len(empty)} of {classes} classes" + (f"; without: {', '.join(empty)}" if empty else ""),
            "every class folder that the tags know",
        ),
    ]


def _classes(raw: Path, tags: Mapping[str, str]) -> dict[str, int]:
    if not raw.is_dir():
        raise RawDataError(f"{raw.name}: not a folder; image classification takes a folder of class folders")
    entries = _entries(raw)
    for entry in entries:
        if not entry.is_dir():
            raise RawDataError(
                f"{entry.name}: lies beside the class folders; put images into the folder of their class, "
                "and remove whatever else is there"
            )
    if not entries:
        raise RawDataError(f"{raw.name}: the folder holds no class folder, so there is no image to classify")
    return {entry.name: _label(entry.name, tags) for entry in entries}


def _label(name: str, tags: Mapping[str, str]) -> int:
    if name not in tags:
        known = ", ".join(f"{key}={value}" for key, value in sorted(tags.items())) or "none"
        raise RawDataError(
            f"{name}/: the data asset has no tag {name!r} with the class's label; its tags: {known:.500}. "
            f"Register the data with a tag such as {name}=0"
        )
    value = str(tags[name]).strip()
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise RawDataError(
            f"{name}/: the data asset's tag {name}={tags[name]!r} is no label; "
            "a label is the number of the class in the model's output: 0, 1, 2 and so on"
        )
    return int(value)


def _images(folder: Path) -> list[Path]:
    entries = _entries(folder)
    for entry in entries:
        shown = f"{folder.name}/{entry.name}"
        if entry.is_dir():
            raise RawDataError(f"{shown}: a folder within a class folder; put its images into {folder.name}/ itself")
        if entry.suffix.lower() not in SUFFIXES:
            raise RawDataError(f"{shown}: not one of {', '.join(SUFFIXES)}; convert or remove it")
    if not entries:
        raise RawDataError(f"{folder.name}/: the class folder holds no image; add some or remove the folder")
    return entries


def _image_sets(folder: Path) -> list[Path]:
    """The images and the folders of images in a class folder."""
    entries = _entries(folder)
    if any(entry.is_dir() for entry in entries):
        for entry in entries:
            if not entry.is_dir() and entry.suffix.lower() not in SUFFIXES:
                raise RawDataError(
                    f"{folder.name}/{entry.name}: not one of {', '.join(SUFFIXES)}; convert or remove it"
                )
        return entries
    return _images(folder)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, but for what operating systems leave there."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return sorted((entry for entry in entries if not is_leftover(Path(entry.name))), key=lambda entry: entry.name)


def _read(path: Path) -> tuple[bytes, str, str]:
    """(content, media type, mode) of an image that decodes to its last pixel. The content says what it is,
    whatever the suffix. Raises RawDataError."""
    content, image = _decoded(path)
    return content, "image/png" if image.format == "PNG" else "image/jpeg", image.mode


def _pixels(path: Path) -> Pixels:
    return _decoded(path)[1]


def _decoded(path: Path) -> tuple[bytes, Pixels]:
    from PIL import Image

    shown = f"{path.parent.name}/{path.name}"
    try:
        size = path.stat().st_size
        if size > MAX_IMAGE_BYTES:
            raise RawDataError(f"{shown}: has {size} bytes; the component reads at most {MAX_IMAGE_BYTES}")
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise RawDataError(
                    f"{shown}: is {image.width}x{image.height}; the component reads at most {MAX_PIXELS} pixels"
                )
            image.load()
            return content, image
    except RawDataError:
        raise
    except Exception as error:  # what Pillow raises on a broken file has no common base
        raise RawDataError(
            f"{shown}: not a readable PNG or JPEG ({_reason(error)}); replace or remove the file"
        ) from error


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    # Pillow's own text names an object in memory.
    return "its content is neither" if isinstance(error, UnidentifiedImageError) else str(error)


def _record(content: bytes, media_type: str, number: int) -> dict[str, str]:
    message = {
        "timestamp": (_FIRST_TIMESTAMP + timedelta(seconds=number)).isoformat().replace("+00:00", "Z"),
        "sensor_id": "edgepack",
        "image": f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}",
        "status": {"genicam_signal": {"code": 3}},
    }
    return {INPUT: json.dumps(message)}


def class_folders(payload: Payload) -> dict[int, str]:
    """Label -> the class folder that has it in the raw data; of several folders, all."""
    folders: dict[int, set[str]] = {}
    for source in read_lines(payload.sources):
        if isinstance(source["label"], int) and isinstance(source["file"], str):
            folders.setdefault(source["label"], set()).add(source["file"].partition("/")[0])
    return {label: ", ".join(sorted(names)) for label, names in sorted(folders.items())}
