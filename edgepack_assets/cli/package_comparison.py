"""`edgepack package compare`, `run` and `verify-run`: what packages answer, beside each other or to a recording."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import click

from edgepack_assets.cli.outcome import REFUSED, FailureError, print_json
from edgepack_assets.cli.package_names import find_candidate, find_package, package_argument
from edgepack_assets.cli.written_file import WrittenFile
from edgepack_assets.config.loader import load_settings
from edgepack_assets.filesystem.atomic_files import writing
from edgepack_assets.operations.compare_packages import compare_two, package_key
from edgepack_assets.operations.run_packages import run_recording
from edgepack_assets.operations.run_packages import verify_run as verify
from edgepack_assets.operations.save_answers import FORMATS, save_answers
from edgepack_assets.operations.task_context import task_context
from edgepack_assets.registry import open_registry
from edgepack_assets.tasks.reports.comparison import Comparison, comparison_page
from edgepack_assets.text_format import counted, format_latency, format_table, plain

_SHOWN = 20
"""Records that differ, and answers on a terminal."""


def _log() -> logging.Logger:
    """What is being done, on stderr: building an environment may take a minute."""
    log = logging.getLogger("edgepack_assets.package")
    log.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    return log


_json = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@_json
@click.option("--html", type=WrittenFile(), metavar="FILE", help="Write a page with a picture there.")
def compare(first: str, second: str, as_json: bool, html: Path | None) -> None:
    """Compare two packages or model versions.

    It shows metrics, latency, sizes, requirements, files, and how the answers differ.

    A and B are model versions (state_identifier:3, state_identifier:latest) or packages (State-Identifier-edge:2). A
    model version stands for its newest package, or for what was validated last if it has none. Answers are compared on
    the same payload: as recorded, else both are run in the sandbox."""
    settings = load_settings()
    with task_context(settings, open_registry(settings), _log()) as context:
        comparison = compare_two(find_candidate(first, context), find_candidate(second, context), context)
    if html is not None:
        with writing(html) as stream:
            stream.write(comparison_page(comparison))
    if as_json:
        print_json(comparison.as_json())
        return
    click.echo(_as_text(comparison))
    if html is not None:
        click.echo(f"\nthe page is in {html}")


def _as_text(comparison: Comparison) -> str:
    heads = ("PART", "NAME", comparison.before.name, comparison.now.name, "DIFFERENCE")
    lines = [format_table([heads, *(astuple(row) for row in comparison.rows)])]
    parts = {row.part for row in comparison.rows}
    same = [f"{part}s" for part in ("requirement", "file") if part not in parts]
    if same:
        lines.append(f"the same in both: {', '.join(same)}")
    lines += ["", comparison.answers_in_words]
    answers = comparison.answers
    if answers is None:
        return "\n".join(lines)
    if answers.table:
        lines += ["", _cells(answers.table)]
    if answers.first:
        rows = [("RECORD", "FILE", comparison.before.name, comparison.now.name)]
        rows += [(str(e.record), e.file, f"{plain(e.before)}", f"{plain(e.now)}") for e in answers.first[:_SHOWN]]
        lines += ["", format_table(rows if answers.has_files else [(row[0], *row[2:]) for row in rows])]
        if answers.differing > _SHOWN:
            lines.append(f"... {answers.differing - _SHOWN} more differ; --json names up to 1,000")
    return "\n".join(lines)


def _cells(rows: Iterable[Mapping[str, Any]]) -> str:
    listed = list(rows)
    return format_table([tuple(listed[0]), *(tuple(str(value) for value in row.values()) for row in listed)])


@click.command("run")
@package_argument
@click.argument("recording", type=click.Path(path_type=Path))
@click.option(
    "--output-file", type=WrittenFile(), metavar="FILE",
    help=f"Save the answers there; the ending says how: {', '.join(FORMATS)}.",
)  # fmt: skip
@_json
def run_package(package_version: str, recording: Path, output_file: Path | None, as_json: bool) -> None:
    """Run a registered package on a recording or on images.

    RECORDING is what its model type takes as raw data, without labels: a Parquet file, an image, a folder. The package
    runs in the sandbox, as on the server; nothing is registered."""
    if output_file is not None and output_file.suffix.lower() not in FORMATS:
        raise click.BadParameter(f"{output_file}: ends in none of {', '.join(FORMATS)}", param_hint="--output-file")
    settings = load_settings()
    registry = open_registry(settings)
    model_type, package = find_package(package_version, settings, registry)
    key = package_key(model_type, package, settings)
    with (
        task_context(settings, registry, _log()) as context,
        run_recording(key, package, recording, context) as answers,
    ):
        rows = [{name: plain(value) for name, value in row.items()} for row in answers.rows()]
        if output_file is not None:
            save_answers(rows, output_file)
    if as_json:
        print_json(rows)
    elif output_file is None and rows:
        shown = rows[:_SHOWN] if sys.stdout.isatty() else rows
        click.echo(_cells(shown))
        if len(shown) < len(rows):
            click.echo(f"... {len(rows) - len(shown)} more; --output-file saves them all")
    where = f"; the answers are in {output_file}" if output_file is not None else ""
    speed = f", {format_latency(answers.latency['p50'])} for a record (median)"
    click.echo(f"{package} answered {answers.answered} of {counted(answers.records, 'record')}{speed}{where}", err=True)


@click.command("verify-run")
@package_argument
@_json
def verify_run(package_version: str, as_json: bool) -> None:
    """Run a package again and compare its answers.

    It is run on the payload that it was validated with, and must answer as it did then. If the artefact store does not
    have that any more, it is run on the raw data that edgepack.yaml names now. Exits with 1 if answers differ, or if
    there are none to compare with."""
    settings = load_settings()
    registry = open_registry(settings)
    model_type, package = find_package(package_version, settings, registry)
    key = package_key(model_type, package, settings)
    with task_context(settings, registry, _log()) as context:
        verified = verify(key, package, context)
    if as_json:
        print_json({
            "package": str(package), "payload": verified.payload, "records": verified.records,
            "answered": verified.answered, "recorded": verified.recorded, "differing": verified.differing,
            "first": list(verified.first), "same": verified.is_same,
        })  # fmt: skip
    if not verified.is_same:
        raise FailureError(f"{package}: {verified}", REFUSED)
    if not as_json:
        click.echo(f"{package}: {verified}")
