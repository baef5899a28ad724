"""Whether a model's files are whole, as far as their outer form tells: what was cut short while it was copied, or is
another file than its name says. Asked before a model is registered.

Nothing is loaded and nothing is built from what a file says; lengths and places are compared with its size. What is
damaged further inside is found in the sandbox.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from edgepack_assets.errors import PackageError
from edgepack_assets.filesystem.atomic_files import disk_errors, is_leftover, is_lfs_pointer
from edgepack_assets.filesystem.reproducible_zip import opened_zip
from edgepack_assets.model_types.model_folder.saved_versions import is_lz4, unpacked
from edgepack_assets.registry.base import files_of

_AGAIN = "was it copied whole? Save or copy it again"
_CHUNK = 1 << 20
_MOST_UNPACKED = 4 << 30
"""Bytes that are unpacked to see how a compressed file ends; of a larger one nothing is said."""
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_USER_BLOCKS = (0, *(512 << power for power in range(16)))
_TFLITE = b"TFL3"
_OPERATOR_CODES, _SUBGRAPHS, _BUFFERS = 1, 2, 4
_TENSORS, _OPERATORS = 0, 3
_BUFFER_DATA, _BUFFER_OFFSET, _BUFFER_SIZE = 0, 1, 2
_INDEX_END = bytes.fromhex("57fb808b247547db")
"""The last bytes of variables.index, which is a table of LevelDB."""
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")


class _DamagedError(Exception):
    """The text says what is wrong with the file."""


def why_damaged(model: Path) -> str | None:
    """What is wrong with the first file, of a registered file or folder, that is not whole. None if none is found.

    Raises EdgepackError if a file cannot be read."""
    for name, file in files_of(model):
        check = _CHECKS.get(file.suffix.lower()) or _CHECKS_BY_NAME.get(file.name)
        if check is None or is_leftover(Path(name)) or is_lfs_pointer(file):
            continue  # of a pointer to Git LFS, whoever reads the model says what to do
        with disk_errors(file, "read"):
            try:
                if not file.stat().st_size:
                    raise _DamagedError("is empty")
                check(file)
            except _DamagedError as error:
                return f"{name if model.is_dir() else model.name}: {error}; {_AGAIN}"
    return None


def _zip(file: Path) -> None:
    try:
        with opened_zip(file, "it") as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_UNPACKED:
                return
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    while stream.read(_CHUNK):
                        pass
    except (PackageError, RuntimeError) as error:  # RuntimeError: of an entry with a password
        raise _DamagedError(str(error).removeprefix("it: ")) from None


def _hdf5(file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        for start in _HDF5_USER_BLOCKS:
            stream.seek(start)
            if stream.read(8) == _HDF5:
                break
        else:
            raise _DamagedError("is no HDF5 file: it does not begin as one")
        block = stream.read(88)
    version = block[0] if block else 0
    width, before = (block[5:6], {0: 16, 1: 20}.get(version)) if version < 2 else (block[1:2], 4)
    if before is None or (width and width[0] not in (2, 4, 8)):
        return  # a form that is not known here
    end = before + 3 * width[0] if width else len(block) + 1
    if end > len(block):
        raise _DamagedError("is cut short: it ends within its header")
    stored = int.from_bytes(block[end - width[0] : end], "little")
    if stored > size:
        raise _DamagedError(f"is cut short: of {stored} bytes it has {size}")


def _pickle(file: Path) -> None:
    if is_lz4(file):
        return
    end, count = b"", 0
    with file.open("rb") as stream:
        try:
            for chunk in unpacked(stream, whole=True):
                end, count = (end + chunk)[-64:], count + len(chunk)
                if count > _MOST_UNPACKED:
                    return
        except EOFError:
            raise _DamagedError("is compressed and cut short, or damaged") from None
    if not end.rstrip(b"\0\r\n ").endswith(b"."):
        raise _DamagedError("is no whole pickle: it does not end as one does")


def _tflite(file: Path) -> None:
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[4:8] != _TFLITE:
            raise _DamagedError("is no TensorFlow Lite file: it does not begin as one")
        try:
            _check_tables(data)
        except struct.error:
            raise _DamagedError(f"is cut short: it names places behind its end, byte {len(data)}") from None


def _check_tables(data: Any) -> None:
    """Follow a FlatBuffer from table to table. Raises struct.error where one is not within it."""
    model = _place(data, 0)
    for _ in _tables(data, model, _OPERATOR_CODES):
        pass
    for graph in _tables(data, model, _SUBGRAPHS):
        for number in (_TENSORS, _OPERATORS):
            for _ in _tables(data, graph, number):
                pass
    for buffer in _tables(data, model, _BUFFERS):
        if (at := _field(data, buffer, _BUFFER_DATA)) is not None:
            start = _place(data, at)
            _within(data, start + 4 + _read(data, "<I", start))
        offset, size = (_field(data, buffer, number) for number in (_BUFFER_OFFSET, _BUFFER_SIZE))
        if offset is not None and size is not None and _read(data, "<Q", offset) > 1:  # data behind the FlatBuffer
            _within(data, _read(data, "<Q", offset) + _read(data, "<Q", size))


def _tables(data: Any, table: int, number: int) -> Iterator[int]:
    """Where the tables lie that a field lists."""
    at = _field(data, table, number)
    if at is None:
        return
    start = _place(data, at)
    count = _read(data, "<I", start)
    _within(data, start + 4 + 4 * count)
    for index in range(count):
        below = _place(data, start + 4 + 4 * index)
        _field(data, below, 0)
        yield below


def _field(data: Any, table: int, number: int) -> int | None:
    """Where a table's field lies; None if it has none."""
    fields = table - _read(data, "<i", table)
    size, length = _read(data, "<H", fields), _read(data, "<H", fields + 2)
    _within(data, fields + size)
    _within(data, table + length)
    at = _read(data, "<H", fields + 4 + 2 * number) if 4 + 2 * number < size else 0
    return table + at if at else None


def _place(data: Any, at: int) -> int:
    return at + _read(data, "<I", at)


def _read(data: Any, form: str, at: int) -> int:
    if at < 0:
        raise struct.error
    value: int = struct.unpack_from(form, data, at)[0]
    return value


def _within(data: Any, end: int) -> None:
    if end > len(data):
        raise struct.error


def _saved_model(file: Path) -> None:
    with file.open("rb") as stream:
        while tag := stream.read(1):
            if tag[0] & 7 == 0:
                _varint(stream)
            elif tag[0] & 7 == 2:
                stream.seek(_varint(stream), os.SEEK_CUR)
            else:
                raise _DamagedError("is no SavedModel: it does not begin as one")
        if stream.tell() > file.stat().st_size:
            raise _DamagedError(f"is cut short: of {stream.tell()} bytes it has {file.stat().st_size}")
    index = file.parent / "variables/variables.index"
    if not index.is_file():
        return
    with index.open("rb") as stream:
        stream.seek(max(0, index.stat().st_size - len(_INDEX_END)))
        if stream.read() != _INDEX_END:
            raise _DamagedError("its variables/variables.index is cut short")
    parts = {found[0]: int(found[2]) for each in index.parent.iterdir() if (found := _SHARD.fullmatch(each.name))}
    wanted = max(parts.values(), default=1)
    for number in range(wanted):
        name = f"variables.data-{number:05}-of-{wanted:05}"
        if name not in parts:
            raise _DamagedError(f"its variables/{name} is missing")


def _varint(stream: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _DamagedError("is cut short, or no SavedModel")


_CHECKS: Mapping[str, Callable[[Path], None]] = {
    ".keras": _zip,
    ".skops": _zip,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".tflite": _tflite,
    ".pkl": _pickle,
    ".pickle": _pickle,
    ".joblib": _pickle,
}
_CHECKS_BY_NAME: Mapping[str, Callable[[Path], None]] = {"saved_model.pb": _saved_model}
