"""What a plant calls the states of a state identifier: from edgepack.yaml into the package, pictures and tables.

A name belongs to a number that the package answers. Whether numbers stay the same is not decided here
(tasks/predecessor/kept_numbers.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.section import Count
from edgepack_assets.sandbox.child_output import printable
from edgepack_assets.text_format import counted

KEY = "state_names"
"""In model.json and in an inspection: number of the state, as text, -> its name."""
MOST_NAMES = 100
_Text = Annotated[str, StringConstraints(min_length=1, max_length=60, strip_whitespace=True)]


def _can_be_shown(name: str) -> str:
    if printable(name) != name:
        raise ValueError(f"{name!r} holds characters that cannot be shown")
    return name


def _differ(names: dict[int, str]) -> dict[int, str]:
    if twice := sorted({name for name in names.values() if list(names.values()).count(name) > 1}):
        raise ValueError(f"two states are called {', '.join(twice)}")
    return names


StateName = Annotated[_Text, AfterValidator(_can_be_shown)]
StateNames = Annotated[dict[Count, StateName], Field(max_length=MOST_NAMES), AfterValidator(_differ)]


def as_json(names: Mapping[int, str]) -> dict[str, Any]:
    """What model.json holds of them; nothing where there are none."""
    return {KEY: {str(state): name for state, name in sorted(names.items())}} if names else {}


def names_of(inspection: Mapping[str, Any]) -> dict[int, str]:
    """State -> its name, of those that have one."""
    return {int(state): name for state, name in (inspection.get(KEY) or {}).items()}


def with_names(text: str, inspection: Mapping[str, Any]) -> str:
    """A description, with the names of the states behind it."""
    names = names_of(inspection)
    return text + (f" ({', '.join(f'{state} {name}' for state, name in sorted(names.items()))})" if names else "")


def names_rows(inspection: Mapping[str, Any], states: Sequence[int]) -> list[CheckRow]:
    """A row of config_package.is_fit: each name belongs to a state. `states` are those that the package answers."""
    names = names_of(inspection)
    if not names or not states:
        return []
    strange = sorted(names.keys() - set(states))
    found = ", ".join(f"{state} ({names[state]})" for state in strange)
    return [
        CheckRow(
            "names of states", not strange,
            f"no such state: {found}" if strange else f"{len(names)} of {counted(len(states), 'state')} have one",
            f"names of states among {', '.join(map(str, sorted(states)[:20]))}",
        )
    ]  # fmt: skip
