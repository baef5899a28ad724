"""The `edgepack` command: its name, its help and how it shows errors. The commands are in the modules beside this one.

Nothing heavy is imported at load, and Dagster only by commands that need its instance, so that every command answers at
once.
"""

from __future__ import annotations

from typing import Any

import click

from edgepack_assets.cli.config import config
from edgepack_assets.cli.lock import lock
from edgepack_assets.cli.model_show import show
from edgepack_assets.cli.model_type import model_type
from edgepack_assets.cli.operations import doctor, env, gc, sensors
from edgepack_assets.cli.package import package
from edgepack_assets.cli.registry import data, model, sync
from edgepack_assets.cli.ui import ui, webserver
from edgepack_assets.defs import instance as dagster_home
from edgepack_assets.errors import EdgepackError


class _Group(click.Group):
    """Shows errors for the user as `Error: ...`, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            if said := dagster_home.leave_other_project():
                click.echo(said, err=True)
            return super().invoke(ctx)
        except EdgepackError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgepack-assets", prog_name="edgepack", message="%(prog)s %(version)s")
def main() -> None:
    """Package AI models for Siemens Industrial Edge.

    The registry, the models and their gates are configured in edgepack.yaml. Each new model version becomes a
    partition in Dagster, which packages it."""


model.add_command(show)
for _command in (config, data, doctor, env, gc, lock, model, model_type, package, sensors, sync, ui, webserver):
    main.add_command(_command)
