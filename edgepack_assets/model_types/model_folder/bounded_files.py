"""Reads what a model's folder gives, within bounds: the paths that its files name, text, and YAML.

A model is not trusted. A path leads to a file in the model's own folder or is refused; a file's size, and the size
and depth of its YAML, are checked before anything is built from it.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
import traceback
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edgepack_assets.errors import EdgepackError, ModelError, TransientError
from edgepack_assets.filesystem.atomic_files import disk_errors, is_transient

MOST_BYTES = 2**20
"""Of one text file of a model. MLflow writes some kilobytes, and a signature of 10,000 columns is below this too."""
_MOST_NODES = 100_000
_DEEPEST = 32
_LONGEST_PATH = 1_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PARSER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
"""Reads every scalar as text: a Python `3.10` stays 3.10, and no tag makes an object."""

_Document = TypeVar("_Document", bound=BaseModel)


@contextlib.contextmanager
def model_errors(doing: str) -> Iterator[None]:
    """Make an exception that nobody foresaw a ModelError: whatever reading a model raises is that model's failure, and
    would be the same the next time. What the operating system says of the machine stays an error that may pass."""
    try:
        yield
    except (EdgepackError, MemoryError):
        raise
    except Exception as error:  # any: the model decides what it is
        if isinstance(error, OSError) and is_transient(error):
            raise TransientError(f"{doing}: {error}") from error
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
        raise ModelError(
            f"{doing} failed with an unforeseen {type(error).__name__} at {where}: {error!s:.500}. Something in the "
            "model is not as expected; please report this"
        ) from error


def path_inside(root: Path, named: str, named_by: str) -> Path:
    """Where in the model's folder `root` a path leads that the model names. The file or folder need not exist.

    `named_by` is the file and key that name it, for the error. Raises ModelError on an absolute path, one with `..`,
    and one that passes a link: a model may name files of its own folder only."""
    problem = path_problem(root, named)
    if problem:
        raise ModelError(f"{named_by} {problem}; name a file in the model's own folder")
    return root / PurePosixPath(named)


def path_problem(root: Path, named: str) -> str:
    """Why a path is not one inside the folder `root`, or "" if it is."""
    path = PurePosixPath(named)
    if "\0" in named or len(named) > _LONGEST_PATH or named != named.encode(errors="replace").decode():
        return f"names {named[:200]!r}, which is no path"
    if path.is_absolute() or ".." in path.parts:
        return f"names {named!r}, which lies outside the model folder"
    target = root
    for part in path.parts:
        target /= part
        with disk_errors(target, "read"):
            try:
                mode = target.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                return ""
        if stat.S_ISLNK(mode):
            return f"names {named!r}, but {target.relative_to(root).as_posix()} is a link"
    return ""


def read_text(root: Path, path: Path, errors: str = "strict") -> str:
    """The text of a file of the model's folder `root`. Raises ModelError if it is no text (unless `errors` says what
    stands for bytes that are none), or too long."""
    shown = path.relative_to(root).as_posix()
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with disk_errors(path, "read"):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ModelError(f"{shown}: is not a regular file")
        with open(os.open(path, flags), "rb") as stream:  # noqa: PTH123 - pathlib cannot refuse links
            content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ModelError(f"{shown}: is larger than {MOST_BYTES // 2**20} MiB, the most that is read of such a file")
    mark, encoding = next(((mark, name) for mark, name in _BOMS if content.startswith(mark)), (b"", "utf-8"))
    try:
        return content[len(mark) :].decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise ModelError(f"{shown}: is no {encoding.upper()} text ({error.reason} at byte {error.start})") from None


def read_yaml(root: Path, path: Path, schema: type[_Document]) -> _Document:
    """A YAML file of the model's folder, validated by `schema`, which gets every scalar as text. Raises ModelError."""
    shown = path.relative_to(root).as_posix()
    text = read_text(root, path)
    try:
        _check_bounds(text, shown)
        document = yaml.load(text, Loader=_PARSER)  # noqa: S506 - it builds text, lists and mappings only
    except (yaml.YAMLError, ValueError) as error:
        raise ModelError(f"{shown}: not valid YAML: {error!s:.500}") from None
    if not isinstance(document, dict):
        raise ModelError(f"{shown}: must be a mapping")
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        raise ModelError("; ".join(_fault(shown, fault) for fault in error.errors()[:5])) from None


def _check_bounds(text: str, shown: str) -> None:
    # An alias costs nothing to write and can stand for a gigabyte, so it is refused before anything is built.
    depth = nodes = 0
    keys = _Keys()
    for event in yaml.parse(text, Loader=_PARSER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            line = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
            value = f"the value of {keys.at}" if keys.at else "the value"
            raise ModelError(f"{shown}: {line}anchors and aliases (& and *) are not read; write {value} out")
        keys.see(event)
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST or nodes > _MOST_NODES:
            raise ModelError(
                f"{shown}: is nested more than {_DEEPEST} deep or holds more than {_MOST_NODES} values, the most that "
                "is read of such a file"
            )


class _Keys:
    """The key that the events of a YAML document have come to, such as flavors.sklearn.code."""

    def __init__(self) -> None:
        self._open: list[str | int | None] = []  # the key or index of each open mapping or list; None before a key

    @property
    def at(self) -> str:
        """The keys, with dots between them."""
        return ".".join(str(key)[:100] for key in self._open if key is not None)

    def see(self, event: Any) -> None:
        """Follow one event."""
        if isinstance(event, yaml.CollectionStartEvent):
            self._open.append(None if isinstance(event, yaml.MappingStartEvent) else 0)
        elif isinstance(event, (yaml.CollectionEndEvent, yaml.ScalarEvent)):
            if isinstance(event, yaml.CollectionEndEvent):
                self._open.pop()
            if not self._open:
                return
            last = self._open[-1]
            is_key = last is None
            if isinstance(last, int):
                self._open[-1] = last + 1
            else:
                self._open[-1] = (event.value if isinstance(event, yaml.ScalarEvent) else "?") if is_key else None


def _fault(shown: str, fault: Any) -> str:
    key = ".".join(str(step)[:100] for step in fault["loc"])
    value = f" (found {fault['input']!r:.100})" if not isinstance(fault["input"], dict) else ""
    return f"{shown}: {key}: {fault['msg'].removeprefix('Value error, ')}{value}"
