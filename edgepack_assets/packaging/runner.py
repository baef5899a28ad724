"""Running a package as the inference server would, with the semantics of the SDK's LocalPipelineRunner.

What differs, and why it is not the SDK's class: nothing is installed (the environment is kept, and holds exactly the
package's wheels), records and answers cross the process border as JSON lines and not as pickles of the component's,
records without an answer are kept, types are checked strictly, zips are not trusted, no telemetry is written, and two
seconds of importing the SDK are saved. A parity test holds it to the SDK's own runner, on both kinds of package.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import ComponentError, PackageError
from edgepack_assets.filesystem.atomic_files import READ_ONLY, disk_errors
from edgepack_assets.filesystem.canonical_yaml import load_yaml
from edgepack_assets.filesystem.reproducible_zip import checked_names, opened_inside, opened_zip
from edgepack_assets.sandbox.child_main import RecordError, result_line
from edgepack_assets.sandbox.child_output import printable
from edgepack_assets.sandbox.child_process import LARGE
from edgepack_assets.sandbox.jobs import RunJob
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.sandbox.untrusted_files import open_output
from edgepack_assets.sandbox.untrusted_values import UntrustedReport, parse_report
from edgepack_assets.sandbox.value_types import from_json

if TYPE_CHECKING:
    import numpy as np

_WHEELS = "PythonPackages.zip"
_RESULTS_LIMIT = 16 * 1000**3
_LONGEST_LINE = 16 << 20
_GZIP_OVERHEAD = 1 << 16
_LONGEST_RECORD = 1e9
"""Seconds for a record that nothing exceeds."""


@dataclass(frozen=True)
class PackageRun:
    """What a run gave: files of results and per-record seconds, counts, latency (seconds: p50, p95, p99, max, sum), and
    the numbers of the records that were answered."""

    results: Path
    times: Path
    records: int
    answered: int
    latency: dict[str, float]
    answers: Sequence[int] = ()

    def seconds(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The time of each record, in order."""
        import numpy as np

        return np.fromfile(self.times, dtype=np.float64)


def p99(seconds: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """The time that 99 % of the records do not exceed. The slowest record of several never decides alone: on a machine
    that also does other work, one record may take any time."""
    if not len(seconds):
        return 0.0
    allowed = allowed_late(len(seconds))
    import numpy as np

    return float(np.partition(seconds, len(seconds) - 1 - allowed)[len(seconds) - 1 - allowed])


def allowed_late(records: int) -> int:
    """How many of so many records may be late: 1 %, or one of several."""
    return max(records // 100, 1 if records > 1 else 0)


class _Latency(UntrustedReport):
    """Seconds for a record."""

    p50: float = Field(ge=0, allow_inf_nan=False)
    p95: float = Field(ge=0, allow_inf_nan=False)
    max: float = Field(ge=0, allow_inf_nan=False)
    sum: float = Field(ge=0, allow_inf_nan=False)


class _Counted(UntrustedReport):
    """What the child tells of a run."""

    records: int = Field(ge=0)
    answered: int = Field(ge=0)
    latency: _Latency


class PackageRunner:
    """Runs the one component of a config or deployment package. Use as a context manager.

    The environment must be that of the wheels in a deployment package. `wheels` tells these (file name -> sha256) if
    they were read already; else they are."""

    def __init__(
        self,
        package: Path,
        work: Path,
        sandbox: Sandbox,
        environment: Environment,
        wheels: Mapping[str, str] | None = None,
    ) -> None:
        self.package = package
        # A folder of its own: two runners in one would mix their files.
        self._folder = Path(tempfile.mkdtemp(prefix="package-", dir=work))
        self._work = work
        self._sandbox = sandbox
        self._environment = environment
        self._wheels = wheels
        self.component: dict[str, Any] = {}
        self.parameters: dict[str, Any] = {}

    def __enter__(self) -> PackageRunner:
        """Check the package, read it and extract its component but for the wheels. Raises PackageError if it is
        not one, has not exactly one component, or holds other wheels than the environment."""
        name = self.package.name
        with opened_zip(self.package, name) as archive, disk_errors(self._folder):
            names = checked_names(archive, name)
            is_deployment_package = "runtime_config.yml" in names
            top = "" if is_deployment_package or not names else f"{names[0].split('/', 1)[0]}/"
            self._read_pipeline(archive, f"{top}pipeline_config.yml")
            if not is_deployment_package:
                self._extract(archive, names, f"{top}{self.component['name']}/")
                return self
            inside = f"components/{self.component['name']}_{self.component['version']}.zip"
            if inside not in names:
                raise PackageError(f"{name}: is not a pipeline package: it holds no {inside}")
            with opened_inside(archive, inside, f"{name}/{inside}") as component:
                files = checked_names(component, f"{name}/{inside}")
                self._check_wheels(component, f"{name}/{inside}", _WHEELS in files)
                self._extract(component, files, "")
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the work folder to its owner."""

    def _read_pipeline(self, archive: zipfile.ZipFile, config: str) -> None:
        subject = f"{self.package.name}: is not a pipeline package"
        try:
            pipeline = load_yaml(archive.read(config))["dataFlowPipeline"]
            components = pipeline["components"]
            parameters = pipeline.get("pipelineParameters", [])
            self.parameters = {parameter["name"]: parameter["defaultValue"] for parameter in parameters}
        except KeyError as error:
            raise PackageError(f"{subject}: {config}: {error.args[0]}") from None
        except (yaml.YAMLError, TypeError, AttributeError) as error:
            raise PackageError(f"{subject}: {config} cannot be read: {error}") from None
        if len(components) != 1:
            raise PackageError(f"{self.package.name} has {len(components)} components; one is supported")
        self.component = components[0]

    def _check_wheels(self, component: zipfile.ZipFile, subject: str, has_wheels: bool) -> None:
        held = self._wheels
        if held is None:
            held = _wheels_of(component, f"{subject}/{_WHEELS}") if has_wheels else {}
        locked = {package.file: package.digest for package in self._environment.lock.packages}
        if held != locked:
            differing = sorted(file for file in held.keys() | locked.keys() if held.get(file) != locked.get(file))
            raise PackageError(
                f"{subject}: its wheels are not those of the environment {self._environment.folder.name}, so what runs "
                f"in there would not be what is shipped: {', '.join(differing)}"
            )

    def _extract(self, archive: zipfile.ZipFile, names: Iterable[str], top: str) -> None:
        for name in names:
            if name.startswith(top) and name != f"{top}{_WHEELS}":
                target = self.component_folder / name.removeprefix(top)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as stream:
                    shutil.copyfileobj(source, stream, 1 << 20)
                if target.stat().st_size >= LARGE:
                    target.chmod(READ_ONLY)  # a child that is another user reads it in place

    @property
    def component_folder(self) -> Path:
        """Where the component's files lie, extracted."""
        return self._folder / str(self.component["name"])

    def run(
        self,
        subject: str,
        records: Path,
        child_imports: Iterable[str],
        until_answers: int | None = None,
        count: int | None = None,
    ) -> PackageRun:
        """Feed `records` (gzipped JSON lines) to the component, all of them or until it gave that many answers.
        `count` is how many there are: for telling how far it has come, and because the child is not trusted to.

        Raises TaskFailedError with the component's traceback and the record, or ComponentError."""
        component = self.component
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self._work))
        results, times = folder / "results.jsonl.gz", folder / "times.f64"
        value = self._sandbox.run(
            subject,
            self._environment,
            child_imports,
            RunJob(
                self.component_folder,
                entrypoint=Path(component["entrypoint"]).stem,
                parameters=self.parameters,
                input_types=component["inputType"],
                output_types=component["outputType"],
                until_answers=until_answers,
                count=count,
            ),
            inputs={"records": records},
            outputs={"results": results, "times": times},
        )
        counted = parse_report(subject, _Counted, value)
        if count is not None and counted.records > count:
            raise ComponentError(f"{subject} reported {counted.records} records; the payload has {count}")
        answers = _check_results(subject, results, counted.records, _declared(component["outputType"]))
        with open_output(times, 8 * counted.records, subject) as stream:
            if os.fstat(stream.fileno()).st_size != 8 * counted.records or len(answers) != counted.answered:
                raise ComponentError(f"{subject} reported other records and answers than it left")
        run = PackageRun(results, times, counted.records, len(answers), counted.latency.model_dump(), answers)
        seconds = run.seconds()
        if not (seconds >= 0).all() or not (seconds < _LONGEST_RECORD).all():  # neither holds for a NaN
            raise ComponentError(f"{subject} left times of records that are no times")
        return replace(run, latency={**run.latency, "p99": p99(seconds)})


def _wheels_of(component: zipfile.ZipFile, subject: str) -> dict[str, str]:
    """sha256 of each wheel that a component ships, by file name."""
    digests = {}
    with opened_inside(component, _WHEELS, subject) as wheels:
        for name in checked_names(wheels, subject):
            with wheels.open(name) as stream:
                digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    return digests


def _declared(variables: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {variable["name"]: variable["type"] for variable in variables}


def _check_results(subject: str, results: Path, records: int, outputs: dict[str, str]) -> array[int]:
    """The records that were answered, if there is one line for each, in order, with what the component declares:
    whatever ran in the child may have written another one."""
    lines, characters, answered = 0, 0, array("Q")
    try:
        with open_output(results, _RESULTS_LIMIT, subject) as stream, gzip.open(stream) as unpacked:
            while line := unpacked.readline(_LONGEST_LINE):
                if lines == records:
                    raise ValueError(f"they are not one line for each of {records} records")
                if line != b'{"record": %d, "outputs": null}\n' % lines:
                    answered.append(lines)
                    entry = from_json(line)
                    if line != result_line(entry["outputs"], outputs, lines):
                        raise ValueError(f"line {lines} is no answer to record {lines}")
                lines += 1
                characters += len(line)
            # gzip passes over zeros at the end, and empty members: a sparse file would be stored in full
            if os.fstat(stream.fileno()).st_size > characters + characters // 8 + _GZIP_OVERHEAD:
                raise ValueError("the file is larger than what it holds")
    except RecordError as error:
        raise ComponentError(f"{subject} left a false answer to record {lines}: {printable(str(error))}") from None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ComponentError(f"{subject} left results that cannot be read: {printable(str(error))}") from None
    if lines != records:
        raise ComponentError(f"{subject} left results that are not one line for each of {records} records")
    return answered
