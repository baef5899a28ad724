"""Lines of requirements files, read as pip reads them, from a folder that is not trusted.

Comments, continued lines, hashes, options, `-r` and `-c` files of the same folder. What a component cannot take (a
URL, a local project) is returned with the reason; whether that matters is decided in saved_environment.py.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import NoReturn

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from edgepack_assets.errors import ModelError, without_credentials
from edgepack_assets.model_types.model_folder.bounded_files import path_problem, read_text

MOST_LINES = 5_000
_LONGEST_LINE = 1_000
_LONGEST_OPTIONS = 65_536  # a hash takes 80 characters, and a package may have hundreds of files
_MOST_FILES = 20


class LineKind(Enum):
    """What a line of a requirements file is to the component's lock."""

    REQUIREMENT = auto()
    CONSTRAINT = auto()
    """Bounds the version of a package, if another one needs it."""
    INDEX_OPTION = auto()
    """Says where pip looks for packages, which is a matter of the plant and not of the model."""
    BUILD_OPTION = auto()
    """Says how pip chooses or builds packages, which does not matter to exact wheels."""
    UNUSABLE = auto()


@dataclass(frozen=True)
class SavedLine:
    """One line: `text` as it is written, without comments; `origin`, its file and number; `name`, the canonical name
    of the project as far as it is known; `requirement` if it is one or a constraint; `problem` if it is unusable."""

    kind: LineKind
    text: str
    origin: str
    name: str | None = None
    requirement: str | None = None
    problem: str = ""


IsReplaced = Callable[[str], bool]
"""Whether the configuration replaces a line of this text, so that a file it names need not be read."""


def read_requirements(root: Path, path: Path, is_replaced: IsReplaced = lambda _: False) -> list[SavedLine]:
    """The lines of a requirements file and of the files that it names, all inside `root`. Raises ModelError if one
    cannot be read, or there are too many."""
    return read_lines(root, path, _numbered(_text(root, path)), is_replaced)


def read_lines(
    root: Path, path: Path, lines: Iterable[tuple[str, str]], is_replaced: IsReplaced = lambda _: False
) -> list[SavedLine]:
    """As `read_requirements`, for lines that stand in the file `path` of another format, each with its place there."""
    reading = _Reading(root, is_replaced)
    reading.read(path, lines, constraints=False)
    return reading.lines


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number, line) of a requirements file: continued lines joined, comments and empty lines left out."""
    parts: list[str] = []
    first = 0
    for number, line in enumerate(text.splitlines(), 1):
        first = first if parts else number
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            parts.append(line.strip("\\"))  # all of them, as pip does
            continue
        parts.append(" " + line if is_comment else line)
        joined = re.sub(r"(^|\s)#.*$", "", "".join(parts)).strip()
        parts = []
        if joined:
            yield first, joined
    rest = re.sub(r"(^|\s)#.*$", "", "".join(parts)).strip()
    if rest:
        yield first, rest


def _text(root: Path, path: Path) -> str:
    # A comment may be in any encoding; a requirement is ASCII, and a line that is not gets refused by itself.
    return read_text(root, path, errors="replace")


def _numbered(text: str) -> Iterator[tuple[str, str]]:
    return ((f"line {number}", line) for number, line in logical_lines(text))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _options() -> _Parser:
    parser = _Parser(prog="", add_help=False)
    values = {
        "requirement": ("-r", "--requirement"),
        "constraint": ("-c", "--constraint"),
        "editable": ("-e", "--editable"),
        "index": (
            "-i", "--index-url", "--pypi-url", "--extra-index-url", "-f", "--find-links", "--trusted-host",
        ),
        "build": ("--no-binary", "--only-binary", "--use-feature", "--hash", "--global-option", "--install-option",
                  "-C", "--config-settings", "--config-setting"),
    }  # fmt: skip
    for name, flags in values.items():
        parser.add_argument(*flags, dest=name, action="append", default=[])
    parser.add_argument("--no-index", dest="index", action="append_const", const="")
    for flag in ("--prefer-binary", "--require-hashes", "--pre"):
        parser.add_argument(flag, dest="build", action="append_const", const="")
    return parser


_OPTIONS = _options()


class _Reading:
    """One pass over a requirements file and those that it names."""

    def __init__(self, root: Path, is_replaced: IsReplaced) -> None:
        self.lines: list[SavedLine] = []
        self._root = root
        self._is_replaced = is_replaced
        self._seen: set[tuple[Path, bool]] = set()

    def read(self, path: Path, lines: Iterable[tuple[str, str]], constraints: bool) -> None:
        self._seen.add((path, constraints))
        name = path.relative_to(self._root).as_posix()
        if len(self._seen) > _MOST_FILES:
            raise ModelError(f"{name}: more than {_MOST_FILES} requirements files name each other")
        for place, text in lines:
            if len(self.lines) >= MOST_LINES:
                raise ModelError(f"{name}: more than {MOST_LINES} lines of requirements")
            self._line(text, f"{name}: {place}", path, constraints)

    def _line(self, text: str, origin: str, path: Path, constraints: bool) -> None:
        plain, options = _split(text)
        if len(plain) > _LONGEST_LINE or len(options) > _LONGEST_OPTIONS:
            raise ModelError(f"{origin}: is longer than {_LONGEST_LINE} characters")
        if not plain and self._is_replaced(text):
            self.lines.append(SavedLine(LineKind.UNUSABLE, text, origin))
            return
        try:
            given = _OPTIONS.parse_args(shlex.split(options))
        except ValueError as error:
            problem = f"holds what is no option of pip's ({error!s:.200})"
            self.lines.append(SavedLine(LineKind.UNUSABLE, text, origin, _name_in(plain), problem=problem))
            return
        if plain:
            # Its own options are hashes, which the lock has too, and what building it would need.
            self.lines.append(read_requirement(plain, origin, constraints))
            return
        for project in given.editable:
            problem = "is a local project or a repository, but a component is made of wheels from a package index"
            self.lines.append(SavedLine(LineKind.UNUSABLE, text, origin, _name_in(project), problem=problem))
        for kind, values in ((LineKind.INDEX_OPTION, given.index), (LineKind.BUILD_OPTION, given.build)):
            if values:
                self.lines.append(SavedLine(kind, text, origin))
        for other, as_constraints in (*((o, False) for o in given.requirement), *((o, True) for o in given.constraint)):
            self._file(other, text, origin, path, as_constraints)

    def _file(self, named: str, text: str, origin: str, path: Path, constraints: bool) -> None:
        # A path is relative to the file that names it.
        within = named if named.startswith("/") else (path.parent.relative_to(self._root) / named).as_posix()
        if "://" in named:
            problem = "names a file elsewhere, which is not read"
        elif not (problem := path_problem(self._root, within)):
            other = self._root / within
            if not other.is_file():
                problem = f"names {named!r}, which the folder does not hold"
            elif (other, constraints) not in self._seen:
                self.read(other, _numbered(_text(self._root, other)), constraints)
        if problem:
            self.lines.append(SavedLine(LineKind.UNUSABLE, text, origin, problem=problem))


def read_requirement(text: str, origin: str, is_constraint: bool = False) -> SavedLine:
    """A line that is no option."""
    kind = LineKind.CONSTRAINT if is_constraint else LineKind.REQUIREMENT
    name, problem = _name_in(text), ""
    try:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if requirement.url is not None:
            problem = "names a URL, but a component is made of wheels from a package index"
        elif is_constraint and requirement.extras:
            problem = "is a constraint with extras, which pip does not take"
        else:
            return SavedLine(kind, text, origin, name, str(requirement))
    except (InvalidRequirement, RecursionError) as error:
        if "${" in text:
            problem = "holds an environment variable, which is not filled in"
        elif "://" in text or "/" in text or text.startswith("."):
            problem = "is a URL or a path, but a component is made of wheels from a package index"
        else:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            problem = f"is not a requirement such as scikit-learn==1.5.2 ({reason:.200})"
    return SavedLine(LineKind.UNUSABLE, text, origin, name, problem=without_credentials(problem))


def _split(text: str) -> tuple[str, str]:
    """(requirement, options) of a line: as for pip, options begin with the first word that begins with a dash."""
    words = text.split(" ")
    count = next((n for n, word in enumerate(words) if word.lstrip().startswith("-")), len(words))
    return " ".join(words[:count]).strip(), " ".join(words[count:])


def _name_in(text: str) -> str | None:
    """The canonical name of the project that a line is about, as far as the text itself says."""
    egg = re.search(r"#(?:.*&)?egg=([A-Za-z0-9][A-Za-z0-9._-]*)", text)
    if egg is not None:
        return canonicalize_name(egg[1])
    file = re.split(r"[?#;\s]", text)[0].rsplit("/", 1)[-1]
    if file.endswith(".whl"):
        try:
            return canonicalize_name(parse_wheel_filename(file)[0])
        except InvalidWheelFilename:
            return None
    plain = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:$|[\[@<>=!~;(#\s,$])", text)
    return canonicalize_name(plain[1]) if plain is not None and "://" not in text.split("@", maxsplit=1)[0] else None
