"""How images enter a model, against the formulas of training libraries written out with numpy and Pillow."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgepack_assets.model_types.image_classification.settings import PRESETS

from .helpers import entry, load_inference, photo

inference = load_inference()
preprocessing = sys.modules["preprocessing"]
UnfitModel, Tensor, Preprocessing = inference.UnfitModel, inference.Tensor, preprocessing.Preprocessing

FILTERS = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


def enter(image: Image.Image, tensor: Any, configured: Any, default: str = "NHWC") -> np.ndarray:
    """The tensor that the component fills, with a configuration as edgepack.yaml has it."""
    section = entry(input=configured).settings.input
    assert section is not None
    found: np.ndarray = inference.ImageInput(tensor, default, Preprocessing.of(section.given)).fill(image)
    return found[0]


def floats(height: int = 8, width: int = 8, dtype: str = "float32") -> Any:
    return Tensor("image", (1, height, width, 3), dtype)


def torchvision(image: Image.Image, shorter_side: int, size: int, mean: Any, std: Any) -> np.ndarray:
    """Resize(shorter_side), CenterCrop(size), ToTensor(), Normalize(mean, std), as torchvision does them on a PIL
    image; channels last."""
    width, height = image.size
    if width <= height:
        image = image.resize((shorter_side, int(shorter_side * height / width)), Image.Resampling.BILINEAR)
    else:
        image = image.resize((int(shorter_side * width / height), shorter_side), Image.Resampling.BILINEAR)
    top, left = round((image.height - size) / 2.0), round((image.width - size) / 2.0)
    image = image.crop((left, top, left + size, top + size))
    pixels = np.asarray(image).astype(np.float32) / np.float32(255)
    return (pixels - np.array(mean, np.float32)) / np.array(std, np.float32)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (500, 500), (300, 299), (33, 97), (1000, 260), (257, 256)])
def test_imagenet_is_torchvision_s_transform(size: tuple[int, int]) -> None:
    image = photo(3, *size)
    wanted = torchvision(image, 256, 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    found = enter(image, Tensor("image", (1, 3, 224, 224), "float32"), "imagenet", "NCHW")
    assert np.abs(found.transpose(1, 2, 0) - wanted).max() < 1e-5
    spelled = {**PRESETS["imagenet"], "shorter_side": 256}
    del spelled["crop_fraction"]
    assert (enter(image, floats(224, 224), spelled) == found.transpose(1, 2, 0)).all()


def test_the_shorter_side_may_be_the_model_s_size() -> None:
    image = photo(3, 50, 31)
    found = enter(image, floats(24, 24), {"resize": "crop", "shorter_side": 24})
    assert np.allclose(found, torchvision(image, 24, 24, [0, 0, 0], [1, 1, 1]), atol=1e-6)


def test_minus_one_to_one_as_keras_s_tf_mode() -> None:
    image = photo(4, 8, 8)
    wanted = np.asarray(image).astype(np.float32) / 127.5 - 1
    assert np.allclose(enter(image, floats(), {"range": [-1, 1]}), wanted, atol=1e-6)
    assert np.allclose(enter(image, floats(), {"mean": 0.5, "std": 0.5}), wanted, atol=1e-6)


def test_keras_s_caffe_mode() -> None:
    """BGR, 0 to 255 less the mean of each channel: in units of [0, 1], mean / 255 and 1 / 255."""
    image = photo(4, 8, 8)
    mean = np.array([103.939, 116.779, 123.68])
    wanted = np.asarray(image)[:, :, ::-1] - mean
    configured = {"channel_order": "bgr", "mean": list(mean / 255), "std": 1 / 255}
    assert np.allclose(enter(image, floats(), configured), wanted, atol=1e-3)


def test_means_are_in_the_order_in_which_channels_enter() -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert enter(red, floats(), {"channel_order": "bgr", "range": [0, 9]})[0, 0].tolist() == [0, 0, 9]
    found = enter(red, floats(), {"channel_order": "bgr", "mean": [0, 0, 1], "std": 1})
    assert found[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("size", "left"), [((40, 20), (0, 4)), ((20, 40), (4, 0)), ((16, 16), (0, 0))])
def test_letterbox_keeps_the_whole_image_and_its_shape(size: tuple[int, int], left: tuple[int, int]) -> None:
    found = enter(
        Image.new("RGB", size, (200, 100, 0)), floats(16, 16),
        {"resize": "letterbox", "fill": [114, 0, 7], "range": [0, 255], "channel_order": "bgr"},
    )  # fmt: skip
    inside = found[left[1] : 16 - left[1], left[0] : 16 - left[0]]
    assert (inside == [0, 100, 200]).all()
    found[left[1] : 16 - left[1], left[0] : 16 - left[0]] = [7, 0, 114]
    assert (found == [7, 0, 114]).all()


def test_a_letterbox_for_a_grey_model() -> None:
    tensor = Tensor("image", (1, 16, 16, 1), "float32")
    configured = {"resize": "letterbox", "fill": 114, "range": [0, 255]}
    assert enter(Image.new("RGB", (32, 16)), tensor, configured)[[0, 8], 0, 0].tolist() == [114, 0]


def test_squeezing_and_cropping_see_other_borders() -> None:
    image = Image.new("RGB", (300, 100), (255, 255, 255))
    image.paste((0, 0, 0), (100, 0, 200, 100))
    assert enter(image, floats(), {"resize": "squeeze"})[0, 0, 0] == 1
    assert (enter(image, floats(), {"resize": "crop"})[:, 1:-1] == 0).all()


def naive(image: Image.Image, given: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Resize as torchvision or Ultralytics do, then a pixel's arithmetic in 64 bits."""
    how = getattr(Image.Resampling, given["interpolation"].upper())
    w, h = image.size
    if given["resize"] == "squeeze":
        image = image.resize((width, height), how)
    elif given["resize"] == "crop":
        side = given["shorter_side"]
        image = image.resize((side, int(side * h / w)) if w <= h else (int(side * w / h), side), how)
        left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
        image = image.crop((left, top, left + width, top + height))
    else:
        scale = min(width / w, height / h)
        small = image.resize((max(1, round(w * scale)), max(1, round(h * scale))), how)
        image = Image.new("RGB", (width, height), tuple(given["fill"]))
        image.paste(small, ((width - small.width) // 2, (height - small.height) // 2))
    pixels = np.asarray(image).astype(np.float64)
    if given["channel_order"] == "bgr":
        pixels = pixels[..., [2, 1, 0]]
    if "range" in given:
        low, high = given["range"]
        return low + pixels / 255 * (high - low)
    return (pixels / 255 - np.array(given["mean"])) / np.array(given["std"])


_numbers = st.floats(-300, 300, allow_nan=False, width=32)


@st.composite
def _inputs(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {
        "channel_order": draw(st.sampled_from(["rgb", "bgr"])),
        "resize": draw(st.sampled_from(["squeeze", "crop", "letterbox"])),
        "interpolation": draw(st.sampled_from(FILTERS)),
    }
    if draw(st.booleans()):
        low = draw(_numbers)
        found["range"] = [low, low + draw(st.floats(0.1, 300))]
    else:
        found["mean"] = draw(st.lists(_numbers, min_size=3, max_size=3))
        found["std"] = draw(st.lists(st.floats(0.001, 100), min_size=3, max_size=3))
    if found["resize"] == "crop":
        found["shorter_side"] = draw(st.integers(24, 60))
    if found["resize"] == "letterbox":
        found["fill"] = draw(st.lists(st.integers(0, 255), min_size=3, max_size=3))
    return found


@settings(max_examples=100)
@given(
    _inputs(), st.integers(0, 99), st.integers(1, 90), st.integers(1, 90),
    st.integers(8, 24), st.integers(8, 24), st.booleans(),
)  # fmt: skip
def test_any_input_equals_plain_arithmetic(  # noqa: PLR0917
    given: dict[str, Any], seed: int, width: int, height: int, wide: int, high: int, channels_first: bool
) -> None:
    image = photo(seed, width, height)
    shape = (1, 3, high, wide) if channels_first else (1, high, wide, 3)
    found = enter(image, Tensor("image", shape, "float32"), given, "NCHW" if channels_first else "NHWC")
    if channels_first:
        found = found.transpose(1, 2, 0)
    wanted = naive(image, given, high, wide)
    assert np.allclose(found, wanted, rtol=1e-5, atol=1e-5 * max(1, np.abs(wanted).max()))


@settings(max_examples=50)
@given(_inputs(), st.floats(0.001, 2), st.integers(0, 255), st.sampled_from(["uint8", "int8"]))
def test_a_quantized_model_gets_the_configured_numbers_quantized(
    given: dict[str, Any], scale: float, zero_point: int, dtype: str
) -> None:
    lowest = 0 if dtype == "uint8" else -128
    image, zero_point = photo(5, 30, 20), zero_point + lowest
    found = enter(image, Tensor("image", (1, 8, 8, 3), dtype, (scale, zero_point)), given)
    wanted = np.clip(naive(image, given, 8, 8) / scale + zero_point, lowest, lowest + 255)
    assert found.dtype == dtype
    assert np.abs(found.astype(float) - wanted).max() <= 0.5 + 1e-6 * np.abs(wanted).max()


def test_a_quantized_model_s_order_and_resize_leave_its_levels_alone() -> None:
    image, tensor = photo(5, 8, 8), Tensor("image", (1, 8, 8, 3), "uint8", (0.0186584, 114))
    assert (enter(image, tensor, {"channel_order": "bgr"}) == np.asarray(image)[:, :, ::-1]).all()


def test_nothing_configured_is_what_it_always_was() -> None:
    image = photo(6, 33, 21)
    squeezed = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))
    found = inference.ImageInput(floats(), "NHWC", Preprocessing.of({})).fill(image)[0]
    assert (found == (np.arange(256) / 255).astype(np.float32)[squeezed]).all()
    explicit = {"range": [0, 1], "channel_order": "rgb", "resize": "squeeze", "interpolation": "bilinear"}
    assert (enter(image, floats(), explicit) == found).all()


@pytest.mark.parametrize(
    ("tensor", "configured", "reason"),
    [
        (Tensor("i", (1, 8, 8, 1), "float32"), "imagenet", r"1 channel\(s\).*name 3"),
        (floats(), {"resize": "crop", "shorter_side": 7}, "shorter_side is 7; it must be at least 8"),
        (floats(8, 300), {"resize": "crop", "shorter_side": 256}, "at least 300"),
        (Tensor("i", (1, 8, 8, 3), "uint8"), {"range": [0, 1]}, r"without a scale.*range: \[0, 255\] or none"),
        (Tensor("i", (1, 8, 8, 3), "int8"), {"mean": 0.5, "std": 0.5}, r"without a scale.*range: \[-128, 127\]"),
    ],
)
def test_an_input_that_does_not_go_with_the_model(tensor: Any, configured: Any, reason: str) -> None:
    with pytest.raises(UnfitModel, match=reason):
        enter(photo(1), tensor, configured)


@pytest.mark.parametrize(("dtype", "low"), [("uint8", 0), ("int8", -128)])
def test_pixels_as_they_are_may_be_said(dtype: str, low: int) -> None:
    found = enter(photo(1, 8, 8), Tensor("i", (1, 8, 8, 3), dtype), {"range": [low, low + 255]})
    assert (found.astype(int) - low == np.asarray(photo(1, 8, 8))).all()


@pytest.mark.parametrize("size", [(4_000_000, 1), (1, 4_000_000), (200_000, 3)])
@pytest.mark.parametrize("interpolation", FILTERS)
def test_a_line_of_pixels_takes_no_more_memory_than_it_has(size: tuple[int, int], interpolation: str) -> None:
    """Scaled to a shorter side of 256 before it is cut, it would take gigabytes."""
    image = Image.new("RGB", size, (10, 20, 30))
    found = enter(image, floats(224, 224), {"range": [0, 255], "resize": "crop", "shorter_side": 256,
                                            "interpolation": interpolation})  # fmt: skip
    assert (found == [10, 20, 30]).all()


def test_a_long_image_is_cut_where_it_would_be_if_scaled_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.repeat(np.linspace(0, 255, 30_000).astype(np.uint8)[None, :, None], 3, axis=2)
    image = Image.fromarray(np.repeat(ramp, 20, axis=0))
    given = {
        "range": [0, 255], "resize": "crop", "shorter_side": 64, "channel_order": "rgb", "interpolation": "bilinear"
    }  # fmt: skip
    monkeypatch.setattr(preprocessing, "_MOST_PIXELS", 64 * 1000)
    assert np.abs(enter(image, floats(48, 48), given) - naive(image, given, 48, 48)).max() <= 1
