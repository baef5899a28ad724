"""The packaged model's fitted preprocessing over the payload's records."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import ComponentError
from edgepack_assets.filesystem.parquet import write_columns
from edgepack_assets.model_types.interface import Prepped
from edgepack_assets.packaging.runner import PackageRunner
from edgepack_assets.partitions import ModelKey
from edgepack_assets.sandbox.child_output import printable
from edgepack_assets.sandbox.jobs import CallJob
from edgepack_assets.sandbox.untrusted_files import open_output
from edgepack_assets.sandbox.untrusted_values import UntrustedReport, parse_report
from edgepack_assets.tasks import background_imports
from edgepack_assets.tasks.chain import check_chain
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.failed_checks import failed_rows
from edgepack_assets.tasks.payload_data import open_payload

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ARRAY_LIMIT = 2 << 30
"""Bytes of features that this process reads: it holds them in memory, and scoring them does too."""
_HEADER = 4096
"""Bytes before the numbers at most; real headers have 128."""
PARQUET = "application/vnd.apache.parquet"


class _PreparedReport(UntrustedReport):
    """What `prepare` tells: windows, features of each, windows with values that nothing fills."""

    windows: int = Field(ge=0)
    features: int = Field(ge=0)
    unfilled: int = Field(ge=0)


@dataclass(frozen=True)
class PreppedReport:
    """What a person sees of prepped data; `picture` is PNG bytes, None where there is nothing to hold."""

    parts: list[CheckRow]
    picture: bytes | None


def prepare_data(
    key: ModelKey, payload_data: Artefact, config_package: Artefact, tools: TaskContext
) -> tuple[Artefact, PreppedReport]:
    """Run `prepare` of the model type in the component's environment. Raises ComponentError."""
    check_chain("prepped_data", key, (payload_data, config_package))
    implementation = tools.model_type(key)
    made_from = {"payload_data": payload_data.digest, "config_package": config_package.digest}
    if not implementation.prepares_data:
        why = f"{implementation.name} scores answers directly: there is nothing to prepare"
        artefact = Artefact(
            asset="prepped_data", partition=str(key), parts={}, facts={"empty": why}, made_from=made_from
        )
        return artefact, PreppedReport([CheckRow("prepped data", True, "nothing to hold", "nothing to hold")], None)
    lock = tools.lock_of(config_package)
    inspection = tools.store.read_json(config_package.parts["inspection"])
    payload = open_payload(payload_data, tools)
    with tools.work_folder() as work:
        environment, child_imports = tools.environment(lock), tools.child_imports(key, lock)
        tools.sandbox.prepare(environment, child_imports)
        package = tools.store.fetch(config_package.parts["package"])
        with PackageRunner(package, work, tools.sandbox, environment) as runner:
            what = f"preparing the data of {key}"
            answer = tools.sandbox.run(
                what,
                environment,
                child_imports,
                CallJob(
                    runner.component_folder,
                    implementation.folder / "child_tasks.py",
                    "prepare",
                    {"count": payload.count},
                ),
                inputs={"records": payload.records},
                outputs={name: work / f"{name}.npy" for name in ("features", "windows")},
            )
        told = parse_report(what, _PreparedReport, answer)
        _check_counts(what, told, inspection, payload.count)
        features = _to_parquet(work, inspection, payload.count, told)
        parts = [
            CheckRow("windows", told.windows > 0, str(told.windows), "at least 1"),
            CheckRow(
                "features",
                told.features == inspection["features"],
                str(told.features),
                f"{inspection['features']}, as the model's clustering takes",
            ),
            CheckRow(
                "windows with values",
                told.unfilled < told.windows,
                f"{told.windows - told.unfilled} of {told.windows}",
                "at least 1",
            ),
        ]
        artefact = Artefact(
            asset="prepped_data",
            partition=str(key),
            parts={"features": tools.store.put_file(features, PARQUET)},
            facts={
                "windows": told.windows,
                "features": told.features,
                "unfilled_windows": told.unfilled,
                **failed_rows(parts),
            },
            made_from=made_from,
        )
        background_imports.finish()
        picture = implementation.prepped_picture(Prepped(features))
    return artefact, PreppedReport(parts, picture)


def open_prepped(artefact: Artefact, tools: TaskContext) -> Prepped | None:
    """Prepped data as a local file, or None where there is nothing to hold."""
    return Prepped(tools.store.fetch(artefact.parts["features"])) if artefact.parts else None


def _check_counts(what: str, told: _PreparedReport, inspection: Mapping[str, Any], records: int) -> None:
    """Hold the counts to the payload and to what the inspection found, before anything of that size is read."""
    size, step = inspection["window_size"], inspection["window_step"]
    expected = max(0, (records - size) // step + 1)
    if told.windows != expected or told.unfilled > told.windows:
        raise ComponentError(
            f"{what} gave {told.windows} windows, {told.unfilled} of them unfilled; {records} records have {expected} "
            f"windows of {size}, {step} apart"
        )
    if told.features != len(inspection["feature_names"]):
        raise ComponentError(
            f"{what} gave {told.features} features; the inspection found {len(inspection['feature_names'])}"
        )


def _to_parquet(work: Path, inspection: Mapping[str, Any], records: int, told: _PreparedReport) -> Path:
    names = inspection["feature_names"]
    features = _load(work / "features.npy", "float64", (told.windows, len(names)))
    windows = _load(work / "windows.npy", "int64", (told.windows, 2))
    numbers, predictions = windows[:, 0], windows[:, 1]
    if (numbers[:1] < 0).any() or (numbers[-1:] >= records).any() or (numbers[1:] <= numbers[:-1]).any():
        raise ComponentError(f"the prepared data: the windows' record numbers do not rise from 0 to {records - 1}")
    if (predictions < -1).any() or (predictions >= inspection["clusters"]).any():
        raise ComponentError(f"the prepared data: predictions are not states from 0 to {inspection['clusters'] - 1}")
    if int((predictions == -1).sum()) != told.unfilled:
        raise ComponentError(f"the prepared data: not {told.unfilled} windows are without a prediction, as told")
    columns = {"record": numbers, "model_prediction": predictions}
    columns |= {name: features[:, i] for i, name in enumerate(names)}
    path = work / "features.parquet"
    write_columns(path, columns)
    return path


def _load(path: Path, kind: str, shape: tuple[int, int]) -> NDArray[Any]:
    """An array that the child wrote, of exactly that type and shape.

    It is not trusted: the size of the file, which costs the child nothing if the file is sparse, and the header are
    held to what is expected before memory is taken for a single number."""
    import numpy as np
    from numpy.lib import format as npy

    what = f"the prepared data: {path.name}"
    size = shape[0] * shape[1] * 8
    if size > _ARRAY_LIMIT:
        raise ComponentError(
            f"{what} would have {size} bytes ({shape[0]} windows of {shape[1]} features); at most {_ARRAY_LIMIT} are "
            "read: record less raw data, or let the windows lie further apart"
        )
    with open_output(path, size + _HEADER, "the prepared data") as stream:
        try:
            readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            found, by_column, dtype = readers[npy.read_magic(stream)](stream, max_header_size=_HEADER)
        except Exception as error:  # noqa: BLE001 - numpy parses a header as Python, and what it raises has no bound
            raise ComponentError(f"{what} is no array: {printable(f'{type(error).__name__}: {error}')}") from None
        if dtype != np.dtype(kind) or found != shape:
            raise ComponentError(f"{what} holds {printable(str(dtype))} {found!s:.100}, not {kind} {shape}")
        if os.fstat(stream.fileno()).st_size != stream.tell() + size:
            raise ComponentError(f"{what} has not the bytes of {kind} {shape}")
        numbers = np.fromfile(stream, np.dtype(kind), shape[0] * shape[1])
    return numbers.reshape(shape, order="F" if by_column else "C")
