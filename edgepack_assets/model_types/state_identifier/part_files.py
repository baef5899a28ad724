"""The Parquet files of a recording in a folder, and the order of their rows.

Spark, dask, polars and others write a table as part files whose names differ in a number, with files of their own
beside them. A folder whose order of rows is not certain is refused: windows would be cut across the wrong rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from edgepack_assets.errors import RawDataError
from edgepack_assets.filesystem.atomic_files import is_leftover
from edgepack_assets.registry.base import files_of

ORDER = "by name, numbers in names as numbers: part.2 before part.10"
_SUFFIXES = (".parquet", ".pq")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", re.IGNORECASE)
_HEXADECIMAL = re.compile(r"[0-9a-f]{8}")
_NUMBER = re.compile(r"[0-9]+")
_YEAR_LAST = re.compile(r"(?<![0-9])[0-9]{1,2}[-._ ][0-9]{1,2}[-._ ](?:19|20)[0-9]{2}(?![0-9])")
_MOST_NAMES = 10
_ADVICE = (
    "write the recording as one file, or as part files in one folder whose numbers say the order; rows in time order"
)
_TABLE_LOGS = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table"}


def recording_files(raw: Path) -> list[Path]:
    """The files of the recording `raw`, a file or a folder, in the order of their rows. Raises RawDataError."""
    if raw.is_file():
        return [raw]
    files = {PurePosixPath(name): path for name, path in files_of(raw) if not is_leftover(PurePosixPath(name))}
    _refuse_tables(list(files))
    parquet = {name: path for name, path in files.items() if name.suffix.lower() in _SUFFIXES}
    # Names that begin so are a writer's own, as pyarrow and Spark have it: _temporary/, _metadata, .part-0.parquet.crc
    visible = {name: path for name, path in parquet.items() if not any(part[0] in "_." for part in name.parts)}
    chosen = visible or {name: path for name, path in parquet.items() if len(name.parts) == 1}
    if not chosen:
        raise RawDataError(f"the raw data folder must hold a Parquet file, it holds 0 (none): {_listed(list(files))}")
    if len(chosen) > 1:
        _refuse_without_order(list(chosen))
    return [chosen[name] for name in sorted(chosen, key=_key)]


def _refuse_tables(names: Sequence[PurePosixPath]) -> None:
    for name in names:
        kind = next((kind for log, kind in _TABLE_LOGS.items() if log in name.parts), None)
        if kind is None and name.name.endswith(".metadata.json"):
            kind = "an Iceberg table"
        if kind is not None:
            raise RawDataError(
                f"the raw data folder is {kind} ({name}): its Parquet files may hold rows that were deleted or "
                f"replaced. Export it: {_ADVICE}"
            )


def _refuse_without_order(names: Sequence[PurePosixPath]) -> None:
    subject = f"the raw data folder holds {len(names)} ({_listed(names)})"
    if any("=" in part for name in names for part in name.parts[:-1]):
        raise RawDataError(f"{subject} in partitions, and nothing says in which order these follow: {_ADVICE}")
    if len({name.parent for name in names}) > 1:
        raise RawDataError(f"{subject} in several folders, and nothing says in which order these follow: {_ADVICE}")
    if len({_NUMBER.sub("0", _counted(name)) for name in names}) > 1:
        raise RawDataError(
            f"{subject}, whose names differ in more than a number, so they are not parts of one: {_ADVICE}"
        )
    if len({tuple(_UUID.findall(name.name)) for name in names}) > 1:
        raise RawDataError(f"{subject}, which several writers made, and nothing says in which order: {_ADVICE}")
    if any(_YEAR_LAST.search(name.name) for name in names):
        raise RawDataError(
            f"{subject} with dates in their names whose year stands last, so their order is not known: {_ADVICE}"
        )
    if len({tuple(_key(name)) for name in names}) < len(names):
        raise RawDataError(f"{subject}, some of which have the same number: {_ADVICE}")


def _key(name: PurePosixPath) -> list[int]:
    """The numbers in a name; all else is the same in all of them."""
    return [int(number) for number in _NUMBER.findall(_counted(name))]


def _counted(name: PurePosixPath) -> str:
    """A name without what is random in it, its numbers in decimals (polars counts 00000009, 0000000a)."""
    if _HEXADECIMAL.fullmatch(name.stem):
        return f"{int(name.stem, 16)}{name.suffix}"
    return _UUID.sub("", name.name)


def _listed(names: Sequence[PurePosixPath]) -> str:
    shown = ", ".join(map(str, names[:_MOST_NAMES]))
    return shown if len(names) <= _MOST_NAMES else f"{shown}, ... {len(names) - _MOST_NAMES} more"
