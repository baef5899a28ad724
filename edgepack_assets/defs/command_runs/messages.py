"""What crosses between a command and the processes that make its runs. Nothing here imports Dagster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgepack_assets.defs.asset_names import ASSETS
from edgepack_assets.errors import EdgepackError
from edgepack_assets.new_models.run_requests import RunOutcome
from edgepack_assets.partitions import ModelKey


@dataclass(frozen=True)
class PackageRequest:
    """A partition to be materialized: all assets of the job, or some, with a run configuration."""

    key: ModelKey
    assets: tuple[str, ...] = ASSETS
    run_config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PackageResult:
    """What became of a request. `reasons` say why it failed, a sentence each; `package` is the metadata of the
    materialized deployment package (name, version, location, tags and more), empty if there is none."""

    key: ModelKey
    outcome: RunOutcome
    run_id: str
    reasons: tuple[str, ...]
    package: Mapping[str, Any]
    log: Path

    @property
    def succeeded(self) -> bool:
        """Whether every asset was materialized and every blocking check held."""
        return self.outcome is RunOutcome.SUCCEEDED


@dataclass(frozen=True)
class Order:
    """What a process is to run next, and where its output goes."""

    request: PackageRequest
    run_id: str
    log: Path


class Taken:
    """The answer to an order that has come: from here on there may be a run."""


@dataclass(frozen=True)
class Refused:
    """Why the process could not be made ready for a run."""

    error: EdgepackError


FAILED = "failed"


@dataclass(frozen=True)
class StepNews:
    """A step that began (`took` is None), or ended: how long it took, or FAILED."""

    step: str
    took: str | None


@dataclass(frozen=True)
class Said:
    """What the running step says it is doing, or how far it is."""

    text: str


Message = Taken | Refused | StepNews | Said | PackageResult
"""From the process to the command."""


def next_order(connection: Connection) -> Order | None:
    """What the command wants next; None if there is no more, or the command is gone."""
    try:
        order: Order | None = connection.recv()
    except (EOFError, ConnectionResetError):
        return None
    return order


def send(connection: Connection, message: Message) -> bool:
    """Whether the command still takes messages."""
    try:
        connection.send(message)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True
