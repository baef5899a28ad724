"""The `edgepack` command: its name, its help and how it shows errors. The commands are in the modules beside this one.

Nothing heavy is imported at load, and Dagster only by commands that need its instance, so that every command answers at
once.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections import UserDict
from typing import Any

import click

from edgepack_assets.cli.outcome import failure_of, print_json_error
from edgepack_assets.defs import instance as dagster_home
from edgepack_assets.errors import EdgepackError

_MODULES = {
    "config": "config",
    "data": "registry",
    "doctor": "operations",
    "env": "operations",
    "gc": "operations",
    "lock": "lock",
    "model": "registry",
    "model-type": "model_type",
    "package": "package",
    "sensors": "operations",
    "sync": "registry",
    "ui": "ui",
    "webserver": "ui",
}
"""Each command, and the module that has it under this name."""


class _Commands(UserDict[str, click.Command]):
    """The commands. The module of one is imported when it is looked up, and those of the others are not."""

    def __init__(self) -> None:
        super().__init__()
        self.data = dict.fromkeys(_MODULES, click.Command(None))  # what is looked up is imported

    def __getitem__(self, name: str) -> click.Command:
        module = importlib.import_module(f"edgepack_assets.cli.{_MODULES[name]}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        if name == "model":
            from edgepack_assets.cli.model_show import show

            assert isinstance(command, click.Group)
            command.add_command(show)
        return command


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


@click.group(cls=_Group, commands=_Commands(), context_settings={"help_option_names": ["-h", "--help"]})
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
