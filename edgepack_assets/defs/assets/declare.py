"""What every asset module shares: the partitions, the way an asset is declared, evidence as metadata, errors."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow, all_pass, in_words
from edgepack_assets.defs.failures import as_dagster_failure
from edgepack_assets.defs.io_manager import MADE_FROM
from edgepack_assets.partitions import PARTITIONS_NAME, ModelKey

MODELS = dg.DynamicPartitionsDefinition(name=PARTITIONS_NAME)
IO_MANAGER = "artefact_io"
ARTEFACT = dg.PythonObjectDagsterType(Artefact, name="Artefact", description=Artefact.__doc__)
GROUP = "edge_packaging"
OWNERS = ["team:edge-packaging"]
_LONGEST_CELL = 2_000
"""Characters; every event lies in Dagster's database."""


def asset_options(
    check: str,
    asserts: str,
    asset: str,
    *,
    kinds: set[str],
    code_version: str,
    warnings: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The arguments that all six assets give to `dg.asset`. `warnings` are further checks, which block nothing, and
    what they assert."""
    return {
        "partitions_def": MODELS,
        "io_manager_key": IO_MANAGER,
        # said here because Dagster reads the annotation MaterializeResult as "no value"
        "dagster_type": ARTEFACT,
        "group_name": GROUP,
        "owners": OWNERS,
        "kinds": kinds,
        "code_version": code_version,
        "check_specs": [
            dg.AssetCheckSpec(check, asset=asset, blocking=True, description=asserts),
            *(dg.AssetCheckSpec(name, asset=asset, description=text) for name, text in (warnings or {}).items()),
        ],
    }


def run_config_schema(**texts: str) -> dict[str, dg.Field]:
    """The schema of an asset's run configuration: optional texts, each with its description.

    No `dg.Config`: in its place of a text a run may name a variable of Dagster's environment, `{"env": "NAME"}`, and
    whoever may launch one would read the secrets there in an error or in the package's tags."""
    return {
        name: dg.Field(dg.Noneable(str), is_required=False, default_value=None, description=text)
        for name, text in texts.items()
    }


def run_config(context: dg.AssetExecutionContext, name: str) -> str:
    """A text of the run configuration, without space around it; empty if there is none."""
    return (context.op_execution_context.op_config[name] or "").strip()


@contextmanager
def user_errors(context: dg.AssetExecutionContext) -> Iterator[ModelKey]:
    """Give the partition's key, and turn an error meant for the user into a failure that is not retried, or into a
    bounded number of retries if it may pass."""
    asset = context.asset_key.to_user_string()
    with as_dagster_failure(f"{asset} of {context.partition_key}", context.retry_number):
        yield ModelKey.parse(context.partition_key)


def result(
    artefact: Artefact,
    check: str,
    rows: Iterable[CheckRow],
    metadata: Mapping[str, Any],
    warnings: Mapping[str, Iterable[CheckRow]] | None = None,
    tags: Mapping[str, str] | None = None,
) -> dg.MaterializeResult[Artefact]:
    """The asset's value with its metadata, its data version, its check and those that only warn."""
    return dg.MaterializeResult(
        value=artefact,
        metadata={
            **metadata,
            "digest": artefact.digest,
            MADE_FROM: dg.MetadataValue.json(artefact.made_from),
        },
        data_version=dg.DataVersion(artefact.digest),
        tags=tags,
        check_results=[
            _check(check, artefact.partition, rows, dg.AssetCheckSeverity.ERROR),
            *(
                _check(name, artefact.partition, warning_rows, dg.AssetCheckSeverity.WARN)
                for name, warning_rows in (warnings or {}).items()
            ),
        ],
    )


def _check(name: str, partition: str, rows: Iterable[CheckRow], severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    rows = list(rows)
    return dg.AssetCheckResult(
        passed=all_pass(rows),
        check_name=name,
        severity=severity,
        description=in_words(rows) or "every row holds",
        # The check's page shows the last evaluation, and would not say of which partition that is.
        metadata={"partition": partition, "parts": rows_table(rows)},
    )


def rows_table(rows: Iterable[CheckRow]) -> dg.TableMetadataValue:
    """A check's rows as a table; references and margins have columns where there are any."""
    rows = list(rows)
    extra = [name for name in ("reference", "margin", "warns") if any(getattr(row, name) for row in rows)]
    return table(
        {"part": row.name, "holds": row.passed, "found": row.found, "wanted": row.wanted}
        | {name: getattr(row, name) for name in extra}
        for row in rows
    )


def table(rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Rows of equal keys as a table of the UI; an empty one says so."""
    cells = [{str(name): _cell(value) for name, value in row.items()} for row in rows]
    records = [dg.TableRecord(row) for row in cells or [{"": "none"}]]
    kinds = {bool: "bool", int: "int", float: "float", str: "string"}
    columns = [dg.TableColumn(name, kinds[type(value)]) for name, value in records[0].data.items()]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=columns))


def _cell(value: object) -> str | int | float | bool:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, (int, bool)):
        return value
    text = str(value)
    return text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}..."


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG that the UI shows where the metadata stands."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")
