"""What a model's folder gives is bounded: paths stay inside; text and YAML are small, shallow, without aliases."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel

from edgepack_assets.errors import EdgepackError, ModelError, RawDataError, TransientError
from edgepack_assets.model_types.model_folder.bounded_files import (
    MOST_BYTES,
    model_errors,
    path_inside,
    read_text,
    read_yaml,
)


class Anything(BaseModel, extra="allow"):
    pass


@pytest.mark.parametrize(
    "named", ["/etc", "..", "../other", "code/../../other", "/", "code/../code", "a\0b", "x" * 2000]
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, named: str) -> None:
    with pytest.raises(ModelError, match=r"MLmodel: flavors.x.code names .*(outside the model folder|is no path)"):
        path_inside(tmp_path, named, "MLmodel: flavors.x.code")


def test_a_link_anywhere_on_the_way_is_refused(tmp_path: Path) -> None:
    root, other = tmp_path / "model", tmp_path / "other"
    (root / "real").mkdir(parents=True)
    other.mkdir()
    (other / "secret.py").write_text("x")
    (root / "linked").symlink_to(other)
    (root / "real" / "inner").symlink_to(root / "real")
    (root / "gone").symlink_to(root / "nowhere")
    for named in ("linked", "linked/secret.py", "./linked/secret.py", "real/inner", "real/inner/x", "gone"):
        with pytest.raises(ModelError, match="is a link"):
            path_inside(root, named, "MLmodel: code")
    assert path_inside(root, "real/there/is/none", "x") == root / "real/there/is/none"
    assert path_inside(root, "./real", "x") == root / "real"


@hypothesis_settings(max_examples=300)
@given(st.lists(st.sampled_from(["..", ".", "a", "", "/", "link", "b\n", "ü", "\ud800"]), max_size=6).map("/".join))
def test_whatever_is_named_is_inside_or_refused(tmp_path_factory: pytest.TempPathFactory, named: str) -> None:
    root = tmp_path_factory.getbasetemp() / "inside"
    (root / "a").mkdir(parents=True, exist_ok=True)
    if not (root / "link").is_symlink():
        (root / "link").symlink_to("/")
    try:
        found = path_inside(root, named, "MLmodel")
    except ModelError:
        return
    assert found.resolve().is_relative_to(root.resolve())


def test_text_is_read_up_to_a_bound_and_in_the_encodings_that_say_which_they_are(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        path.write_bytes("numpy==1.26.4  # größer".encode(encoding))
        assert read_text(tmp_path, path) == "numpy==1.26.4  # größer"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ModelError, match=r"requirements\.txt: is no UTF-8 text .* at byte 3"):
        read_text(tmp_path, path)
    path.write_bytes(b"#" * MOST_BYTES)
    assert len(read_text(tmp_path, path)) == MOST_BYTES
    path.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(ModelError, match="larger than 1 MiB"):
        read_text(tmp_path, path)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "MLmodel")  # reading it would wait for ever
    (tmp_path / "conda.yaml").symlink_to("/etc/passwd")
    for name in ("MLmodel", "conda.yaml"):
        with pytest.raises(ModelError, match=f"{name}: is not a regular file"):
            read_text(tmp_path, tmp_path / name)


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIASES, "line 1: anchors and aliases"),
        ("a: &x {}\n", "anchors and aliases .* write the value of a out"),
        ("a:\n  - b\n  - c: {d: e}\n    f: &x 1\n", "line 4: anchors and aliases .* write the value of a.1.f out"),
        ("a: {b: c}\nd:\n  <<: *x\n", "line 3: anchors and aliases .* write the value of d.<< out"),
        ("a: [[1, {b: 1}], {c: [d, *x]}]\n", "write the value of a.1.c.1 out"),
        ("&x a: 1\n", "anchors and aliases"),
        ("a: " + "[" * 40 + "]" * 40, "nested more than"),
        ("a:\n" + "".join("  " * n + "- \n" for n in range(1, 60)), "nested more than|not valid YAML"),
        ("a: [" + "1," * 200_000 + "]", "more than 100000 values"),
        ("a: {? [b]: c}\n", "not valid YAML"),
        ("a: 'open", "not valid YAML"),
        ("a: \x07", "not valid YAML"),
        ("--- a\n--- b\n", "not valid YAML"),
        ("- a list", "must be a mapping"),
        ("", "must be a mapping"),
    ],
)
def test_yaml_that_is_too_much_is_refused_before_anything_is_built(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "MLmodel"
    path.write_text(text)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=rf"MLmodel: .*({message})"):
            read_yaml(tmp_path, path, Anything)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_yaml_is_text_whatever_it_looks_like(tmp_path: Path) -> None:
    path = tmp_path / "MLmodel"
    path.write_text("a: 3.10\nb: yes\nc: !!python/object/apply:os.system [touch x]\nd: 2024-01-01\ne:\n")
    document = read_yaml(tmp_path, path, Anything).model_extra
    assert document == {"a": "3.10", "b": "yes", "c": ["touch x"], "d": "2024-01-01", "e": ""}


@pytest.mark.parametrize(
    "error", [TypeError("x"), KeyError("y"), RecursionError("deep"), OSError(errno.ENAMETOOLONG, "z")]
)
def test_an_exception_that_nobody_foresaw_is_the_model_s_failure(error: Exception) -> None:
    with (
        pytest.raises(
            ModelError, match=rf"reading press:3 failed .* {type(error).__name__} at test_bounded_files.py:\d+"
        ),
        model_errors("reading press:3"),
    ):
        raise error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "disk full"), TransientError),
        (OSError(errno.ESTALE, "share gone"), TransientError),
        (ConnectionResetError(), TransientError),
        (RawDataError("x"), RawDataError),
        (MemoryError(), MemoryError),
    ],
)
def test_what_the_machine_says_is_not_the_model_s_failure(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, model_errors("reading press:3"):
        raise error
    assert not isinstance(caught.value, ModelError)
    assert isinstance(caught.value, EdgepackError | MemoryError)
