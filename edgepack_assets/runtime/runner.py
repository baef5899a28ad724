"""Running a package as the inference server would: the SDK's LocalPipelineRunner with a ready environment.

Its reading of packages and parameters is the SDK's own code. What differs: nothing is installed (the
environment is kept, and holds exactly the package's wheels), records and answers cross the process border as
JSON lines, records without an answer are kept, types are checked strictly, and no telemetry is written.
"""

from __future__ import annotations

import gzip
import logging
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgepack_assets.errors import ComponentError, PackageError
from edgepack_assets.files import disk_errors
from edgepack_assets.runtime.environments import Environment
from edgepack_assets.runtime.sandbox import Sandbox, open_output
from edgepack_assets.runtime.sdk import quiet_import
from edgepack_assets.runtime.zips import checked_names, opened_zip

with quiet_import():
    from simaticai.testing import pipeline_runner

_RESULTS_LIMIT = 16 * 1000**3
_LONGEST_LINE = 16 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True)
class PackageRun:
    """What a run gave: files of results and per-record seconds, counts, latency (seconds: p50, p95, max, sum)."""

    results: Path
    times: Path
    records: int
    answered: int
    latency: dict[str, float]


class _Told(BaseModel):
    """What the child tells of a run; it is not trusted to tell it as child.py does."""

    model_config = ConfigDict(strict=True, extra="forbid")
    records: int = Field(ge=0)
    answered: int = Field(ge=0)
    latency: dict[str, float]


class _NoReport:
    """Stands in for the SDK's report, for which it would read every zip inside the package into memory, the
    model's own files included."""

    def set_package_zip_path(self, path: Path) -> None:
        """What the SDK calls on entering a runner."""


class PackageRunner(pipeline_runner.LocalPipelineRunner):  # type: ignore[misc]
    """Runs the one component of a config or deployment package. Use as a context manager."""

    def __init__(self, package: Path, work: Path, sandbox: Sandbox, environment: Environment) -> None:
        before = list(pipeline_runner._logger.handlers)
        # A folder of its own: two runners in one would mix their files.
        folder = Path(tempfile.mkdtemp(prefix="package-", dir=work))
        super().__init__(package, path=folder, cleanup=False, loglevel=logging.WARNING)
        pipeline_runner._logger.handlers[:] = before  # the SDK adds one per runner and never takes it away
        self.report_writer = _NoReport()
        self._work = work
        self._sandbox = sandbox
        self._environment = environment

    def __enter__(self) -> PackageRunner:
        """Check the package and extract it. Raises PackageError if it is not one."""
        name = self.package_zip.name
        with opened_zip(self.package_zip, name) as archive:
            for entry in checked_names(archive, name):
                if entry.startswith("components/"):
                    inside = f"{name}/{entry}"
                    with archive.open(entry) as stream, opened_zip(stream, inside) as component:
                        checked_names(component, inside)
        try:
            with disk_errors(self.path):
                super().__enter__()
        except (RuntimeError, IndexError) as error:
            raise PackageError(f"{name}: is not a pipeline package: {error.__context__ or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the work folder to its owner; the SDK would write telemetry into the package here."""

    @property
    def component(self) -> dict[str, Any]:
        """The package's one component. Raises PackageError if there are several."""
        if len(self.components) != 1:
            raise PackageError(f"{self.package_zip.name} has {len(self.components)} components; one is supported")
        component: dict[str, Any] = next(iter(self.components.values()))
        return component

    @property
    def component_folder(self) -> Path:
        """Where the component's files lie, extracted."""
        return Path(self.component["env_dir"])

    def run(self, what: str, records: Path, preload: Iterable[str], until_answers: int | None = None) -> PackageRun:
        """Feed `records` (gzipped JSON lines) to the component, all of them or until it gave that many answers.

        Raises TaskFailedError with the component's traceback and the record, or ComponentError."""
        component = self.component
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self._work))
        results, times = folder / "results.jsonl.gz", folder / "times.f64"
        value = self._sandbox.run(
            what,
            self._environment,
            preload,
            {
                "task": "run",
                "folder": str(self.component_folder),
                "entrypoint": Path(component["entrypoint"]).stem,
                "parameters": {p["name"]: p["defaultValue"] for p in self.parameters.values()},
                "inputs": component["inputType"],
                "outputs": component["outputType"],
                "records": str(records),
                "results": str(results),
                "times": str(times),
                "until_answers": until_answers,
            },
        )
        try:
            told = _Told.model_validate(value)
        except ValidationError as error:
            raise ComponentError(f"{what} told something else than a run's result: {error}") from None
        _check_results(what, results, told.records)
        with open_output(times, 8 * told.records, what):
            pass
        return PackageRun(results, times, told.records, told.answered, told.latency)


def _check_results(what: str, results: Path, records: int) -> None:
    """One line per record, none so long that it would not fit into memory: what reads them goes by lines."""
    lines = length = longest = 0
    try:
        with open_output(results, _RESULTS_LIMIT, what) as stream, gzip.open(stream) as unpacked:
            while chunk := unpacked.read(_CHUNK):
                first, last = chunk.find(b"\n"), chunk.rfind(b"\n")
                lines += chunk.count(b"\n")
                longest = length + (len(chunk) if first < 0 else first)
                length = longest if first < 0 else len(chunk) - last - 1
                if longest > _LONGEST_LINE or lines > records:
                    break
    except (OSError, EOFError, zlib.error) as error:
        raise ComponentError(f"{what} left results that cannot be read: {error}") from None
    if lines != records or length or longest > _LONGEST_LINE:
        raise ComponentError(f"{what} left results that are not one line for each of {records} records")
