"""Zip files: written so that equal content gives equal bytes, and read without trusting them.

Everything is stored, not deflated: wheels are compressed already, and no zlib version gets into the bytes.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

from edgepack_assets.errors import PackageError
from edgepack_assets.filesystem.atomic_files import disk_errors

_EPOCH = (1980, 1, 1, 0, 0, 0)
_HEADER, _NAME_LENGTH = 30, 26
"""Bytes of an entry's header before its name and extra field, and where in it the lengths of these stand."""
_UTF8, _SIZES_FOLLOW, _LARGE = 0x800, 8, 0xFFFFFFFF
"""Flags of an entry: its name is UTF-8; its sizes stand behind it. The size that means: see the zip64 field."""
_LARGEST_PLAIN = (1 << 31) - 1
_PIECE = 1 << 20
_MAX_RATIO = 200
_SMALL = 1 << 20
"""Bytes up to which anything may expand as it likes."""
_MAX_BYTES = 40 * 1000**3  # twice the server's hard limit for a package


@dataclass(frozen=True)
class Member:
    """A file inside an open zip, to be written into another one without passing through memory."""

    archive: zipfile.ZipFile
    name: str

    @property
    def size(self) -> int:
        """Its bytes, expanded."""
        return self.archive.getinfo(self.name).file_size

    def read(self) -> bytes:
        """All of it."""
        return self.archive.read(self.name)


@dataclass(frozen=True)
class Inner:
    """A zip inside the zip, of these files. It is written in its place, so its files are copied once."""

    files: Mapping[str, Plain]

    @cached_property
    def size(self) -> int:
        """Its bytes."""
        counted = _Onward(None)
        _write_inner(counted, self.files)
        return counted.tell()


Plain = Path | bytes | Member
Content = Plain | Inner


def write_zip(path: Path, files: Mapping[str, Content]) -> None:
    """Write `files` (name in the zip -> content), sorted by name, without times, users or modes.

    A name that ends in "/" is a folder. Raises EdgepackError (disk full, ...), and then leaves no file."""
    with disk_errors(path):
        try:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for name in sorted(files):
                    _add(archive, name, files[name])
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _add(archive: zipfile.ZipFile, name: str, content: Content) -> None:
    entry = _entry(name)
    if isinstance(content, bytes):
        archive.writestr(entry, content)
        return
    entry.file_size = content.size if isinstance(content, Inner) else _size(content)
    with archive.open(entry, "w") as target:
        if isinstance(content, Inner):
            _write_inner(_Onward(target), content.files)
        else:
            with _opened(content) as source:
                shutil.copyfileobj(source, target, _PIECE)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3
    entry.external_attr = (0o40755 << 16) | 0x10 if name.endswith("/") else 0o100644 << 16
    return entry


def _size(content: Plain) -> int:
    if isinstance(content, bytes):
        return len(content)
    return content.size if isinstance(content, Member) else content.stat().st_size


def _opened(content: Plain) -> IO[bytes]:
    if isinstance(content, bytes):
        return io.BytesIO(content)
    return content.archive.open(content.name) if isinstance(content, Member) else content.open("rb")


class _Onward:
    """A stream that only goes on: zipfile does not try to go back in it. Without a target it counts."""

    def __init__(self, target: IO[bytes] | None) -> None:
        self.target, self._position = target, 0

    def write(self, data: bytes) -> int:
        """Pass it on."""
        if self.target is not None:
            self.target.write(data)
        return self.skip(len(data))

    def skip(self, size: int) -> int:
        """Count bytes that are not at hand."""
        self._position += size
        return size

    def tell(self) -> int:
        """Bytes so far."""
        return self._position

    def flush(self) -> None:
        """Nothing is held back."""


def _write_inner(stream: _Onward, files: Mapping[str, Plain]) -> None:
    """Write a zip, the same bytes as `write_zip`. The checksum of a file stands in front of it, and the stream does not
    go back: so it is known from the zip that the file is in, or found by a first reading."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # type: ignore[call-overload]
        for name in sorted(files):
            content, entry = files[name], _entry(name)
            entry.header_offset = stream.tell()
            entry.file_size = entry.compress_size = _size(content)
            entry.CRC = 0 if stream.target is None else _checksum(content)
            stream.write(entry.FileHeader(entry.file_size * 1.05 > _LARGEST_PLAIN))  # as zipfile decides
            start = stream.tell()
            if stream.target is None:
                stream.skip(entry.file_size)
            else:
                with _opened(content) as source:
                    if (_copy(source, stream), stream.tell() - start) != (entry.CRC, entry.file_size):
                        raise PackageError(f"{name}: was changed while it was packed; try again")
            archive.start_dir = stream.tell()
            archive.filelist.append(entry)
            archive.NameToInfo[name] = entry


def _checksum(content: Plain) -> int:
    if isinstance(content, Member):
        return content.archive.getinfo(content.name).CRC
    with _opened(content) as source:
        return _copy(source, _Onward(None))


def _copy(source: IO[bytes], target: _Onward) -> int:
    """Copy all of it. Returns its checksum."""
    checksum = 0
    while piece := source.read(_PIECE):
        checksum = zlib.crc32(piece, checksum)
        target.write(piece)
    return checksum


_DAMAGED = (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error)
"""What zipfile raises, also while an entry is read: for damage, and for versions and methods that it does not know."""


@contextlib.contextmanager
def opened_inside(archive: zipfile.ZipFile, name: str, subject: str) -> Iterator[zipfile.ZipFile]:
    """A zip that lies in another one, for reading. One that is stored is read in place: zipfile would go through
    all of its bytes for each step back. Raises PackageError as `opened_zip` does."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or archive.fp is None:
        with archive.open(name) as stream, opened_zip(stream, subject) as inside:
            yield inside
        return
    archive.open(name).close()  # which checks the entry's header
    archive.fp.seek(entry.header_offset + _NAME_LENGTH)
    lengths = struct.unpack("<2H", archive.fp.read(4))
    window = _Window(archive.fp, entry.header_offset + _HEADER + sum(lengths), entry.file_size)
    with opened_zip(io.BufferedReader(window, 1 << 20), subject) as inside:
        yield inside


class _Window(io.RawIOBase):
    """A part of a file as a file of its own, for reading."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, within the part or beyond."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read what fits and is left."""
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@contextlib.contextmanager
def opened_zip(file: Path | IO[bytes], subject: str) -> Iterator[zipfile.ZipFile]:
    """An archive for reading; `subject` names it in errors. Raises PackageError if it is no zip, if its bytes are
    damaged, or if two readers could read different files from it (`check_layout`)."""
    try:
        with _archive(file) as archive:
            check_layout(archive)
            yield archive
    except _DAMAGED as error:
        raise PackageError(f"{subject}: is not a zip file that can be read ({error})") from None


def _archive(file: Path | IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except UnicodeDecodeError:  # only here: what lies in an archive may be text that its reader decodes
        raise zipfile.BadZipFile("the name of an entry is not UTF-8, as it says") from None


def check_layout(archive: zipfile.ZipFile) -> None:
    """Check that each entry has its own bytes and one name, the same in both of its headers. Raises zipfile.BadZipFile.

    Entries that share bytes let a small zip expand to petabytes. If a name occurs twice, or headers differ, the server
    may read another file than we do."""
    file = archive.fp
    assert file is not None
    names: set[str] = set()
    end, before = 0, ""
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        if entry.orig_filename in names:
            raise zipfile.BadZipFile(f"the entry {entry.orig_filename!r} occurs twice")
        names.add(entry.orig_filename)
        if entry.header_offset < end:
            raise zipfile.BadZipFile(f"the entries {before!r} and {entry.orig_filename!r} overlap")
        file.seek(entry.header_offset)
        end, before = _end_of(entry, file), entry.orig_filename
        if end > archive.start_dir:
            raise zipfile.BadZipFile(f"the entry {entry.orig_filename!r} overlaps the directory")


def _end_of(entry: zipfile.ZipInfo, file: IO[bytes]) -> int:
    """The earliest end of an entry's bytes. `file` is positioned at the entry's own header, which must agree with the
    directory. Raises zipfile.BadZipFile."""
    header = file.read(_HEADER)
    if len(header) < _HEADER or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"the entry {entry.orig_filename!r} has no header of its own")
    _, flags, method, _, _, crc, packed, size, name_length, extra_length = struct.unpack("<5H3L2H", header[4:])
    name, extra = file.read(name_length), file.read(extra_length)
    if name.decode("utf-8" if entry.flag_bits & _UTF8 else "cp437", "replace") != entry.orig_filename:
        raise zipfile.BadZipFile(f"the entry {entry.orig_filename!r} has another name in its own header")
    encrypted_or_packed = (flags & 1, method) != (entry.flag_bits & 1, entry.compress_type)
    if flags & _SIZES_FOLLOW:  # then the sizes follow the bytes, and the header may hold anything
        differs = encrypted_or_packed
    else:
        size, packed = _large_sizes(size, packed, extra)
        differs = encrypted_or_packed or (crc, packed, size) != (entry.CRC, entry.compress_size, entry.file_size)
    if differs:
        raise zipfile.BadZipFile(f"the entry {entry.orig_filename!r} differs from its own header")
    return int(entry.header_offset + _HEADER + name_length + extra_length + entry.compress_size)


def _large_sizes(size: int, packed: int, extra: bytes) -> tuple[int, int]:
    """The sizes in a header: from its zip64 field, where they are too large for the usual place."""
    if _LARGE not in (size, packed):
        return size, packed
    while len(extra) >= 4:
        kind, length = struct.unpack("<2H", extra[:4])
        if kind == 1:
            large = list(struct.unpack(f"<{min(length, len(extra) - 4) // 8}Q", extra[4 : 4 + length // 8 * 8]))
            size = large.pop(0) if size == _LARGE and large else size
            packed = large.pop(0) if packed == _LARGE and large else packed
            break
        extra = extra[4 + length :]
    return size, packed


def checked_names(archive: zipfile.ZipFile, subject: str) -> list[str]:
    """The names of an archive's files. Raises PackageError for entries that must not be extracted: absolute or parent
    paths, links, names that occur twice, a thousandfold expansion."""
    files: set[str] = set()
    folders: set[str] = set()
    total = packed = 0
    for entry in archive.infolist():
        name = entry.filename
        plain = name[:-1] if entry.is_dir() else name
        path = PurePosixPath(plain)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != plain:
            raise PackageError(f"{subject}: the entry {name!r} would be extracted outside its folder, or elsewhere")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise PackageError(f"{subject}: the entry {name!r} is a link or a device")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise PackageError(
                f"{subject}: the entry {name!r} is encrypted, or packed in a way that servers don't read"
            )
        above = {str(parent) for parent in path.parents}
        folders |= above
        if entry.is_dir():
            folders.add(plain)
        elif plain in files:
            raise PackageError(f"{subject}: the entry {name!r} occurs twice")
        else:
            files.add(plain)
        total, packed = total + entry.file_size, packed + entry.compress_size
        _refuse_expansion(f"{subject}: the entry {name!r}", entry.file_size, entry.compress_size)
    both = files & folders
    if both:
        raise PackageError(f"{subject}: the entry {min(both)!r} is a file and a folder")
    _refuse_expansion(subject, total, packed)
    if total > _MAX_BYTES:
        raise PackageError(f"{subject}: holds {total} bytes, more than the server takes")
    return [entry.filename for entry in archive.infolist() if not entry.is_dir()]


def _refuse_expansion(subject: str, size: int, packed: int) -> None:
    if size > _SMALL and size > _MAX_RATIO * max(packed, 1):
        raise PackageError(f"{subject} expands to {size} bytes from {packed}")
