"""What a model type may say of a model that its component cannot run: how it becomes one that it can, by jobs in the
sandbox that have an environment of their own beside the component's, and how the answers of both are compared.

The tasks do the jobs (tasks/side_jobs.py): they lock and build the environments, and keep what a job gave.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgepack_assets.checks import CheckRow

if TYPE_CHECKING:
    from edgepack_assets.model_types.interface import ModelSource
    from edgepack_assets.model_types.records import Payload, Results


@dataclass(frozen=True)
class SideJob:
    """`function` of `file`, called in the sandbox with `arguments` (JSON) and the paths of `inputs` and `outputs` by
    name, in an environment of `requirements` (PEP 508 lines). A copy of `folder` is the working directory.

    The same job on the same bytes in the same environment is done once: what it gave is kept. So it must not depend on
    anything else."""

    requirements: tuple[str, ...]
    folder: Path
    file: Path
    function: str
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class SideResult:
    """`returned`: by the function, which is not trusted. `outputs`: its files. `kept`: it was done earlier."""

    returned: Any
    outputs: Mapping[str, Path]
    kept: bool


class SideJobs(Protocol):
    """What does the jobs."""

    def versions(self, requirements: tuple[str, ...]) -> Mapping[str, str]:
        """Distribution -> version in the environment of these requirements. Raises EnvironmentBuildError."""
        ...

    def run(self, subject: str, job: SideJob) -> SideResult:
        """Do a job; `subject` names it in errors. Raises ModelError where the job refuses the model or dies of it."""
        ...

    def payload(self) -> Payload:
        """The payload of the configured raw data, made anew. Raises RawDataError."""
        ...


@dataclass(frozen=True)
class Converted:
    """`source`: what ships; its `parts` may have rows on the conversion. `record`: what `compare` must know of it
    (JSON). `original`: name -> file or folder of the model as it was registered, kept for `compare`. `metadata`: what
    the UI shows."""

    source: ModelSource
    record: Mapping[str, Any]
    original: Mapping[str, Path]
    metadata: Mapping[str, str | int | float | bool]


class Conversion(ABC):
    """How a model is converted. Instances are made by `ModelType.read_model`, for one model."""

    @abstractmethod
    def convert(self, source: ModelSource, component: Path, jobs: SideJobs, work: Path) -> Converted:
        """What ships in place of `source`. `component` is the model type's component/, without a model; `work` a folder
        for files. Raises ModelError."""


@dataclass(frozen=True)
class Comparison:
    """`rows` of validation_results.are_complete; a `table` of the answers that differ."""

    rows: tuple[CheckRow, ...]
    table: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Compared:
    """What is compared: the `results` of the package over `payload`, and the `original`, of which `record` tells.
    `component` is the folder of the packaged component."""

    record: Mapping[str, Any]
    original: Mapping[str, Path]
    component: Path
    payload: Payload
    results: Results
    inspection: Mapping[str, Any]
