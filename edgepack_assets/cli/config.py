"""`edgepack config`: the schema of edgepack.yaml for editors, and all mistakes in it."""

from __future__ import annotations

import json

import click

from edgepack_assets.cli.outcome import REFUSED, FailureError
from edgepack_assets.errors import ConfigError


@click.group()
def config() -> None:
    """Check edgepack.yaml, or print its schema for editors."""


@config.command()
def schema() -> None:
    """Print the JSON schema of edgepack.yaml.

    Write it into a file, and name that file in the first line of edgepack.yaml:

    \b
      edgepack config schema > .edgepack/schema.json
      # yaml-language-server: $schema=.edgepack/schema.json
    """
    from edgepack_assets.config.json_schema import config_schema

    click.echo(json.dumps(config_schema(), indent=2, ensure_ascii=False))


@config.command()
def check() -> None:
    """Report every mistake in edgepack.yaml.

    Each has its line. Exits with 1 if there is a mistake."""
    from edgepack_assets.operations.config_check import check_config

    try:
        settings = check_config()
    except ConfigError as error:
        raise FailureError(str(error), REFUSED) from error
    names = ", ".join(settings.model_types)
    click.echo(f"{settings.file} is valid; model types: {names}")
