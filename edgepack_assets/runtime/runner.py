"""Running a package as the inference server would: the SDK's LocalPipelineRunner with a ready environment.

Its reading of packages and parameters is the SDK's own code. What differs: nothing is installed (the
environment is kept, and holds exactly the package's wheels), records and answers cross the process border as
JSON lines, records without an answer are kept, types are checked strictly, and no telemetry is written.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack_assets.errors import PackageError
from edgepack_assets.runtime.environments import Environment
from edgepack_assets.runtime.sandbox import Sandbox
from edgepack_assets.runtime.sdk import quiet_import
from edgepack_assets.runtime.zips import checked_names

with quiet_import():
    from simaticai.testing import pipeline_runner


@dataclass(frozen=True)
class PackageRun:
    """What a run gave: files of results and per-record seconds, counts, latency (seconds: p50, p95, max, sum)."""

    results: Path
    times: Path
    records: int
    answered: int
    latency: dict[str, float]


class PackageRunner(pipeline_runner.LocalPipelineRunner):  # type: ignore[misc]
    """Runs the one component of a config or deployment package. Use as a context manager."""

    def __init__(self, package: Path, work: Path, sandbox: Sandbox, environment: Environment) -> None:
        before = list(pipeline_runner._logger.handlers)
        super().__init__(package, path=work / "package", cleanup=False, loglevel=logging.WARNING)
        pipeline_runner._logger.handlers[:] = before  # the SDK adds one per runner and never takes it away
        self._work = work
        self._sandbox = sandbox
        self._environment = environment

    def __enter__(self) -> PackageRunner:
        with zipfile.ZipFile(self.package_zip) as archive:
            checked_names(archive, self.package_zip.name)
        super().__enter__()
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
        results, times = self._work / "results.jsonl.gz", self._work / "times.f64"
        told = self._sandbox.run(what, self._environment, preload, {
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
        })
        return PackageRun(results, times, told["records"], told["answered"], told["latency"])
