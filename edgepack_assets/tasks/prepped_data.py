"""The packaged model's fitted preprocessing over the payload's records."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import ComponentError
from edgepack_assets.filesystem.parquet import write_columns
from edgepack_assets.model_types import Plugin
from edgepack_assets.model_types.interface import ArrayType, Prepped
from edgepack_assets.packaging.runner import PackageRunner
from edgepack_assets.partitions import ModelKey
from edgepack_assets.sandbox.child_output import printable
from edgepack_assets.sandbox.jobs import CallJob
from edgepack_assets.sandbox.untrusted_files import open_output
from edgepack_assets.sandbox.untrusted_values import parse_report
from edgepack_assets.tasks.ahead import background_imports
from edgepack_assets.tasks.chain import check_chain
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.failed_checks import failed_rows
from edgepack_assets.tasks.payload_data import open_payload
from edgepack_assets.tasks.pictures import draw_ahead
from edgepack_assets.tasks.plugin_faults import naming_plugin

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ARRAY_LIMIT = 2 << 30
"""Bytes of an array that this process reads: it holds them in memory, and scoring them does too."""
_HEADER = 4096
"""Bytes before the numbers at most; real headers have 128."""
PARQUET = "application/vnd.apache.parquet"


@dataclass(frozen=True)
class PreppedReport:
    """What a person sees of prepped data; `picture` is PNG bytes, None where there is nothing to hold;
    `table_rows` is the number of rows of the table."""

    rows: list[CheckRow]
    picture: bytes | None
    table_rows: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)


def prepare_data(
    key: ModelKey, payload_data: Artefact, config_package: Artefact, context: TaskContext
) -> tuple[Artefact, PreppedReport]:
    """Run `prepare` of the model type in the component's environment. Raises ComponentError."""
    check_chain("prepped_data", key, (payload_data, config_package))
    draw_ahead(key, config_package, payload_data, context)
    implementation = context.model_type(key)
    made_from = {"payload_data": payload_data.digest, "config_package": config_package.digest}
    preparation = implementation.preparation
    if preparation is None:
        return _nothing_to_prepare(key, implementation, made_from)
    lock = context.lock_of(config_package)
    inspection = context.store.read_json(config_package.parts["inspection"])
    payload = open_payload(payload_data, context)
    with context.work_folder() as work:
        environment, child_imports = context.environment(lock), context.child_imports(key, lock)
        context.sandbox.prepare(environment, child_imports)
        package = context.store.fetch(config_package.parts["package"])
        tasks = implementation.folder / "child_tasks.py"
        subject = f"preparing the data of {key}"
        with (
            PackageRunner(package, work, context.sandbox, environment) as runner,
            naming_plugin(implementation, f"prepare should return {preparation.report.__name__} as a dict"),
        ):
            answer = context.sandbox.run(
                subject, environment, child_imports,
                CallJob(runner.component_folder, tasks, "prepare", {"count": payload.count}),
                inputs={"records": payload.records},
                outputs={name: work / f"{name}.npy" for name in preparation.files},
            )  # fmt: skip
        report = parse_report(f"{implementation}: prepare", preparation.report, answer)
        types = implementation.prepared_arrays(subject, report, inspection, payload.count)
        arrays = {name: _load(work / f"{name}.npy", expected) for name, expected in types.items()}
        prepared = implementation.prepared("the prepared data", report, arrays, inspection, payload.count)
        table = work / "prepared.parquet"
        write_columns(table, prepared.columns)
        artefact = Artefact(
            asset="prepped_data",
            partition=str(key),
            parts={preparation.part: context.store.put_file(table, PARQUET)},
            facts={**prepared.facts, **failed_rows(prepared.rows)},
            made_from=made_from,
        )
        background_imports.finish()
        picture = implementation.prepped_picture(Prepped(table))
    rows = len(next(iter(prepared.columns.values())))
    return artefact, PreppedReport(list(prepared.rows), picture, rows, prepared.metadata)


def _nothing_to_prepare(
    key: ModelKey, implementation: Plugin, made_from: dict[str, str]
) -> tuple[Artefact, PreppedReport]:
    why = f"{implementation.name} scores answers directly: there is nothing to prepare"
    artefact = Artefact(asset="prepped_data", partition=str(key), parts={}, facts={"empty": why}, made_from=made_from)
    return artefact, PreppedReport([CheckRow("prepped data", True, "nothing to hold", "nothing to hold")], None)


def open_prepped(artefact: Artefact, context: TaskContext) -> Prepped | None:
    """Prepped data as a local file, or None where there is nothing to hold."""
    tables = list(artefact.parts.values())
    return Prepped(context.store.fetch(tables[0])) if tables else None


def _load(path: Path, expected: ArrayType) -> NDArray[Any]:
    """An array that the child wrote, of exactly that type and shape.

    It is not trusted: the size of the file, which costs the child nothing if the file is sparse, and the header are
    held to what is expected before memory is taken for a single number."""
    import numpy as np
    from numpy.lib import format as npy

    subject, kind, shape = f"the prepared data: {path.name}", np.dtype(expected.dtype), expected.shape
    count = math.prod(shape)
    size = count * kind.itemsize
    if size > _ARRAY_LIMIT:
        raise ComponentError(
            f"{subject} would have {size} bytes ({kind} {shape}); at most {_ARRAY_LIMIT} are read: record less raw data"
        )
    with open_output(path, size + _HEADER, "the prepared data") as stream:
        try:
            readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            actual, by_column, dtype = readers[npy.read_magic(stream)](stream, max_header_size=_HEADER)
        except Exception as error:  # noqa: BLE001 - numpy parses a header as Python, and what it raises has no bound
            raise ComponentError(f"{subject} is no array: {printable(f'{type(error).__name__}: {error}')}") from None
        if dtype != kind or actual != shape:
            raise ComponentError(f"{subject} holds {printable(str(dtype))} {actual!s:.100}, not {kind} {shape}")
        if os.fstat(stream.fileno()).st_size != stream.tell() + size:
            raise ComponentError(f"{subject} has not the bytes of {kind} {shape}")
        values = np.fromfile(stream, kind, count)
    if kind.kind == "U" and size and values.view("<u4").max() > sys.maxunicode:
        raise ComponentError(f"{subject} holds what is no text")
    return values.reshape(shape, order="F" if by_column else "C")
