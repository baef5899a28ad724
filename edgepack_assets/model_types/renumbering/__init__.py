"""Gives the states of a new model version the numbers that they have in the package before.

component/ ships, in front of the model type's own entrypoint, and only with packages whose numbers are changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgepack_assets.errors import ModelError

KEY = "renumbering"
"""In model.json: `output`, and `numbers` as pairs of the model's number and the shipped one. In an inspection: the
pairs."""
_ENTRYPOINT, _OWN = "entrypoint.py", "model_entrypoint.py"


def put_in_front(component: Path) -> None:
    """Make the entrypoint of a component one that changes the numbers as its model.json says.

    Raises ModelError if a file of the model has the name that the entrypoint gets."""
    own = component / _OWN
    if taken := [path.name for path in component.iterdir() if path.name.split(".")[0] == own.stem]:
        raise ModelError(f"the model ships {taken[0]}, a name that the component needs itself: rename the module")
    (component / _ENTRYPOINT).rename(own)
    shutil.copyfile(Path(__file__).with_name("component") / _ENTRYPOINT, component / _ENTRYPOINT)


def settings(output: str, numbers: Mapping[Any, Any]) -> dict[str, Any]:
    """What model.json holds of it."""
    return {KEY: {"output": output, "numbers": [[of_model, shipped] for of_model, shipped in numbers.items()]}}


def shipped(categories: Iterable[Any] | None, inspection: Mapping[str, Any]) -> list[Any]:
    """The numbers under which a package answers the categories of its model."""
    numbers = dict(inspection.get(KEY, ()))
    return [numbers.get(category, category) for category in categories or ()]
