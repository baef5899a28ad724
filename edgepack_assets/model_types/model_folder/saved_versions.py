"""The versions that a model says it was saved with, compared with those in its component's lock.

MLmodel's are read in mlflow_files.py. Here are those that model files themselves hold, found in their bytes: nothing
is unpickled.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from packaging.version import InvalidVersion, Version

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.environments.lock import Lock
from edgepack_assets.filesystem.atomic_files import disk_errors, is_transient
from edgepack_assets.model_types.model_folder.saved_environment import edge_python

_LONGEST = 100
_MOST_BYTES = 2**28
_CHUNK, _OVERLAP = 2**22, 2**10
_MOST_MEMORY = 2**27
"""What unpacking .xz may take: its files say themselves how much that is."""
_SKLEARN = re.compile(
    # In a pickle: the key, an opcode that may memoize it, and text with its length in one byte or four. In one of
    # protocol 0: the key and the text in lines of their own.
    rb"_sklearn_version(?:(?:\x94|q.|r.{4})?(?:\x8c|X)(?P<length>.)(?:\0\0\0)?|\n(?:p\d+\n)?V)"
    rb"(?P<version>\d[0-9a-z.+]{0,40})",
    re.DOTALL,
)
_SKOPS = re.compile(rb'"_skops_version"\s*:\s*"(?P<version>\d[0-9a-z.+]{0,40})"')
_LZ4 = b"\x04\x22\x4d\x18"
_END, _ZIP64 = b"PK\5\6", b"PK\6\7"
_MOST_DIRECTORY = 2**24
_DAMAGED = (
    zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError, ValueError, zlib.error, lzma.LZMAError,
)  # fmt: skip


def versions_in_file(file: Path) -> dict[str, str]:
    """Distribution -> version that a pickle (compressed or not) or a skops file says it was written with.

    Empty where it does not say, or cannot be read: that is reported when it is loaded, in the sandbox."""
    if file.suffix.lower() == ".skops":
        version, name = _skops_version(file), "skops"
    else:
        with disk_errors(file, "read"), file.open("rb") as stream:
            version, name = _first(_SKLEARN, stream), "scikit-learn"
    return {name: version} if version else {}


def is_lz4(file: Path) -> bool:
    """Whether joblib compressed a file with LZ4, which it needs the distribution lz4 for, to read it too."""
    with disk_errors(file, "read"), file.open("rb") as stream:
        return stream.read(len(_LZ4)) == _LZ4


def _skops_version(file: Path) -> str | None:
    with disk_errors(file, "read"), file.open("rb") as stream:
        # zipfile holds the whole directory of an archive in memory, so its size is looked at before.
        stream.seek(max(0, file.stat().st_size - 2**16 - 22))
        tail = stream.read()
    at = tail.rfind(_END)
    directory = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at < 0 or _ZIP64 in tail or directory > _MOST_DIRECTORY:
        return None
    try:
        with zipfile.ZipFile(file) as archive, archive.open("schema.json") as schema:
            return _first(_SKOPS, schema)
    except _DAMAGED:
        return None
    except OSError as error:  # also of a place in the file that cannot be
        if is_transient(error):
            raise
        return None


def _first(pattern: re.Pattern[bytes], stream: IO[bytes]) -> str | None:
    window, count = b"", 0
    for chunk in unpacked(stream):
        window, count = window[-_OVERLAP:] + chunk, count + len(chunk)
        if match := pattern.search(window):
            length = match["length"][0] if match.groupdict().get("length") else None
            return match["version"][:length].decode("ascii")
        if count >= _MOST_BYTES:
            break
    return None


def unpacked(stream: IO[bytes], *, whole: bool = False) -> Iterator[bytes]:
    """The bytes of a file in pieces, unpacked if it is compressed in a way that joblib writes (but lz4). What is
    damaged ends it, or with `whole` raises EOFError, as does a missing end."""
    chunk = stream.read(_CHUNK)
    if chunk.startswith((b"BZh", b"\xfd7zXZ\0", b"]\0\0")):
        unpacker = bz2.BZ2Decompressor() if chunk[:1] == b"B" else lzma.LZMADecompressor(memlimit=_MOST_MEMORY)
        while (chunk or not unpacker.needs_input) and not unpacker.eof:
            try:
                yield unpacker.decompress(chunk, _CHUNK)
            except (OSError, EOFError, lzma.LZMAError):
                break
            chunk = stream.read(_CHUNK) if unpacker.needs_input else b""
        if whole and not unpacker.eof:
            raise EOFError
    elif chunk.startswith((b"\x1f\x8b", b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")):
        inflater = zlib.decompressobj(32 + zlib.MAX_WBITS)  # zlib's header or gzip's
        while chunk and not inflater.eof:
            try:
                yield inflater.decompress(chunk, _CHUNK)
            except zlib.error:
                break
            chunk = inflater.unconsumed_tail or stream.read(_CHUNK)
        if whole and not inflater.eof:
            raise EOFError
    else:
        while chunk:
            yield chunk
            chunk = stream.read(_CHUNK)


def saved_version_rows(saved: Mapping[str, str], lock: Lock, entry: ModelTypeSettings) -> list[CheckRow]:
    """A row for each library of the lock (and `python`) whose version the model says it was saved with.

    A difference warns, or with `saved_versions: block` fails the check. What the component does not hold cannot
    differ."""
    locked = {package.name: package.version for package in lock.packages}
    rows = []
    for name, version in sorted(saved.items()):
        if name == "python":
            packaged, same = lock.python, edge_python(version) == lock.python
        elif name in locked:
            packaged, same = locked[name], _public(version) == _public(locked[name])
        else:
            continue
        warns = entry.saved_versions == "warn"
        rows.append(
            CheckRow(f"{name} as saved", same, packaged, f"{version[:_LONGEST]}, as the model says", warns=warns)
        )
    return rows


def _public(version: str) -> object:
    """A version without its local part: 2.1.0+cpu is the same code as 2.1.0."""
    try:
        parsed = Version(version[:_LONGEST])
    except InvalidVersion:
        return version
    return Version(parsed.public)
