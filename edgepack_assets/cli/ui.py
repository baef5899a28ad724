"""`edgepack ui` and `edgepack webserver`: Dagster's UI, protected against other web pages."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from edgepack_assets.defs import instance

# Dagster's own options follow ours, and -h is its short form of --host.
_SETTINGS: dict[str, Any] = {"ignore_unknown_options": True, "help_option_names": ["--help"]}


def _options(command: Callable[..., None]) -> Callable[..., None]:
    allow_host = click.option(
        "--allow-host",
        "names",
        multiple=True,
        metavar="NAME",
        help="A name under which browsers reach the UI, e.g. that of a proxy; may be repeated. "
        "localhost, 127.0.0.1 and [::1] always work.",
    )
    return allow_host(click.argument("arguments", nargs=-1, type=click.UNPROCESSED)(command))


def _prepare(names: Sequence[str], *, module: bool = True) -> Path:
    from edgepack_assets.defs.ui.webserver import ALLOWED_HOSTS_VARIABLE

    home = instance.prepare_process(module=module)
    os.environ[ALLOWED_HOSTS_VARIABLE] = " ".join([os.environ.get(ALLOWED_HOSTS_VARIABLE, ""), *names])
    return home


@click.command("ui", context_settings=_SETTINGS, options_metavar="[--allow-host NAME]...")
@_options
def ui(names: Sequence[str], arguments: Sequence[str]) -> None:
    """Start Dagster's UI and daemon on this machine.

    ARGUMENTS are options of `dagster dev`, e.g. --port 3001."""
    from edgepack_assets.defs.ui import start
    from edgepack_assets.defs.ui.webserver import allowed_hosts, run_dev

    if not {"--help", "--version"}.isdisjoint(arguments):
        _prepare(names)
        run_dev(arguments)
        return
    host, port = start.address(arguments)  # first: a mistake there must not make a home
    home = _prepare(names)
    allowed_hosts()
    start.check_port(host, port)
    with start.only_one(home):
        click.echo(f"The asset graph: {start.show_asset_graph(host, port)}  (Ctrl-C ends the UI and the daemon)")
        run_dev(arguments)


@click.command("webserver", context_settings=_SETTINGS, options_metavar="[--allow-host NAME]...")
@_options
def webserver(names: Sequence[str], arguments: Sequence[str]) -> None:
    """Start Dagster's UI alone, e.g. as a service.

    ARGUMENTS are options of `dagster-webserver`, e.g. --read-only, or -w FILE for a code location that another process
    serves."""
    from edgepack_assets.defs.ui.webserver import names_code, run_webserver

    _prepare(names, module=not names_code(arguments))
    sys.argv = ["edgepack webserver", *arguments]
    run_webserver()
