"""Running a package as the inference server would, with the semantics of the SDK's LocalPipelineRunner.

What differs, and why it is not the SDK's class: nothing is installed (the environment is kept, and holds exactly the
package's wheels), records and answers cross the process border as JSON lines and not as pickles of the component's,
records without an answer are kept, types are checked strictly, zips are not trusted, no telemetry is written, and two
seconds of importing the SDK are saved. A parity test holds it to the SDK's own runner, on both kinds of package.

Of several components each runs over all records before the next one does, as there, but over a part of a long payload
at a time: what they give each other can be a thousand times as large as the payload. A GPU component runs on the
processor (sandbox/child_gpu.py), in an environment that stands for the server's.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import ComponentError, PackageError
from edgepack_assets.filesystem.atomic_files import READ_ONLY, disk_errors, link_or_copy
from edgepack_assets.filesystem.canonical_yaml import load_yaml
from edgepack_assets.filesystem.reproducible_zip import checked_names, opened_inside, opened_zip
from edgepack_assets.packaging.component_runs import ComponentRun, PackageRun, SeveralRuns, check_results, latency_of
from edgepack_assets.packaging.gpu_stage import lay_out_gpu_stage
from edgepack_assets.packaging.stamp import is_python
from edgepack_assets.sandbox.child_process import LARGE
from edgepack_assets.sandbox.jobs import RunJob
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.sandbox.untrusted_files import open_output
from edgepack_assets.sandbox.untrusted_values import UntrustedReport, parse_report

_WHEELS = "PythonPackages.zip"
_NAME = re.compile(r"[-a-zA-Z0-9_]{1,100}")
"""Of a component, as the SDK allows it."""
_LONGEST_RECORD = 1e9
"""Seconds for a record that nothing exceeds."""


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


@dataclass(frozen=True)
class Component:
    """A component of a package: what pipeline_config.yml says of it, and the folder of its files."""

    config: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """As the package names it."""
        return str(self.config["name"])

    @property
    def is_python(self) -> bool:
        """Whether it is Python code with wheels. Else it is for the GPU runtime."""
        return is_python(self.config)


class PackageRunner:
    """Runs the components of a config or deployment package. Use as a context manager.

    The environment must be that of the wheels in each Python component of a deployment package. `wheels` tells these
    (name of the component's zip -> file name -> sha256) if they were read already; else they are. `server` is the
    environment of GPU components."""

    def __init__(  # noqa: PLR0917 - what is run, and where
        self,
        package: Path,
        work: Path,
        sandbox: Sandbox,
        environment: Environment,
        wheels: Mapping[str, Mapping[str, str]] | None = None,
        server: Environment | None = None,
    ) -> None:
        self.package = package
        # A folder of its own: two runners in one would mix their files.
        self._folder = Path(tempfile.mkdtemp(prefix="package-", dir=work))
        self._work = work
        self._sandbox = sandbox
        self._environment = environment
        self._wheels = wheels
        self._server = server
        self.components: list[Component] = []
        self.parameters: dict[str, Any] = {}

    def __enter__(self) -> PackageRunner:
        """Check the package, read it and extract its components but for the wheels. Raises PackageError if it is
        not one, has no component, or holds other wheels than the environment."""
        name = self.package.name
        with opened_zip(self.package, name) as archive, disk_errors(self._folder):
            names = checked_names(archive, name)
            is_deployment_package = "runtime_config.yml" in names
            top = "" if is_deployment_package or not names else f"{names[0].split('/', 1)[0]}/"
            self._read_pipeline(archive, f"{top}pipeline_config.yml")
            for component in self.components:
                if not is_deployment_package:
                    self._extract(component, archive, names, f"{top}{component.name}/")
                    continue
                inside = f"components/{component.name}_{component.config['version']}.zip"
                if inside not in names:
                    raise PackageError(f"{name}: is not a pipeline package: it holds no {inside}")
                with opened_inside(archive, inside, f"{name}/{inside}") as content:
                    files = checked_names(content, f"{name}/{inside}")
                    if component.is_python:
                        self._check_wheels(content, inside, _WHEELS in files)
                    self._extract(component, content, files, "")
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
        named = [str(component.get("name")) for component in components]
        if not components or len(set(named)) != len(named) or not all(map(_NAME.fullmatch, named)):
            raise PackageError(f"{subject}: {config} names the components {', '.join(map(repr, named)) or 'none'}")
        self.components = [Component(each, self._folder / str(each["name"])) for each in components]

    def _check_wheels(self, component: zipfile.ZipFile, inside: str, has_wheels: bool) -> None:
        subject = f"{self.package.name}/{inside}"
        if self._wheels is not None:
            held = self._wheels.get(inside, {})
        else:
            held = _wheels_of(component, f"{subject}/{_WHEELS}") if has_wheels else {}
        locked = {package.file: package.digest for package in self._environment.lock.packages}
        if held != locked:
            differing = sorted(file for file in held.keys() | locked.keys() if held.get(file) != locked.get(file))
            raise PackageError(
                f"{subject}: its wheels are not those of the environment {self._environment.folder.name}, so what runs "
                f"in there would not be what is shipped: {', '.join(differing)}"
            )

    @staticmethod
    def _extract(component: Component, archive: zipfile.ZipFile, names: Iterable[str], top: str) -> None:
        for name in names:
            if name.startswith(top) and name != f"{top}{_WHEELS}":
                target = component.folder / name.removeprefix(top)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as stream:
                    shutil.copyfileobj(source, stream, 1 << 20)
                if target.stat().st_size >= LARGE:
                    target.chmod(READ_ONLY)  # a child that is another user reads it in place

    @property
    def component_folder(self) -> Path:
        """Where the files of the first component lie, extracted."""
        return self.components[0].folder

    def whole_component(self, work: Path) -> Path:
        """A new folder in `work` with the files of the first component and the model of the GPU component: all that
        is needed to try the model."""
        folder = Path(tempfile.mkdtemp(prefix="whole-", dir=work))
        shutil.copytree(self.component_folder, folder, dirs_exist_ok=True)
        for component in self.components:
            if not component.is_python:
                model = component.folder / component.config["entrypoint"]
                link_or_copy(model, folder / model.name)
        return folder

    def run(  # noqa: PLR0917 - what is run, and how far
        self,
        subject: str,
        records: Path,
        child_imports: Iterable[str],
        until_answers: int | None = None,
        count: int | None = None,
        server_imports: Iterable[str] = (),
    ) -> PackageRun:
        """Feed `records` (gzipped JSON lines) to the package, all of them or until it gave that many answers.
        `count` is how many there are: for telling how far it has come, and because the child is not trusted to.
        `child_imports` are for Python components, `server_imports` for those of the GPU runtime.

        Raises TaskFailedError with the component's traceback and the record, or ComponentError."""
        imports = {True: tuple(child_imports), False: tuple(server_imports)}
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self._work))
        if len(self.components) == 1:
            [component] = self.components
            ran = self._run_one(component, subject, records, folder, imports[True], until_answers, count)
            return PackageRun(
                ran.results, ran.times, ran.records, len(ran.answers), latency_of(ran.seconds), ran.answers
            )
        several = SeveralRuns(folder, [component.name for component in self.components])
        for part, size in several.parts(records):
            self._run_part(subject, part, size, imports, until_answers, several)
            if until_answers is not None and several.answered >= until_answers:
                break
        return several.finished()

    def _run_part(  # noqa: PLR0917 - what is run, and how
        self, subject: str, part: Path, size: int, imports: Mapping[bool, tuple[str, ...]], until_answers: int | None,
        several: SeveralRuns,
    ) -> None:  # fmt: skip
        """Run each component over a part of the payload. Where records lose their answer on the way, more of them are
        needed than the first component answered: then all of the part is run."""
        wanted = None if until_answers is None else until_answers - several.answered
        for enough in (wanted, None) if wanted is not None else (None,):
            ran: list[ComponentRun] = []
            records = part
            for number, component in enumerate(self.components):
                first, last = number == 0, number == len(self.components) - 1
                folder = Path(tempfile.mkdtemp(prefix="component-", dir=part.parent))
                named = f"{subject}, component {component.name}"
                ran.append(
                    self._run_one(
                        component, named, records, folder, imports[component.is_python],
                        enough if first else None, size if first else ran[0].records,
                        follows=not first, precedes=not last,
                    )
                )  # fmt: skip
                several.saw(ran[-1])
                if not first:
                    records.unlink()
                    if ran[-1].records != ran[0].records:
                        raise ComponentError(
                            f"{subject}: component {component.name} left {ran[-1].records} of {ran[0].records} records"
                        )
                records = ran[-1].results
            if enough is None or len(ran[-1].answers) >= enough or ran[0].records == size:
                break
        several.add(ran)

    def _run_one(  # noqa: PLR0917 - what is run, and how
        self, component: Component, subject: str, records: Path, folder: Path, child_imports: Iterable[str],
        until_answers: int | None, count: int | None, *, follows: bool = False, precedes: bool = False,
    ) -> ComponentRun:  # fmt: skip
        config = component.config
        environment, entrypoint = self._environment, Path(config["entrypoint"]).stem
        if not component.is_python:
            if self._server is None:
                raise PackageError(
                    f"{self.package.name}: its component {component.name} is for the server's GPU runtime, but no "
                    "environment that stands for it is known"
                )
            environment, entrypoint = self._server, lay_out_gpu_stage(component.folder)
        results, times = folder / "results.jsonl.gz", folder / "times.f64"
        value = self._sandbox.run(
            subject,
            environment,
            child_imports,
            RunJob(
                component.folder,
                entrypoint=entrypoint,
                parameters=self.parameters,
                input_types=config["inputType"],
                output_types=config["outputType"],
                until_answers=until_answers,
                count=count,
                follows=follows,
                precedes=precedes,
            ),
            inputs={"records": records},
            outputs={"results": results, "times": times},
        )
        counted = parse_report(subject, _Counted, value)
        if count is not None and counted.records > count:
            raise ComponentError(f"{subject} reported {counted.records} records; the payload has {count}")
        declared = {variable["name"]: variable["type"] for variable in config["outputType"]}
        answers = check_results(subject, results, counted.records, declared, precedes)
        with open_output(times, 8 * counted.records, subject) as stream:
            if os.fstat(stream.fileno()).st_size != 8 * counted.records or len(answers) != counted.answered:
                raise ComponentError(f"{subject} reported other records and answers than it left")
        run = ComponentRun(results, times, counted.records, answers)
        seconds = run.seconds
        if not (seconds >= 0).all() or not (seconds < _LONGEST_RECORD).all():  # neither holds for a NaN
            raise ComponentError(f"{subject} left times of records that are no times")
        return run


def _wheels_of(component: zipfile.ZipFile, subject: str) -> dict[str, str]:
    """sha256 of each wheel that a component ships, by file name."""
    digests = {}
    with opened_inside(component, _WHEELS, subject) as wheels:
        for name in checked_names(wheels, subject):
            with wheels.open(name) as stream:
                digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    return digests
