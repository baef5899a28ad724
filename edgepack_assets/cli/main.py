"""The `edgepack` command: its name, its help and how it shows errors. The commands are in the modules beside this one.

Nothing heavy is imported at load, and Dagster only by commands that need its instance, so that every command answers at
once.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from edgepack_assets.cli.config import config
from edgepack_assets.cli.lock import lock
from edgepack_assets.cli.model_show import show
from edgepack_assets.cli.model_type import model_type
from edgepack_assets.cli.operations import doctor, env, gc, sensors
from edgepack_assets.cli.outcome import failure_of, print_json_error
from edgepack_assets.cli.package import package
from edgepack_assets.cli.registry import data, model, sync
from edgepack_assets.cli.ui import ui, webserver
from edgepack_assets.defs import instance as dagster_home
from edgepack_assets.errors import EdgepackError


class _Group(click.Group):
    """Shows errors for the user as `Error: ...`, without a traceback; with --json on stdout too."""

    def invoke(self, ctx: click.Context) -> Any:
        # A character that the terminal does not have is no reason to fail.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")
        wants_json = "--json" in ctx.args
        try:
            return self._invoke(ctx)
        except click.ClickException as error:
            if wants_json:
                print_json_error(error)
            raise

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            if said := dagster_home.leave_other_project():
                click.echo(said, err=True)
            return super().invoke(ctx)
        except (EdgepackError, OSError, KeyboardInterrupt) as error:
            raise failure_of(error) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgepack-assets", prog_name="edgepack", message="%(prog)s %(version)s")
def main() -> None:
    """Package AI models for Siemens Industrial Edge.

    The registry, the models and their gates are configured in edgepack.yaml. Each new model version becomes a
    partition in Dagster, which packages it.

    \b
    Every command exits with
      0 if it has done what it says;
      1 if what you named is refused, or a check does not hold;
      2 if the command or edgepack.yaml is wrong, or names what is not there;
      3 if something that it needs failed: the same may succeed later.

    With --json, stdout is JSON whatever happens: an error is {"error", "exit_code"}."""


model.add_command(show)
for _command in (config, data, doctor, env, gc, lock, model, model_type, package, sensors, sync, ui, webserver):
    main.add_command(_command)
