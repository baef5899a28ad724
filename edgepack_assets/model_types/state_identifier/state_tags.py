"""Names of states in the tags of a model version. Whoever trained the model numbers them as the model does.

What a name may be, and where names are shown, is in state_names.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.state_identifier.state_names import StateNames

_ALL = ("states", "state_names")
"""A tag with the names of all states."""
_ONE = "state."
"""What the tag of a single state begins with."""
_NUMBER = re.compile(r"[0-9]{1,9}")
_NAMES: TypeAdapter[dict[int, str]] = TypeAdapter(StateNames)
_FORM = '{"0": "idle", "1": "running"}'


def names_in_tags(tags: Mapping[str, str]) -> dict[int, str]:
    """State, as the model numbers it, -> its name. Raises ModelError naming the tag."""
    names: dict[int, tuple[str, str]] = {}
    for tag, state, name in _read(tags):
        other, before = names.setdefault(state, (tag, name))
        if before != name:
            raise ModelError(f"the tags {other} and {tag} name state {state} differently ({before} and {name})")
    found = {state: name for state, (_, name) in names.items()}
    _checked(found, ", ".join(sorted({tag for tag, _ in names.values()})))
    return found


def merged(
    configured: Mapping[int, str], tags: Mapping[str, str], numbers: Mapping[int, int]
) -> tuple[dict[int, str], list[CheckRow]]:
    """The names that a package ships, by its own numbers, and a row on where tags and configuration differ.

    `numbers`: number of the model -> the one that the package answers, where it is another. The configuration names the
    package's numbers, and wins. Raises ModelError naming the tag."""
    tagged = {numbers.get(state, state): name for state, name in names_in_tags(tags).items()}
    if not tagged or not configured:
        return {**tagged, **configured}, []
    differ = [
        f"state {state} is {configured[state]} in edgepack.yaml and {tagged[state]} in the tags"
        for state in sorted(tagged.keys() & configured.keys()) if tagged[state] != configured[state]
    ]  # fmt: skip
    names = dict(configured)
    for state in sorted(tagged.keys() - configured.keys()):
        if tagged[state] in configured.values():
            differ.append(f"state {state} is {tagged[state]} in the tags, as another one is in edgepack.yaml")
        else:
            names[state] = tagged[state]
    row = CheckRow(
        "names of states in the tags of the model version", not differ, "; ".join(differ) or "as configured",
        "the names of edgepack.yaml, which are taken", warns=True,
    )  # fmt: skip
    return names, [row]


def _read(tags: Mapping[str, str]) -> Iterator[tuple[str, int, str]]:
    """(tag, state, name) of every name."""
    for tag, text in sorted(tags.items()):
        if tag in _ALL and not _NUMBER.fullmatch(text.strip()):  # a number says how many states there are
            for state, name in _checked(_json(tag, text), tag).items():
                yield tag, state, name
        elif tag.startswith(_ONE):
            number = tag.removeprefix(_ONE)
            if not _NUMBER.fullmatch(number):
                raise ModelError(f"the tag {tag} names no state: write the state's number, such as state.0")
            for state, name in _checked({int(number): text}, tag).items():
                yield tag, state, name


def _json(tag: str, text: str) -> dict[int, Any]:
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        pairs = None
    if not isinstance(pairs, _Pairs) or not all(_NUMBER.fullmatch(state) for state, _ in pairs):
        raise ModelError(f"the tag {tag} is {text[:100]!r}: write the states' numbers with their names, {_FORM}")
    numbers = [int(state) for state, _ in pairs]
    if twice := sorted({number for number in numbers if numbers.count(number) > 1}):
        raise ModelError(f"the tag {tag} names state {twice[0]} twice: name it once")
    return {int(state): name for state, name in pairs}


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with each of its pairs, those of one key too."""


def _checked(names: Mapping[int, Any], tag: str) -> dict[int, str]:
    try:
        return _NAMES.validate_python(names)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"state {first['loc'][0]}: " if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        raise ModelError(f"the tag {tag}: {where}{message}. Names are texts of 1 to 60 characters, {_FORM}") from None
