"""Every picture, with names that users and models may give to classes, files and features."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgepack_assets.filesystem.parquet import write_columns
from edgepack_assets.model_types import figures, model_type
from edgepack_assets.model_types.interface import Answered, Payload, PayloadWriter, Prepped, Results
from edgepack_assets.model_types.state_identifier import figures as state_figures
from edgepack_assets_tests.model_types.image_classification.helpers import labelled_payload, results

HOSTILE = {
    "broken mathematics": "$\\frac{$",
    "mathematics": "a$_b$c",
    "escaped": "\\$\\frac{$ {x} %s",
    "control": "\x00\x01\x1b[31m\x7f\x85",
    "lines": "one\ntwo\r\n\tthree",
    "long": "class " * 2_000,
    "not UTF-8": "gr\udcfcn",
    "right to left": "\u202eabc\u05e9\u05dc\u05d5\u05dd",
    "combining": "a" + "\u0301" * 300,
    "without a glyph": "\U0001f642\ue000\U000e0041",
    "empty": "",
}


def size(picture: bytes) -> tuple[int, int]:
    """Width and height of a PNG that decodes."""
    with Image.open(io.BytesIO(picture), formats=["PNG"]) as image:
        image.load()
        return image.size


def draw_images(folder: Path, name: str) -> list[bytes]:
    """The sheet and the confusion matrix of images whose class folders and files have this name."""
    images = model_type("image_classification")
    files = [f"{name}{label}/{name}.png" for label in (0, 1, 2)]
    payload = labelled_payload(folder / "payload", [0, 1, 2], files)
    answers = results(folder, [(0, 1), (1, 1), (2, None)])
    inspection = {"output": {"classes": 3}}
    scored = images.score(payload, answers, None, inspection)
    return [images.results_picture(payload, answers, inspection), *scored.pictures.values()]


def draw_features(folder: Path, name: str) -> list[bytes]:
    """The map of features, two of which have this name."""
    path = folder / "features.parquet"
    values = {"record": np.arange(4), "model_prediction": np.arange(4)}
    write_columns(path, values | {f"{name}{i}": np.arange(4.0) for i in range(2)})
    return [model_type("state_identifier").prepped_picture(Prepped(path))]


@pytest.fixture(scope="module")
def plain_images(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The pictures of a usual name that is longer than what is shown of it."""
    return draw_images(tmp_path_factory.mktemp("plain"), "a usual name of a class that is rather long")


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
def test_any_name_of_a_class_or_file_is_drawn(tmp_path: Path, plain_images: list[bytes], name: str) -> None:
    for picture, other in zip(draw_images(tmp_path, name), plain_images, strict=True):
        assert size(picture)[0] <= size(other)[0] and size(picture)[1] <= size(other)[1]


def draw_states_of_both(folder: Path, name: str, before: list[int], now: list[int]) -> bytes:
    """The states of two packages of this name; the inspection of the first is not at hand."""
    folder.mkdir(exist_ok=True)
    writer = PayloadWriter(folder / "records", folder / "sources")
    with writer.open():
        for number in range(len(now)):
            writer.add({phase: None if number == 3 else float(number) for phase in ("ph1", "ph2", "ph3")})
    made = []
    for at, states in enumerate((before, now)):
        path = folder / f"results-{at}"
        lines = [json.dumps({"record": i, "outputs": {"prediction": state}}) for i, state in enumerate(states)]
        path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
        made.append(Answered(name, Results(path), {"window_size": 2, "component": {}} if at else None))
    picture = model_type("state_identifier").comparison_picture(
        Payload(writer.records, writer.sources, writer.count), *made
    )
    assert picture is not None
    return picture


def colours(picture: bytes, colour: tuple[int, int, int]) -> int:
    with Image.open(io.BytesIO(picture)) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    return int((abs(pixels - colour).max(axis=2) < 8).sum())


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
def test_states_of_two_packages_of_any_name_are_drawn_in_the_width_of_the_ui(tmp_path: Path, name: str) -> None:
    picture = draw_states_of_both(tmp_path / "x", name, [0, 1, 2, 0, -1, 9], [0, 1, 2, 0, -1, 9])
    assert size(picture)[0] <= figures.WIDTH * 110 + 1


def test_where_two_packages_differ_is_marked(tmp_path: Path) -> None:
    red = (0xC8, 0x10, 0x2E)
    same = draw_states_of_both(tmp_path / "same", "Press-edge:1", [0, 1] * 10, [0, 1] * 10)
    other = draw_states_of_both(tmp_path / "other", "Press-edge:1", [0, 1] * 10, [0, 1] * 9 + [1, 1])
    most = draw_states_of_both(tmp_path / "most", "Press-edge:1", [0, 1] * 10, [1, 0] * 10)
    assert colours(same, red) == 0 < colours(other, red) < colours(most, red)


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", [name for key, name in HOSTILE.items() if key != "not UTF-8"])
def test_any_name_of_a_feature_is_drawn(tmp_path: Path, name: str) -> None:
    (picture,) = draw_features(tmp_path, name)
    assert size(picture) == size(draw_features(tmp_path, "plain")[0])


@given(st.text(st.characters(), max_size=60), st.integers(3, 40))
def test_a_name_s_text_is_one_short_line_of_characters_with_a_glyph(name: str, length: int) -> None:
    text = figures.name_text(name, length)
    assert len(text) <= length
    assert text.isprintable()
    assert len(text.splitlines()) <= 1
    text.encode()


@given(st.from_regex(r"[A-Za-z0-9_$\\{}^-]{0,20}", fullmatch=True))
def test_a_usual_name_is_left_as_it_is(name: str) -> None:
    assert figures.name_text(name, 20) == name


def test_both_ends_of_a_long_name_are_shown() -> None:
    assert figures.name_text("camera_left_0001.png", 12) == "camer…01.png"
    assert figures.name_text("a" * 10**6 + "z", 5) == "aa…az"


def test_mathematics_is_drawn_as_it_is_written() -> None:
    figure, escaped = figures.new_figure(3, 1), figures.new_figure(3, 1)
    figure.add_subplot().set_title("$x$")
    escaped.add_subplot().set_title("\\$x\\$")
    wanted = io.BytesIO()
    escaped.savefig(wanted, format="png", dpi=110)
    assert figures.png(figure) == wanted.getvalue()


@pytest.mark.filterwarnings("error")
def test_a_feature_without_any_value_is_drawn_without_a_warning(tmp_path: Path) -> None:
    windows = np.arange(4)
    columns = {"window": windows, "start": windows, "end": windows, "empty": np.full(4, np.nan), "some": windows * 1.5}
    columns["some"][1] = np.nan
    write_columns(tmp_path / "prepped", columns)
    preparation = model_type("state_identifier").preparation
    assert preparation is not None
    assert size(preparation.picture(Prepped(tmp_path / "prepped")))[0] > 0


def test_pictures_fit_into_the_dialog_of_the_ui(tmp_path: Path, plain_images: list[bytes]) -> None:
    """In a window of 1280 pixels the dialog is 976 wide, and cuts off what is wider, such as a legend at the right."""
    sheet, *_ = plain_images
    assert size(sheet)[0] <= 976
    (tmp_path / "states").mkdir()
    path = tmp_path / "features.parquet"
    write_columns(path, {"record": np.arange(4), "model_prediction": np.arange(4), "f": np.arange(4.0)})
    assert size(model_type("state_identifier").prepped_picture(Prepped(path)))[0] <= 976
    assert size(draw_states(tmp_path, states=12))[0] <= 976


def draw_states(folder: Path, states: int) -> bytes:
    """The picture of so many states, each answered once."""
    writer = PayloadWriter(folder / "records", folder / "sources")
    with writer.open():
        writer.add_lines([json.dumps({"ph1": i, "ph2": i, "ph3": i}) for i in range(states)])
    answers = folder / "answers"
    with gzip.open(answers, "wt") as stream:
        for record in range(states):
            stream.write(json.dumps({"record": record, "outputs": {"prediction": record}}) + "\n")
    payload = Payload(writer.records, writer.sources, states)
    found = Results(answers)
    return state_figures.states(payload, found, {"window_size": 1, "window_step": 1}, ("ph1", "ph2", "ph3"), 250)
