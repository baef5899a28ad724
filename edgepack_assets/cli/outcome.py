"""How every command ends: its exit code, its error in a sentence, and its JSON."""

from __future__ import annotations

import errno
import json
from typing import Any

import click

from edgepack_assets.azure.errors import AccessError
from edgepack_assets.errors import (
    ConfigError,
    EdgepackError,
    InfrastructureError,
    IsolationError,
    NotFoundError,
    PartitionKeyError,
    PluginError,
    TransientError,
)

REFUSED, USAGE, INFRASTRUCTURE, INTERRUPTED = 1, 2, 3, 130
"""Exit codes, the same in every command: what was named is refused or a check does not hold; the command line or
edgepack.yaml is wrong, or names what is not there; something that it needs failed, so that the same may succeed later;
Ctrl-C."""
_USAGE = (ConfigError, NotFoundError, PartitionKeyError, PluginError)
_INFRASTRUCTURE = (TransientError, InfrastructureError, IsolationError, AccessError)
_JSON_WAS_PRINTED = f"{__name__}.json_was_printed"


class FailureError(click.ClickException):
    """An error with an exit code of its own."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc] # click reads it from the error that it caught


def failure_of(error: EdgepackError | OSError | KeyboardInterrupt) -> FailureError:
    """The same as click shows it: a sentence, and the exit code of its kind."""
    if isinstance(error, KeyboardInterrupt):
        return FailureError("interrupted", INTERRUPTED)
    if isinstance(error, OSError):
        if error.errno == errno.EPIPE:
            raise error  # whoever read the output has gone: click ends quietly
        where = f"{error.filename}: " if error.filename else ""
        return FailureError(f"{where}{error.strerror or error}", INFRASTRUCTURE)
    code = USAGE if isinstance(error, _USAGE) else INFRASTRUCTURE if isinstance(error, _INFRASTRUCTURE) else REFUSED
    return FailureError(str(error), code)


def print_json(value: Any) -> None:
    """Print one JSON value, the only thing that goes to stdout. Numbers that JSON does not have (NaN) become null."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=2, ensure_ascii=False)
    click.get_current_context().meta[_JSON_WAS_PRINTED] = True
    click.echo(text)


def print_json_error(error: click.ClickException) -> None:
    """With --json, stdout holds JSON in any case: the error, where nothing was printed before it."""
    if not click.get_current_context().meta.get(_JSON_WAS_PRINTED):
        print_json({"error": error.format_message(), "exit_code": error.exit_code})
