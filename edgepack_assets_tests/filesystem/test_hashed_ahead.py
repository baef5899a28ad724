"""Files that are hashed ahead: a digest is that of the file as it is, or there is none."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.filesystem import hashed_ahead
from edgepack_assets.filesystem.hashed_ahead import digest_of, start_hashing


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashed_ahead, "SMALLEST", 4)
    monkeypatch.setattr(hashed_ahead, "_hashed", {})


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_digest_is_given_once_and_for_second_names_too(tmp_path: Path) -> None:
    file = written(tmp_path / "a", "bytes")
    assert digest_of(file) is None
    start_hashing(file)
    os.link(file, tmp_path / "b")
    (tmp_path / "b").chmod(0o444)
    file.unlink()
    assert digest_of(tmp_path / "b") == digest("bytes")
    assert digest_of(tmp_path / "b") is None


def test_of_a_file_that_was_written_to_since_there_is_none(tmp_path: Path) -> None:
    for change in ("other", "longer text"):
        file = written(tmp_path / "a", "bytes")
        os.utime(file, ns=(0, 0))
        start_hashing(file)
        file.write_text(change)
        assert digest_of(file) is None


def test_of_a_file_that_is_written_to_while_it_is_hashed_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, go_on, digested = written(tmp_path / "a", "bytes"), threading.Event(), hashlib.file_digest
    os.utime(file, ns=(0, 0))

    def slowly(stream: Any, name: str) -> Any:
        found = digested(stream, name)
        assert go_on.wait(60)
        return found

    monkeypatch.setattr(hashlib, "file_digest", slowly)
    start_hashing(file)
    file.write_text("other")
    go_on.set()
    assert digest_of(file) is None


def test_what_cannot_be_read_is_left_to_who_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_hashing(tmp_path / "missing")
    assert digest_of(tmp_path / "missing") is None
    file = written(tmp_path / "a", "bytes")

    def broken(_: Any, __: str) -> Any:
        raise OSError(5, "input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", broken)
        start_hashing(file)
        assert digest_of(file) is None
    start_hashing(written(tmp_path / "small", "abc"))
    assert digest_of(tmp_path / "small") is None


def test_few_are_kept(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{number}", f"text {number}") for number in range(5)]
    for file in files:
        start_hashing(file)
    assert [digest_of(file) for file in files] == [None] * 3 + [digest("text 3"), digest("text 4")]
