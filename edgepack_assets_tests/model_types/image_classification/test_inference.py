"""The component's pure parts: from a record's text to pixels, from pixels to what a model takes, from its
scores to an answer. No runtime is needed for these."""

from __future__ import annotations

import base64
import io
import json
import sys
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from .helpers import encoded, load_inference, photo

inference = load_inference()
decoding, preprocessing = sys.modules["decoding"], sys.modules["preprocessing"]
NoAnswer, UnfitModel, Tensor = decoding.NoAnswer, inference.UnfitModel, inference.Tensor


def uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def payload(image: Any) -> str:
    return json.dumps({"timestamp": "now", "sensor_id": "s", "image": image})


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "image/jpg", "IMAGE/PNG", "image/png;name=a"])
def test_an_image_is_decoded(kind: str) -> None:
    image = photo(1)
    found = decoding.decode(payload(uri(encoded(image), kind)))
    assert found.mode == "RGB"
    assert (np.asarray(found) == np.asarray(image)).all()


def test_the_scheme_may_be_in_capitals_and_base64_in_lines() -> None:
    text = base64.encodebytes(encoded(photo(1))).decode()
    assert decoding.decode(payload(f"DATA:image/png;BASE64,{text}")).size == (20, 15)


def test_the_content_counts_not_the_declared_type() -> None:
    assert decoding.decode(payload(uri(encoded(photo(1), "jpeg"), "image/png"))).size == (20, 15)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (None, "it has no vision_payload"),
        (5, "not text but int"),
        (b"{}", "not text but bytes"),
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ("[]", "JSON without an image"),
        ("{}", "JSON without an image"),
        ('"image"', "JSON without an image"),
        (payload(None), "not text but NoneType"),
        (payload(["x"]), "not text but list"),
        (payload(""), "no data URI"),
        (payload("http://user:secret@camera/a.png"), "begins with 'http'"),
        (payload("file:///etc/hostname"), "begins with 'file'"),
        (payload("/etc/hostname"), "no data URI"),
        (payload("data:image/gif;base64,R0lG"), "data:image/gif"),
        (payload("data:image/svg+xml;base64,PHN2Zz4="), "data:image/svg"),
        (payload("data:image/png,abc"), "no data URI"),
        (payload("data:text/html;base64,abcd"), "data:text/html"),
        (payload("data:image/png;base64"), "no data URI"),
        (payload("data:image/png;base64,"), "neither PNG nor JPEG"),
        (payload("data:image/png;base64,a*b="), "not valid base64"),
        (payload("data:image/png;base64,é"), "not valid base64"),
        (payload("data:image/png;base64,YWJj"), "neither PNG nor JPEG"),
        (payload(uri(encoded(photo(1), "gif"))), "neither PNG nor JPEG"),
        (payload(uri(encoded(photo(1))[:-300])), "cannot be decoded"),
    ],
)
def test_what_is_no_image_says_why(given: object, reason: str) -> None:
    with pytest.raises(NoAnswer) as caught:
        decoding.decode(given)
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = chunk(b"IHDR", (9000).to_bytes(4, "big") + (9000).to_bytes(4, "big") + bytes((8, 2, 0, 0, 0)))
    data = chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    with pytest.raises(NoAnswer, match="9000x9000; at most 80000000 pixels"):
        decoding.unpack(b"\x89PNG\r\n\x1a\n" + header + data)


def test_a_payload_beyond_bounds_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PAYLOAD_CHARACTERS", 100)
    with pytest.raises(NoAnswer, match="at most 100 are read"):
        decoding.decode("x" * 101)
    monkeypatch.setattr(decoding, "MAX_IMAGE_BYTES", 10)
    with pytest.raises(NoAnswer, match="at most 10 are read"):
        decoding.unpack(bytes(11))


@given(st.binary(max_size=300), st.integers(0, 2000), st.booleans())
def test_damage_of_any_kind_is_no_answer(noise: bytes, position: int, jpeg: bool) -> None:
    content = encoded(photo(1), "jpeg" if jpeg else "png")
    position %= len(content)
    damaged = content[:position] + noise + content[position + len(noise) :]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = decoding.unpack(damaged)
    except NoAnswer:
        return
    assert found.mode == "RGB"


GREY = np.array([[0, 1, 100], [128, 200, 255]], np.uint8)


def _png(image: Image.Image, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return decoding.unpack(encoded(image, **options))


def _rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_grey_in_any_mode_is_grey(mode: str) -> None:
    assert (np.asarray(_png(Image.fromarray(GREY).convert(mode))) == _rgb(GREY)).all()


def test_16_bits_keep_their_range() -> None:
    image = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert image.mode == "I;16"
    assert (np.asarray(_png(image)) == _rgb(GREY)).all()


def test_32_bit_integers_as_older_decoders_give_for_16_bits() -> None:
    found = decoding.to_rgb(Image.fromarray(GREY.astype(np.int32) * 257))
    assert (np.asarray(found) == _rgb(GREY)).all()


def test_black_and_white() -> None:
    found = np.asarray(_png(Image.fromarray(GREY).convert("1", dither=Image.Dither.NONE)))
    assert (found == _rgb(np.where(GREY >= 128, 255, 0).astype(np.uint8))).all()


@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 128, 255])])
def test_a_palette_becomes_its_colours(transparency: Any) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    options = {} if transparency is None else {"transparency": transparency}
    assert np.asarray(_png(image, **options)).reshape(-1).tolist() == [10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_transparency_is_dropped() -> None:
    """As training libraries load RGB: what lies under it is what the model learned from."""
    image = Image.new("RGBA", (2, 1), (10, 200, 30, 0))
    assert np.asarray(_png(image))[0, 0].tolist() == [10, 200, 30]


def test_cmyk_jpeg() -> None:
    image = Image.new("RGB", (16, 16), (200, 40, 90))
    found = np.asarray(decoding.unpack(encoded(image.convert("CMYK"), "jpeg", quality=95))).astype(int)
    assert np.abs(found - [200, 40, 90]).max() < 12


def test_a_rotation_note_is_left_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decoding.unpack(encoded(photo(1), "jpeg", exif=exif)).size == (20, 15)


def _tensor(shape: tuple[int | None, ...], dtype: str = "float32", quantization: Any = None) -> Any:
    return Tensor("image", shape, dtype, quantization)


def _input(*args: Any, default: str = "NHWC") -> Any:
    return inference.ImageInput(_tensor(*args), default)


def test_float_nhwc() -> None:
    image = photo(2, 8, 6)
    found = _input((1, 6, 8, 3)).fill(image)
    assert found.shape == (1, 6, 8, 3) and found.dtype == np.float32
    assert np.allclose(found[0], np.asarray(image) / 255, atol=1e-7)


def test_float_nchw_and_a_free_batch() -> None:
    image = photo(2, 8, 6)
    found = _input((None, 3, 6, 8), default="NCHW").fill(image)
    assert found.shape == (1, 3, 6, 8)
    assert np.allclose(found[0], (np.asarray(image) / 255).transpose(2, 0, 1), atol=1e-7)


def test_grey_models_see_luminance() -> None:
    image = photo(2, 8, 6)
    found = _input((1, 1, 6, 8), "uint8").fill(image)
    assert (found[0, 0] == np.asarray(image.convert("L"))).all()
    grey = decoding.to_rgb(Image.fromarray(GREY))
    assert (_input((1, 2, 3, 1), "uint8").fill(grey)[0, :, :, 0] == GREY).all()


def test_resized_by_pillow_s_bilinear_filter() -> None:
    image = photo(2, 64, 48)
    wanted = np.asarray(image.resize((10, 5), Image.Resampling.BILINEAR))
    assert (_input((1, 5, 10, 3), "uint8").fill(image)[0] == wanted).all()


def test_one_image_leaves_no_trace_in_the_next() -> None:
    source = _input((1, 6, 8, 3), "uint8")
    source.fill(photo(1, 8, 6))
    assert (source.fill(photo(2, 8, 6))[0] == np.asarray(photo(2, 8, 6))).all()


PIXELS = np.arange(256)


@pytest.mark.parametrize(
    ("dtype", "quantization", "wanted"),
    [
        pytest.param("uint8", None, PIXELS, id="uint8 as it is"),
        pytest.param("uint8", (1 / 255, 0), PIXELS, id="[0, 1]"),
        pytest.param("uint8", (0.003921568859368563, 0), PIXELS, id="[0, 1], scale as stored"),
        pytest.param("uint8", (1 / 256, 0), np.minimum(np.rint(PIXELS * 256 / 255), 255), id="[0, 255/256]"),
        pytest.param("uint8", (1 / 128, 128), PIXELS, id="[-1, 1]"),
        pytest.param("uint8", (1 / 127.5, 127), PIXELS, id="[-1, 1] by 127.5"),
        pytest.param("uint8", (1.0, 0), PIXELS, id="[0, 255]"),
        pytest.param("uint8", (0.0186584, 114), PIXELS, id="mean and deviation"),
        pytest.param("int8", None, PIXELS - 128, id="int8 as it is"),
        pytest.param("int8", (1 / 255, -128), PIXELS - 128, id="int8 [0, 1]"),
        pytest.param("int8", (1 / 127.5, -1), PIXELS - 128, id="int8 [-1, 1]"),
        pytest.param("int8", (1.0, -128), PIXELS - 128, id="int8 [0, 255]"),
    ],
)
def test_the_pixel_values_of_quantized_models(dtype: str, quantization: Any, wanted: np.ndarray) -> None:
    found = inference.pixel_levels(_tensor((1, 8, 8, 3), dtype, quantization))
    assert found.dtype == dtype
    assert found.tolist() == wanted.tolist()


def test_a_range_calibrated_below_one_saturates() -> None:
    """The model never saw values above 0.8: they are stored as 0.8, and those below as they are."""
    scale = 0.8 / 255
    found = inference.pixel_levels(_tensor((1, 8, 8, 3), "uint8", (scale, 0))) * scale
    assert np.abs(found - np.minimum(PIXELS / 255, 0.8)).max() <= scale / 2 + 1e-9


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_pixel_values_of_float_models(dtype: str) -> None:
    found = inference.pixel_levels(_tensor((1, 8, 8, 3), dtype))
    assert found.dtype == dtype
    assert np.abs(found.astype(float) - PIXELS / 255).max() < 1e-3
    assert found[0] == 0 and found[255] == 1


@pytest.mark.parametrize(
    ("shape", "default", "layout"),
    [
        ((1, 8, 8, 3), "NCHW", "NHWC"),
        ((1, 8, 8, 1), "NCHW", "NHWC"),
        ((1, 3, 8, 8), "NHWC", "NCHW"),
        ((1, 1, 8, 8), "NHWC", "NCHW"),
        ((1, 3, 8, 3), "NHWC", "NHWC"),
        ((1, 3, 8, 3), "NCHW", "NCHW"),
    ],
)
def test_the_layout(shape: tuple[int, ...], default: str, layout: str) -> None:
    assert _input(shape, default=default).layout == layout


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        ((1, None, None, 3), "float32", "height and width are not fixed"),
        ((1, 3, None, 8), "float32", "height and width are not fixed"),
        ((8, 8, 8, 3), "float32", "8 images at a time"),
        ((1, 8, 8, 4), "float32", "neither the second nor the last number"),
        ((None, None, 8, 8), "float32", "neither the second nor the last number"),
        ((1, 64), "float32", "not batch, height, width and channels"),
        ((), "float32", "scalar"),
        ((1, 8, 8, 3), "int64", "the type int64"),
        ((1, 8, 8, 3), "string", "the type string"),
        ((1, 8, 8, 3), "int16", "the type int16"),
    ],
)
def test_an_input_that_is_no_image(shape: tuple[int | None, ...], dtype: str, reason: str) -> None:
    with pytest.raises(UnfitModel) as caught:
        _input(shape, dtype)
    assert reason in str(caught.value)
    assert isinstance(caught.value, ValueError)


def _scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("probed", "kind"),
    [
        ([_scores(0.2, 0.8), _scores(1, 0)], "probabilities"),
        ([_scores(0.9, 0.9, 0.1)], "probabilities"),  # a sigmoid for each class
        ([_scores(*[0.0] * 1000, 0.5)], "probabilities"),  # quantized, the small ones rounded away
        ([_scores(0.3)], "probabilities"),
        ([_scores(0.3, 0.7), _scores(0.4, 1.7)], "logits"),
        ([_scores(-0.3, 0.7)], "logits"),
        ([_scores(-3)], "logits"),
        ([_scores(float("nan"), 1), _scores(-1, 3)], "logits"),
    ],
)
def test_the_kind_of_scores(probed: list[np.ndarray], kind: str) -> None:
    assert inference.kind_of_scores(probed) == kind


def test_scores_that_are_never_numbers() -> None:
    with pytest.raises(UnfitModel, match="not finite"):
        inference.kind_of_scores([_scores(float("nan"), 1), _scores(float("inf"), 1)])


@pytest.mark.parametrize(
    ("scores", "kind", "label", "probability"),
    [
        ((0.1, 0.7, 0.2), "probabilities", 1, 0.7),
        ((0.1, 0.5, 0.2), "probabilities", 1, 0.5),
        ((1.0, 2.0), "logits", 1, 1 / (1 + np.exp(-1))),
        ((1000.0, -1000.0, 0.0), "logits", 0, 1.0),
        ((5.0, 5.0, 5.0), "logits", 0, 1 / 3),
        ((0.2, 1.7), "probabilities", 1, 1 / (1 + np.exp(-1.5))),  # these cannot be, so they are logits
        ((0.7,), "probabilities", 1, 0.7),
        ((0.2,), "probabilities", 0, 0.8),
        ((0.0,), "logits", 0, 0.5),
        ((2.0,), "logits", 1, 1 / (1 + np.exp(-2))),
        ((-800.0,), "logits", 0, 1.0),
        ((1.0005, 0.0), "probabilities", 0, 1.0),
    ],
)
def test_reading_scores(scores: tuple[float, ...], kind: str, label: int, probability: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = inference.read_scores(_scores(*scores), kind)
    assert found == (label, pytest.approx(probability, abs=1e-6))
    assert type(found[0]) is int and type(found[1]) is float


def test_scores_that_are_no_numbers_are_no_answer() -> None:
    with pytest.raises(NoAnswer, match="not finite"):
        inference.read_scores(_scores(0.1, float("nan")), "probabilities")


class Fake:
    """A model whose quantized scores are given."""

    default_layout = "NHWC"

    def __init__(self, output: Any, scores: np.ndarray) -> None:
        self.input = _tensor((1, 4, 4, 3), "uint8", (1 / 255, 0))
        self.output = output
        self._scores = scores

    def run(self, tensor: np.ndarray) -> np.ndarray:
        return self._scores


def test_quantized_scores_become_real_ones() -> None:
    scores = np.array([[-128, 0, 127 - 60]], np.int8)
    model = Fake(Tensor("scores", (1, 3), "int8", (1 / 256, -128)), scores)
    classifier = inference.Classifier(model)
    assert classifier.scores == "probabilities"
    assert classifier.classify(photo(1)) == (2, pytest.approx(195 / 256))


@pytest.mark.parametrize(
    ("output", "scores", "reason"),
    [
        (Tensor("scores", (1, 3), "uint8"), np.zeros((1, 3), np.uint8), "no scale"),
        (Tensor("scores", (1,), "int64"), np.zeros(1, np.int64), "the type int64 and no scale"),
        (Tensor("scores", (1, 4, 4, 5), "float32"), np.zeros((1, 4, 4, 5), np.float32), "1x4x4x5"),
        (Tensor("scores", (1, 0), "float32"), np.zeros((1, 0), np.float32), "1x0"),
    ],
)
def test_an_output_that_is_no_scores(output: Any, scores: np.ndarray, reason: str) -> None:
    with pytest.raises(UnfitModel) as caught:
        inference.Classifier(Fake(output, scores))
    assert reason in str(caught.value)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 1, 3), (1, 3, 1, 1)])
def test_scores_of_any_shape_with_one_axis(shape: tuple[int, ...]) -> None:
    scores = _scores(0.1, 0.7, 0.2).reshape(shape)
    assert inference.Classifier(Fake(Tensor("s", shape, "float32"), scores)).classify(photo(1))[0] == 1


def test_a_known_kind_of_scores_needs_no_probing() -> None:
    class Costly(Fake):
        def run(self, tensor: np.ndarray) -> np.ndarray:
            raise AssertionError("not at load")

    inference.Classifier(Costly(Tensor("s", (1, 3), "float32"), _scores(1, 2, 3)), "logits")


def test_the_image_file_is_not_kept_open() -> None:
    found = decoding.unpack(encoded(photo(1)))
    buffer = io.BytesIO()
    found.save(buffer, "png")
    assert buffer.getvalue()
