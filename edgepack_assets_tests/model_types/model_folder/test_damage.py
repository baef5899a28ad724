"""A model file that is cut short is found without loading it, and one that is whole is not refused."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack_assets.model_types.model_folder.damage import why_damaged

WEIGHTS = b"".join(hashlib.sha256(bytes([number, 1])).digest() for number in range(256)) + bytes(range(256)) * 4


def archive(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("metadata.json", "{}")
        made.writestr("model.weights.h5", WEIGHTS)


def hdf5(file: Path, version: int = 0) -> None:
    size = 4_000
    if version < 2:
        head = bytes([version, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0) + bytes(4 * version)
    else:
        head = bytes([version, 8, 8, 0])
    content = b"\x89HDF\r\n\x1a\n" + head + struct.pack("<QQQQ", 0, 2**64 - 1, size, 2**64 - 1)
    file.write_bytes(content.ljust(size, b"\1"))


def pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps({"weights": WEIGHTS}))


def packed(pack: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(pack(pickle.dumps({"weights": WEIGHTS})))  # type: ignore[return-value]


def tflite(file: Path) -> None:
    """The model's table, which lists one buffer, and then that buffer's data."""
    vtable = struct.pack("<HH5H", 14, 8, 0, 0, 0, 0, 4)
    model = 8 + 16
    body = struct.pack("<I4s", model, b"TFL3") + vtable.ljust(16, b"\0")
    body += struct.pack("<iI", 16, 4) + struct.pack("<II", 1, 12)  # the table; the list of one, which is 12 further
    body += struct.pack("<HHHH", 6, 8, 4, 0)  # the buffer's fields
    body += struct.pack("<iI", 8, 4) + struct.pack("<I", len(WEIGHTS)) + WEIGHTS
    file.write_bytes(body)


def saved_model(file: Path) -> None:
    file.write_bytes(b"\x08\x01\x12\x80\x48" + WEIGHTS)


SOUND: dict[str, Callable[[Path], None]] = {
    "m.keras": archive,
    "m.skops": archive,
    "m.h5": hdf5,
    "second.h5": lambda file: hdf5(file, 1),
    "newer.hdf5": lambda file: hdf5(file, 3),
    "m.pkl": pickled,
    "m.joblib": packed(zlib.compress),
    "bz2.joblib": packed(bz2.compress),
    "xz.joblib": packed(lzma.compress),
    "m.tflite": tflite,
    "saved_model.pb": saved_model,
}


@pytest.mark.parametrize("name", SOUND)
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    SOUND[name](file)
    content = file.read_bytes()
    assert why_damaged(file) is None
    assert why_damaged(tmp_path) is None
    for length in (0, 1, 3, 9, 30, len(content) // 3, len(content) // 2, len(content) - 300, len(content) - 1):
        file.write_bytes(content[:length])
        for registered in (file, tmp_path):
            reason = why_damaged(registered)
            assert reason is not None, length
            assert reason.startswith(f"{name}: ")
            assert "was it copied whole?" in reason


@pytest.mark.parametrize("name", [name for name in SOUND if not name.endswith((".pkl", ".pb"))])
def test_another_file_under_this_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<html>Not found</html>")
    assert why_damaged(tmp_path / name) is not None


def test_a_zip_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.keras"
    archive(file)
    content = bytearray(file.read_bytes())
    content[5_000] ^= 1
    file.write_bytes(content)
    reason = why_damaged(file)
    assert reason is not None
    assert "Bad CRC-32 for file 'model.weights.h5'" in reason


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("variables.data-00001-of-00002", "variables.data-00001-of-00002 is missing"),
        ("variables.index", "variables/variables.index is cut short"),
        (None, None),
    ],
)
def test_the_weights_of_a_saved_model_are_all_there(tmp_path: Path, defect: str | None, message: str | None) -> None:
    saved_model(tmp_path / "saved_model.pb")
    folder = tmp_path / "variables"
    folder.mkdir()
    (folder / "variables.index").write_bytes(bytes(40) + bytes.fromhex("57fb808b247547db"))
    for number in range(2):
        (folder / f"variables.data-0000{number}-of-00002").write_bytes(b"1")
    if defect == "variables.index":
        (folder / defect).write_bytes(bytes(40))
    elif defect is not None:
        (folder / defect).unlink()
    reason = why_damaged(tmp_path)
    assert reason is None if message is None else reason is not None and message in reason


def test_a_pickle_with_something_behind_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps([1]) + b"\n\0\0")
    assert why_damaged(tmp_path) is None
