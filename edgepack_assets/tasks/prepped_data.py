"""The packaged model's fitted preprocessing over the payload's records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from edgepack_assets.artefacts import Artefact
from edgepack_assets.columns import write_columns
from edgepack_assets.errors import ComponentError
from edgepack_assets.evidence import Part
from edgepack_assets.model_types.base import Prepped
from edgepack_assets.partitions import ModelKey
from edgepack_assets.runtime.child_output import printable
from edgepack_assets.runtime.made import open_output
from edgepack_assets.runtime.runner import PackageRunner
from edgepack_assets.runtime.told import Told, as_told
from edgepack_assets.tasks import ahead
from edgepack_assets.tasks.chain import check_chain
from edgepack_assets.tasks.payload_data import open_payload
from edgepack_assets.tasks.tools import Tools

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ARRAY_LIMIT = 16 * 1000**3
_HEADER = 4096
"""Bytes before the numbers; real headers have 128."""
PARQUET = "application/vnd.apache.parquet"


class _Prepared(Told):
    """What `prepare` tells: windows, features of each, windows with values that nothing fills."""

    windows: int = Field(ge=0)
    features: int = Field(ge=0)
    unfilled: int = Field(ge=0)


@dataclass(frozen=True)
class PreppedReport:
    """What a person sees of prepped data; `picture` is PNG bytes, None where there is nothing to hold."""

    parts: list[Part]
    picture: bytes | None


def prepare_data(
    key: ModelKey, payload_data: Artefact, config_package: Artefact, tools: Tools
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
        return artefact, PreppedReport([Part("prepped data", True, "nothing to hold", "nothing to hold")], None)
    lock = tools.lock_of(config_package)
    inspection = tools.store.read_json(config_package.parts["inspection"])
    payload = open_payload(payload_data, tools)
    with tools.work_folder() as work:
        environment, preload = tools.environment(lock), tools.preload(key, lock)
        tools.sandbox.prepare(environment, preload)
        package = tools.store.fetch(config_package.parts["package"])
        with PackageRunner(package, work, tools.sandbox, environment) as runner:
            what = f"preparing the data of {key}"
            answer = tools.sandbox.run(
                what,
                environment,
                preload,
                {
                    "task": "call",
                    "folder": str(runner.component_folder),
                    "file": str(implementation.folder / "child_tasks.py"),
                    "function": "prepare",
                    "arguments": {"count": payload.count},
                },
                inputs={"records": payload.records},
                outputs={name: work / f"{name}.npy" for name in ("features", "windows")},
            )
        told = as_told(what, _Prepared, answer)
        features = _to_parquet(work, inspection["feature_names"], payload.count, told.windows)
        artefact = Artefact(
            asset="prepped_data",
            partition=str(key),
            parts={"features": tools.store.put_file(features, PARQUET)},
            facts={"windows": told.windows, "features": told.features, "unfilled_windows": told.unfilled},
            made_from=made_from,
        )
        ahead.finish()
        picture = implementation.prepped_picture(Prepped(features))
    parts = [
        Part("windows", told.windows > 0, str(told.windows), "at least 1"),
        Part(
            "features",
            told.features == inspection["features"],
            str(told.features),
            f"{inspection['features']}, as the model's clustering takes",
        ),
        Part(
            "windows with values",
            told.unfilled < told.windows,
            f"{told.windows - told.unfilled} of {told.windows}",
            "at least 1",
        ),
    ]
    return artefact, PreppedReport(parts, picture)


def open_prepped(artefact: Artefact, tools: Tools) -> Prepped | None:
    """Prepped data as a local file, or None where there is nothing to hold."""
    return Prepped(tools.store.fetch(artefact.parts["features"])) if artefact.parts else None


def _to_parquet(work: Path, names: list[str], records: int, told: int) -> Path:
    import numpy as np

    features = _load(work / "features.npy", np.float64, records * len(names))
    windows = _load(work / "windows.npy", np.int64, records * 2)
    if features.shape != (told, len(names)) or windows.shape != (told, 2):
        raise ComponentError(
            f"the prepared data is not one row of {len(names)} features for each of {told} windows: features "
            f"{features.shape}, windows {windows.shape}"
        )
    columns = {"record": windows[:, 0], "model_prediction": windows[:, 1]}
    columns |= {name: features[:, i] for i, name in enumerate(names)}
    path = work / "features.parquet"
    write_columns(path, columns)
    return path


def _load(path: Path, kind: type[np.generic], numbers: int) -> NDArray[Any]:
    """An array that the child wrote, of at most so many numbers of that kind. It is not trusted: without pickles numpy
    reads numbers and nothing else, and a header may tell of more than there is."""
    import numpy as np

    with open_output(path, min(_ARRAY_LIMIT, numbers * 8 + _HEADER), "the prepared data") as stream:
        try:
            found: NDArray[Any] = np.load(stream, allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError, OverflowError, RecursionError, TypeError) as error:
            raise ComponentError(f"the prepared data: {path.name} is no array: {printable(str(error))}") from None
    if not isinstance(found, np.ndarray) or found.dtype != kind:
        raise ComponentError(f"the prepared data: {path.name} is no array of {kind.__name__}")
    return found
