"""The folder of a component: the model type's own files, and those of the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgepack_assets.errors import ModelError, PluginError
from edgepack_assets.filesystem.atomic_files import link_or_copy
from edgepack_assets.model_types import Plugin, envelope
from edgepack_assets.model_types.interface import ComponentSpec, ModelSource

_MODULE_SUFFIXES = (".py", ".pyc", ".so")
"""Files with these are importable; those of .so may have the interpreter's name before it."""


def assemble(component: Path, folders: Sequence[Path], source: ModelSource, work: Path) -> None:
    """Lay out the component's files. Of those of one name the last folder's ships, then the source's, then the first
    folder's. Files of the model in the folder `work`, which is this run's alone, are linked."""
    component.mkdir()
    first, *further = ({file.name: file for file in folder.glob("*.py")} for folder in folders)
    own_files = first | dict(source.component_files)
    for files in further:
        own_files |= files
    for name, file in sorted(own_files.items()):
        shutil.copyfile(file, component / name)
    ours = {"model.json", *own_files}
    for name, file in source.files.items():
        top = name.split("/")[0]
        hidden = top if top in ours else f"{_module(name)}.py"
        if hidden in ours:
            raise ModelError(
                f"the model ships {name}, which would hide the component's own {hidden}; rename the module or move it "
                "into a package"
            )
        target = component / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.is_relative_to(work):
            link_or_copy(file, target)
        else:
            shutil.copyfile(file, target)
    write_settings(component, source.model)


def write_settings(component: Path, model_json: Any, alerts: str = "") -> None:
    """Write what the packaging adds to the component's files."""
    text = json.dumps(model_json, indent=1, sort_keys=True) + "\n"
    (component / "model.json").write_text(text, encoding="utf-8")
    if alerts:
        (component / envelope.ALERTS_FILE).write_text(alerts, encoding="utf-8")


def _module(name: str) -> str | None:
    """The module or package that Python would import from a file of this name at the top of the component."""
    top, _, below = name.partition("/")
    if below:
        return top
    suffix = next((suffix for suffix in _MODULE_SUFFIXES if top.endswith(suffix)), None)
    return top.split(".")[0] if suffix else None


def check_parameters(implementation: Plugin, spec: ComponentSpec, entrypoint: Path) -> None:
    """Raise a PluginError if parameters are declared that the component never gets: no run of it would show that."""
    text = entrypoint.read_text(encoding="utf-8", errors="replace")
    if spec.parameters and "update_parameters" not in text and "import *" not in text:
        names = ", ".join(parameter.name for parameter in spec.parameters)
        raise PluginError(
            f"{implementation}: component_spec declares the parameters {names}, but {entrypoint.name}, which ships, "
            "has no function update_parameters(params), which gets their values"
        )
