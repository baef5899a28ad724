"""Checks before `edgepack ui` starts: is the port free, and has this instance such a UI already?"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from dagster._cli import dev

from edgepack_assets.errors import ConfigError

_LOCK = ".edgepack-ui.lock"
_ASSET_GRAPH = "/asset-groups"
_LAST_PORT = 65535
_PATIENCE = 120.0
"""Seconds in which the web server is expected to answer."""


def address(arguments: Sequence[str]) -> tuple[str, int]:
    """Host and port of the options of `dagster dev`; 127.0.0.1 and 3000 where they name none. Raises
    click.UsageError for an option that `dagster dev` does not have, or a value that is none."""
    with dev.dev_command.make_context("edgepack ui", list(arguments), auto_envvar_prefix="DAGSTER_CLI_DEV") as context:
        port = context.params.get("port") or "3000"
        if not str(port).isdecimal():
            raise click.BadParameter(f"{port!r} is not a number", context, param_hint="--port")
        return context.params.get("host") or "127.0.0.1", int(port)


def check_port(host: str, port: int) -> None:
    """Raises ConfigError if there is no such port, or another program has it. Dagster would take another one
    without a word."""
    if not 0 < port <= _LAST_PORT:
        raise ConfigError(f"--port {port}: choose a port from 1 to {_LAST_PORT}")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--host {host}: {error.strerror or error}") from error
    with socket.socket(family, kind, protocol) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(place)
        except OSError as error:
            raise ConfigError(
                f"port {port} of {host} cannot be used ({error.strerror}): stop the program that has it, or choose "
                f"another one: edgepack ui --port {port + 1 if port < _LAST_PORT else port - 1}"
            ) from error


@contextlib.contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Holds the instance's lock of `edgepack ui`. Raises ConfigError if another process has it: two daemons would
    evaluate every sensor twice."""
    with (home / _LOCK).open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            where = stream.read().strip() or "another process"
            raise ConfigError(
                f"the Dagster instance in {home} has a UI and a daemon already ({where}): use that one, or start a UI "
                "without a daemon: edgepack webserver --port 3001"
            ) from None
        except OSError:  # a share that knows no locks
            yield
            return
        stream.truncate(0)
        stream.write(f"process {os.getpid()}")
        stream.flush()
        yield


def show_asset_graph(host: str, port: int) -> str:
    """The address of the asset graph, which is opened in a browser as soon as the web server answers, where a person
    sits in front of this machine."""
    url = f"http://{host}:{port}{_ASSET_GRAPH}"
    if sys.stdout.isatty() and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        threading.Thread(target=_open_when_served, args=(host, port, url), daemon=True).start()
    return url


def _open_when_served(host: str, port: int, url: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            webbrowser.open(url)
            return
        time.sleep(0.5)
