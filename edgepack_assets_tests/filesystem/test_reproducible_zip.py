"""Zips: equal content gives equal bytes, and what must not be extracted is refused."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.errors import EdgepackError, PackageError
from edgepack_assets.filesystem import reproducible_zip
from edgepack_assets.filesystem.reproducible_zip import (
    Content,
    Inner,
    Member,
    checked_names,
    opened_inside,
    opened_zip,
    write_zip,
)
from edgepack_assets_tests.crashes import full_disk

FILES = {"b/2.txt": b"two", "a.txt": b"one", "b/": b"", "ä.bin": bytes(range(256))}
DIGEST = "824c492db8e5fec5023e5f4da46789420b7b81fcb77fe2494b363a6eed4d32cd"


def write(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module warns of names that stand twice
        with zipfile.ZipFile(path, "w", compression) as archive:
            for entry, data in entries:
                archive.writestr(entry, data)
    return path


def entry(name: str, mode: int = 0o100644, system: int = 3) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = system, mode << 16
    return info


def names_of(path: Path) -> list[str]:
    with opened_zip(path, "it") as archive:
        return checked_names(archive, "it")


# Writing -----------------------------------------------------------------------------------------------


def test_equal_content_gives_equal_bytes_from_memory_files_and_zips(tmp_path: Path) -> None:
    write_zip(tmp_path / "first.zip", FILES)
    files: dict[str, Content] = {}
    with zipfile.ZipFile(tmp_path / "first.zip") as first:
        for number, (name, data) in enumerate(reversed(FILES.items())):
            path = tmp_path / str(number)
            path.write_bytes(data)
            path.chmod(0o600 if number % 2 else 0o777)
            os.utime(path, (number, number))
            files[name] = b"" if name.endswith("/") else path
        write_zip(tmp_path / "second.zip", files)
        write_zip(tmp_path / "third.zip", {name: Member(first, name) for name in FILES})
    first_bytes = (tmp_path / "first.zip").read_bytes()
    assert (tmp_path / "second.zip").read_bytes() == first_bytes
    assert (tmp_path / "third.zip").read_bytes() == first_bytes
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(FILES)
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert not any(info.extra or info.comment for info in archive.infolist())


@pytest.mark.parametrize("limit", [None, 100])
def test_a_zip_inside_has_the_bytes_of_a_zip_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    """Also where sizes need 64 bits, which begins at 2 GiB."""
    if limit is not None:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
        monkeypatch.setattr(reproducible_zip, "_LARGEST_PLAIN", limit)
    write_zip(tmp_path / "source.zip", FILES)
    (tmp_path / "file").write_bytes(b"x" * 300)
    with zipfile.ZipFile(tmp_path / "source.zip") as source:
        inner = {**{name: Member(source, name) for name in FILES}, "file": tmp_path / "file", "bytes": b"y" * 200}
        write_zip(tmp_path / "inner.zip", inner)
        write_zip(tmp_path / "copied.zip", {"a": b"", "inner.zip": tmp_path / "inner.zip", "z": b"z"})
        write_zip(tmp_path / "in_place.zip", {"a": b"", "inner.zip": Inner(inner), "z": b"z"})
        assert Inner(inner).size == (tmp_path / "inner.zip").stat().st_size
    assert (tmp_path / "in_place.zip").read_bytes() == (tmp_path / "copied.zip").read_bytes()


def test_a_file_that_changes_while_it_is_packed_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"before")
    checksum = reproducible_zip._checksum

    def then_change(content: Any) -> int:
        found = checksum(content)
        file.write_bytes(b"behind")
        return found

    monkeypatch.setattr(reproducible_zip, "_checksum", then_change)
    with pytest.raises(PackageError, match="file: was changed while it was packed"):
        write_zip(tmp_path / "out.zip", {"inner.zip": Inner({"file": file})})
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize(
    ("variables", "umask"), [({"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "1"}, 0o077), ({"TZ": "UTC"}, 0o000)]
)
def test_bytes_depend_on_nothing_but_content(tmp_path: Path, variables: dict[str, str], umask: int) -> None:
    """Not on clock, zone, umask, hash seed or Python version: the digest is written down here."""
    code = (
        f"import os; os.umask({umask}); from pathlib import Path; "
        f"from edgepack_assets.filesystem.reproducible_zip import write_zip; write_zip(Path('out.zip'), {FILES!r})"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **variables}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert hashlib.sha256((tmp_path / "out.zip").read_bytes()).hexdigest() == DIGEST


@pytest.mark.parametrize("room", [0, 10, 5_000])
def test_a_full_disk_is_told_and_leaves_no_half_zip(tmp_path: Path, room: int) -> None:
    target = tmp_path / "out.zip"
    with full_disk(room), pytest.raises(EdgepackError, match=r"out\.zip: cannot be written: File too large"):
        write_zip(target, {"a": bytes(20_000)})
    assert not target.exists()


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgepackError, match=r"out\.zip: cannot be written: No such file .*gone"):
        write_zip(tmp_path / "out.zip", {"a": tmp_path / "gone"})
    assert not (tmp_path / "out.zip").exists()


# Reading -----------------------------------------------------------------------------------------------


def test_names_of_files_are_told_in_order(tmp_path: Path) -> None:
    write_zip(tmp_path / "good.zip", FILES)
    assert names_of(tmp_path / "good.zip") == ["a.txt", "b/2.txt", "ä.bin"]


def no_zip(path: Path) -> Path:
    path.write_bytes(b"PK nonsense")
    return path


def encrypted(path: Path) -> Path:
    write(path, ("a", b"data"))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    return path


ZEROS = bytes(2 << 20)
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "absolute": (lambda p: write(p, (entry("/etc/passwd"), b"")), "outside its folder"),
    "parent": (lambda p: write(p, (entry("a/../../b"), b"")), "outside its folder"),
    "parent folder": (lambda p: write(p, (entry("../b/", 0o40755), b"")), "outside its folder"),
    "backslash": (lambda p: write(p, (entry("..\\b"), b"")), "outside its folder"),
    "dot": (lambda p: write(p, (entry("./a"), b"")), "outside its folder, or elsewhere"),
    "empty part": (lambda p: write(p, (entry("a//b"), b"")), "elsewhere"),
    "link": (lambda p: write(p, (entry("a", stat.S_IFLNK | 0o777), b"/etc/passwd")), "'a' is a link or a device"),
    "link as a folder": (lambda p: write(p, (entry("a/", stat.S_IFLNK | 0o777), b"")), "is a link or a device"),
    "pipe": (lambda p: write(p, (entry("a", stat.S_IFIFO | 0o644), b"")), "is a link or a device"),
    "twice": (lambda p: write(p, ("a", b"1"), ("b", b""), ("a", b"2")), "'a' occurs twice"),
    "file and folder": (lambda p: write(p, ("a", b"1"), ("a/b", b"2")), "'a' is a file and a folder"),
    "expansion": (lambda p: write(p, ("a", ZEROS), compression=zipfile.ZIP_DEFLATED), "'a' expands to 2097152 bytes"),
    "many small expansions": (
        lambda p: write(p, *((str(n), bytes(900_000)) for n in range(4)), compression=zipfile.ZIP_DEFLATED),
        "it expands to 3600000 bytes",
    ),
    "bzip2": (lambda p: write(p, ("a", b""), compression=zipfile.ZIP_BZIP2), "packed in a way"),
    "encrypted": (encrypted, "'a' is encrypted"),
    "no zip": (no_zip, "it: is not a zip file that can be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_zip_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make, told = HOSTILE[name]
    path = make(tmp_path / "hostile.zip")
    with pytest.raises(PackageError, match=r"^it") as refusal:
        names_of(path)
    assert told in str(refusal.value)


def test_damaged_bytes_are_refused_on_reading(tmp_path: Path) -> None:
    write_zip(tmp_path / "good.zip", {"a": b"precious"})
    data = (tmp_path / "good.zip").read_bytes().replace(b"precious", b"previous", 1)
    with pytest.raises(PackageError, match="Bad CRC"), opened_zip(io.BytesIO(data), "it") as archive:
        archive.read("a")


# Layout ------------------------------------------------------------------------------------------------


def central(data: bytearray, number: int) -> int:
    """Where the directory's entry of that number begins."""
    at = -1
    for _ in range(number + 1):
        at = data.index(b"PK\x01\x02", at + 1)
    return at


def two(tmp_path: Path, compression: int = zipfile.ZIP_STORED) -> bytearray:
    return bytearray(
        write(tmp_path / "two.zip", ("a.txt", b"x" * 100), ("b.txt", b"y" * 100), compression=compression).read_bytes()
    )


def same_bytes(data: bytearray) -> None:
    """Both entries of the directory name the first one's bytes."""
    struct.pack_into("<L", data, central(data, 1) + 42, 0)


def same_bytes_and_name(data: bytearray) -> None:
    same_bytes(data)
    at = central(data, 1)
    data[at + 46 : at + 51] = b"a.txt"
    data[at + 16 : at + 28] = data[central(data, 0) + 16 : central(data, 0) + 28]


def quoted(data: bytearray) -> None:
    """The first entry reaches over the second one's header."""
    for at, where in ((0, 18), (central(data, 0), 20)):
        struct.pack_into("<2L", data, at + where, 150, 150)


def reaches_into_the_directory(data: bytearray) -> None:
    second = data.index(b"PK\x03\x04", 4)
    for at, where in ((second, 18), (central(data, 1), 20)):
        struct.pack_into("<2L", data, at + where, 150, 150)


def header_says(offset: int, value: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[offset : offset + len(value)] = value

    return change


LAYOUTS: dict[str, tuple[Callable[[bytearray], None], str]] = {
    "same bytes": (same_bytes, "overlap"),
    "same bytes and name": (same_bytes_and_name, "'a.txt' occurs twice"),
    "quoted": (quoted, "'a.txt' and 'b.txt' overlap"),
    "directory": (reaches_into_the_directory, "'b.txt' overlaps the directory"),
    "another name": (header_says(30, b"c.txt"), "another name in its own header"),
    "encrypted": (header_says(6, b"\x01"), "differs from its own header"),
    "another method": (header_says(8, b"\x08"), "differs from its own header"),
    "another checksum": (header_says(14, b"\0\0\0\0"), "differs from its own header"),
    "another packed size": (header_says(18, b"\x01"), "differs from its own header"),
    "another size": (header_says(22, b"\x01"), "differs from its own header"),
    "no header": (header_says(0, b"XX"), "no header of its own"),
    "sizes of a field that is not there": (header_says(18, b"\xff" * 8), "differs from its own header"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_zip_that_two_readers_take_differently_is_refused(tmp_path: Path, name: str) -> None:
    change, told = LAYOUTS[name]
    data = two(tmp_path)
    change(data)
    for file in (io.BytesIO(data), tmp_path / "changed.zip"):
        (tmp_path / "changed.zip").write_bytes(data)
        with pytest.raises(PackageError, match=r"^it: is not a zip") as refusal, opened_zip(file, "it"):
            pass
        assert told in str(refusal.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_zip_in_a_zip_is_looked_at_as_well(tmp_path: Path, name: str) -> None:
    data = two(tmp_path)
    LAYOUTS[name][0](data)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        outer = write(tmp_path / "outer.zip", ("inner.zip", bytes(data)), compression=compression)
        with (
            opened_zip(outer, "it") as archive,
            pytest.raises(PackageError, match=r"^inner: is not a zip"),
            opened_inside(archive, "inner.zip", "inner"),
        ):
            pass


def streamed(path: Path) -> None:
    """As a writer that cannot go back: sizes follow the bytes."""

    class Pipe(io.RawIOBase):
        def __init__(self, file: Any) -> None:
            self._file = file

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            return int(self._file.write(data))

    with path.open("wb") as file, zipfile.ZipFile(Pipe(file), "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        archive.writestr("ä.txt", b"x" * 1000)
        archive.writestr("b.txt", b"y" * 1000)


def large_fields(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("ä.txt", "b.txt"):
            with archive.open(name, "w", force_zip64=True) as stream:
                stream.write(b"x" * 1000)


def with_text_around(path: Path) -> None:
    write(path, ("ä.txt", b"x" * 1000), ("b.txt", b"y"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK\x01\x02 a comment"
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())


def empty(path: Path) -> None:
    write(path)


@pytest.mark.parametrize("make", [streamed, large_fields, with_text_around, empty])
def test_what_other_writers_make_is_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "other.zip")
    expected = [] if make is empty else ["ä.txt", "b.txt"]
    assert names_of(tmp_path / "other.zip") == expected


def test_a_bomb_of_overlapping_entries_is_refused_at_once(tmp_path: Path) -> None:
    """Every entry of the directory names the same kernel of bytes: 65,000 of them from one."""
    data = bytes(write(tmp_path / "one.zip", ("0", bytes(1 << 20)), compression=zipfile.ZIP_DEFLATED).read_bytes())
    start = data.index(b"PK\x01\x02")
    record, tail = bytearray(data[start : data.index(b"PK\x05\x06")]), bytearray(data[data.index(b"PK\x05\x06") :])
    count = 60_000
    struct.pack_into("<2H2L", tail, 8, count, count, count * len(record), start)
    (tmp_path / "bomb.zip").write_bytes(data[:start] + bytes(record) * count + tail)
    with pytest.raises(PackageError, match="occurs twice"):
        names_of(tmp_path / "bomb.zip")


@pytest.mark.parametrize("value", [0, 9, 128, 255])
def test_a_damaged_byte_is_refused_or_harmless(value: int) -> None:
    """Whatever zipfile raises for it: the error is one for the user."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a/b.txt", b"abc" * 30, zipfile.ZIP_DEFLATED)
        archive.writestr("ü.txt", b"x")
    data, refused = made.getvalue(), 0
    for at in range(len(data)):
        damaged = data[:at] + bytes([value]) + data[at + 1 :]
        try:
            with opened_zip(io.BytesIO(damaged), "it") as archive:
                for name in archive.namelist():
                    archive.read(name)
        except PackageError as error:
            refused += 1
            assert str(error).startswith("it: is not a zip file that can be read")
    assert refused > 50
