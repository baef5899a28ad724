"""`edgepack model-type`: which implementations are installed, and the skeleton of a new one."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

import click

from edgepack_assets.config.implementations import distribution, installed
from edgepack_assets.errors import EdgepackError, PluginError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.text_format import format_table

_TEMPLATE = Path(__file__).with_name("model_type_template")


@click.group("model-type", help="Implementations of model types: those installed, and new ones.")
def model_type() -> None: ...


@model_type.command("list")
def list_() -> None:
    """Installed model types, their distributions and faults."""
    from edgepack_assets.model_types import Plugin

    rows = []
    for name, entry_points in installed().items():
        fault = ""
        try:
            Plugin(name)
        except PluginError as error:
            fault = str(error)
        rows += [(name, distribution(each), fault) for each in entry_points]
    click.echo(format_table([("NAME", "DISTRIBUTION", "FAULT"), *rows]))


@model_type.command("new")
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
def new(name: str, folder: Path | None) -> None:
    """Write the skeleton of a model type into a new folder.

    FOLDER must not exist; by default it is edgepack-NAME.
    It packages as it is; its README.md says how, and docs/model-types.md what each part is for."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise click.BadParameter("a name is lower-case letters, digits and single _, such as pump_vibration")
    if name in installed():
        raise EdgepackError(f"there is a model type {name} already, of {distribution(installed()[name][0])}")
    distribution_name = f"edgepack-{name.replace('_', '-')}"
    target = folder or Path(distribution_name)
    package = f"edgepack_{name}"
    words = {
        "name": name, "distribution": distribution_name, "package": package,
        "class_name": "".join(word.capitalize() for word in name.split("_")),
    }  # fmt: skip
    with disk_errors(target):
        try:
            target.mkdir(parents=True)
        except FileExistsError:
            raise EdgepackError(
                f"{target} exists: name another folder, edgepack model-type new {name} FOLDER"
            ) from None
        for file in sorted(_TEMPLATE.rglob("*.txt")):
            parts = [package if part == "package" else part for part in file.relative_to(_TEMPLATE).parts]
            path = target.joinpath(*parts).with_suffix("")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Template(file.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
    click.echo(target)
