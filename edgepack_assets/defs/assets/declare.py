"""What every asset module shares: the partitions, the way an asset is declared, evidence as metadata, errors."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow, all_pass, in_words
from edgepack_assets.defs.failures import PlainFailure, as_dagster_failure
from edgepack_assets.defs.io_manager import MADE_FROM
from edgepack_assets.defs.model_partitions import MODELS
from edgepack_assets.errors import CheckFailedError
from edgepack_assets.partitions import ModelKey

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
    only_warn: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The arguments that all six assets give to `dg.asset`. `only_warn` are further checks, which block nothing,
    and what they assert."""
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
            _check_spec(check, asset, asserts, blocking=True),
            *(_check_spec(name, asset, text) for name, text in (only_warn or {}).items()),
        ],
    }


def _check_spec(name: str, asset: str, asserts: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        # The UI shows a partitioned check for each model version, another one only as of the last run, whichever
        # version that was of. Dagster calls the argument a preview; a test holds what is relied on.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(name, asset=asset, blocking=blocking, description=asserts, partitions_def=MODELS)


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
    context: dg.AssetExecutionContext,
    artefact: Artefact,
    check: str,
    rows: Iterable[CheckRow],
    metadata: Mapping[str, Any],
    only_warn: Mapping[str, Iterable[CheckRow]] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[dg.MaterializeResult[Artefact]]:
    """Yield the asset's value with its metadata, its data version, its check and those that only warn. Then fail if
    the check does not hold."""
    rows = list(rows)
    yield dg.MaterializeResult(
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
                _check(name, artefact.partition, warned, dg.AssetCheckSeverity.WARN)
                for name, warned in (only_warn or {}).items()
            ),
        ],
    )
    raise_if_failed(context, f"{artefact.asset}.{check} of {artefact.partition}", rows)


def raise_if_failed(context: dg.AssetExecutionContext, subject: str, rows: Sequence[CheckRow]) -> None:
    """Raise a PlainFailure with the rows of a blocking check that do not hold, if the check does not.

    Dagster itself would fail the step as well, but only with the check's name."""
    if not all_pass(rows):
        _show_as_failed(context)
        reason = in_words(row for row in rows if not row.warns) or "the check has no rows"
        raise PlainFailure(f"{subject}: {reason}", CheckFailedError.__name__)


def _show_as_failed(context: dg.AssetExecutionContext) -> None:
    """Have the UI's list of partitions show this one as failed, not as materialized.

    Dagster calls a partition failed if its run failed and did not materialize it after it was planned to. A value whose
    check failed is materialized, for what it shows; so it is planned once more."""
    planned = DagsterEvent.build_asset_materialization_planned_event(
        context.run.job_name,
        context.op_execution_context.get_step_execution_context().step.key,
        AssetMaterializationPlannedData(context.asset_key, partition=context.partition_key),
    )
    context.instance.report_dagster_event(planned, context.run_id)


def _check(name: str, partition: str, rows: Iterable[CheckRow], severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    rows = list(rows)
    return dg.AssetCheckResult(
        passed=all_pass(rows),
        check_name=name,
        severity=severity,
        description=in_words(rows) or "every row holds",
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
