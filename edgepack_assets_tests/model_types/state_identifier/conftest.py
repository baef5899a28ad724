"""The component's modules and child_tasks.py, imported as a child of the sandbox imports them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import edgepack_assets.model_types.state_identifier as package
from edgepack_assets.sandbox import progress

FOLDER = Path(package.__file__).parent
_PATHS = (FOLDER / "component", FOLDER / "component_general", FOLDER)
_MODULES = ("inference", "general_inference", "child_columns", "child_estimators", "child_tasks")


@pytest.fixture(scope="module")
def inference() -> Iterator[ModuleType]:
    """component/inference.py; the others that belong to it can be imported as well."""
    paths = [str(path) for path in _PATHS]
    sys.path.extend(paths)
    sys.modules["edgepack_progress"] = progress  # as child_main.py has it
    try:
        yield importlib.import_module("inference")
    finally:
        for path in paths:
            sys.path.remove(path)
        for name in _MODULES:
            sys.modules.pop(name, None)
        del sys.modules["edgepack_progress"]


@pytest.fixture(scope="module")
def child_tasks(inference: ModuleType) -> ModuleType:
    return importlib.import_module("child_tasks")


@pytest.fixture(autouse=True)
def _no_channels_are_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A component sets its channels for its process, and this one runs many components."""
    module = request.getfixturevalue("inference") if "inference" in request.fixturenames else None
    columns = module.COLUMNS if module else ()
    yield
    if module:
        module.COLUMNS = columns
