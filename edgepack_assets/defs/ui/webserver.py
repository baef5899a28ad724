"""Dagster's web server behind `guard.RequestGuard`, as `python -m edgepack_assets.defs.ui.webserver` and in `dagster
dev`.

Dagster has no switch for allowed hosts or origins, and takes GraphQL mutations by GET. Only what Dagster's web server
builds its app from is replaced here. Its command line, options and everything else stay Dagster's. `patch.object`
fails if a name that it replaces is not there: with another Dagster nothing starts, rather than without protection.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import click
import dagster_webserver.app
import dagster_webserver.cli
from dagster._cli import dev
from dagster_shared.ipc import open_ipc_subprocess
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from edgepack_assets.defs import instance
from edgepack_assets.defs.ui.guard import RequestGuard, is_json
from edgepack_assets.defs.ui.reports import PrefixedLinks, report_routes
from edgepack_assets.errors import ConfigError, EdgepackError

ALLOWED_HOSTS_VARIABLE = "EDGEPACK_ALLOWED_HOSTS"
_CODE_OPTIONS = (
    "workspace", "empty_workspace", "module_name", "package_name", "python_file", "autoload_defs_module_name",
    "grpc_port", "grpc_socket",
)  # fmt: skip
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?|\[[0-9a-f:.]+\]", re.IGNORECASE | re.ASCII)


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Dagster's web server; foreign hosts and origins are refused, GraphQL is served as JSON by POST only."""

    def build_routes(self) -> Any:
        return [*report_routes(self._app_path_prefix), *super().build_routes()]  # type: ignore[no-untyped-call]

    def build_middleware(self) -> list[Middleware]:
        prefix = self._app_path_prefix
        links = [Middleware(PrefixedLinks, prefix=prefix)] if prefix else []
        return [Middleware(RequestGuard, allowed_hosts=allowed_hosts()), *super().build_middleware(), *links]

    async def graphql_http_endpoint(self, request: Request) -> Response:
        # This condition is Dagster's own: a GET which accepts HTML is answered with the GraphiQL page, nothing is run.
        is_page = request.method == "GET" and "text/html" in request.headers.get("Accept", "")
        if not is_page and request.method != "POST":
            return PlainTextResponse("Refused: GraphQL is served by POST only\n", 405, {"Allow": "POST"})
        if not is_page and not is_json(request.headers):
            return PlainTextResponse("Refused: a GraphQL request must have the Content-Type application/json\n", 415)
        response: Response = await super().graphql_http_endpoint(request)
        return response


def allowed_hosts() -> list[str]:
    """The names in $EDGEPACK_ALLOWED_HOSTS. Raises ConfigError if one of them is no plain host name."""
    names = os.environ.get(ALLOWED_HOSTS_VARIABLE, "").replace(",", " ").split()
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            raise ConfigError(
                f"--allow-host, {ALLOWED_HOSTS_VARIABLE}: {name!r} is no host name. Write the name alone, without "
                "scheme, port, path or wildcard, for instance edgepack.plant.example"
            )
    return names


def names_code(arguments: Sequence[str]) -> bool:
    """Whether options of `dagster-webserver` say what it loads: a workspace file, a module, a server."""
    command = dagster_webserver.cli.dagster_webserver
    # By click's parser alone: a context would leave out a workspace file that is not there.
    given, _, _ = command.make_parser(click.Context(command, resilient_parsing=True)).parse_args(list(arguments))
    return not given.keys().isdisjoint(_CODE_OPTIONS)


def _heed_signals() -> None:
    """What a script starts with `&` ignores SIGINT. Dagster treats SIGTERM as SIGINT, so that only SIGKILL would end
    it, and tells its own processes by SIGINT to end."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run_webserver() -> None:
    """`dagster-webserver` with the guard; its options are those in sys.argv."""
    _heed_signals()
    allowed_hosts()
    main: Callable[[], None] = dagster_webserver.cli.main
    with patch.object(dagster_webserver.app, "DagsterWebserver", GuardedWebserver):
        main()


def run_dev(arguments: Sequence[str]) -> None:
    """`dagster dev` with the guarded web server in place of its own."""
    _heed_signals()
    allowed_hosts()
    if instance.home().resolve() == instance.default_home().resolve():
        logging.getLogger("dagster").addFilter(_is_not_about_dagster_yaml)
    # It would send people to `dg dev`, which has no guard.
    warnings.filterwarnings("ignore", "Function `dev_command` is superseded")
    with patch.object(dev, "open_ipc_subprocess", _open_guarded):
        # The prefix is that of `dagster dev`, so that its environment variables hold here as well.
        dev.dev_command.main(list(arguments), prog_name="edgepack ui", auto_envvar_prefix="DAGSTER_CLI_DEV")


def _is_not_about_dagster_yaml(record: logging.LogRecord) -> bool:
    """Dagster warns that the dagster.yaml beside edgepack.yaml is not read. Its copy in our home is (instance.py)."""
    return not record.getMessage().startswith("Found a dagster instance configuration value")


def guarded(command: Sequence[str]) -> list[str]:
    """The command of a process that `dagster dev` starts, its web server replaced. An unknown command is refused."""
    python, *rest = command
    match rest:
        case ["-m", "dagster_webserver", *options]:
            return [python, "-m", "edgepack_assets.defs.ui.webserver", *options]
        case ["-m", "dagster._daemon", *_]:
            return list(command)
        case _:
            raise EdgepackError(
                f"`dagster dev` starts {' '.join(rest[:2])!r}, which this version of edgepack-assets does not know: "
                "its web server might run without protection. Install Dagster 1.13"
            )


def _open_guarded(parts: Sequence[str], **options: Any) -> Any:
    return open_ipc_subprocess(guarded(parts), **options)


if __name__ == "__main__":
    run_webserver()
