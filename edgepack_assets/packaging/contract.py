"""What a package declares to the server and to those that read its answers: its interface contract.

Read from the pipeline configuration of a config or deployment package. What changed between two of them is in
tasks/predecessor/contract_changes.py.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgepack_assets.errors import PackageError
from edgepack_assets.filesystem.canonical_yaml import load_yaml
from edgepack_assets.filesystem.reproducible_zip import checked_names, opened_zip

_PIPELINE, _DATALINK = "pipeline_config.yml", "datalink_metadata.yml"
_LARGEST = 8 << 20
"""Bytes of one of these files. The SDK writes a few kilobytes."""


@dataclass(frozen=True)
class Contract:
    """Names and types of inputs, outputs and metrics; parameters with type and default; milliseconds from one record to
    the next, None without timeshifting; name of each component and what it runs on."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    metrics: Mapping[str, str]
    parameters: Mapping[str, tuple[str, Any]]
    periodicity: int | None
    components: Mapping[str, str]

    def as_table(self) -> list[tuple[str, str, str]]:
        """Each part with its name and type, as a person reads it."""
        parts = (("input", self.inputs), ("output", self.outputs), ("metric", self.metrics))
        return [
            *((part, name, kind) for part, variables in parts for name, kind in variables.items()),
            *(("parameter", name, f"{kind}, {value!r}") for name, (kind, value) in self.parameters.items()),
            *(("component", name, runs_on) for name, runs_on in self.components.items()),
            ("periodicity", "", "none" if self.periodicity is None else f"{self.periodicity} ms"),
        ]


def read_contract(package: Path) -> Contract:
    """The contract of a config or deployment package. Raises PackageError if it is not one."""
    name = package.name
    with opened_zip(package, name) as archive:
        names = checked_names(archive, name)
        # A config package has all its files in one folder, which is its first entry.
        top = "" if _PIPELINE in names or not names else f"{names[0].split('/', 1)[0]}/"
        subject = f"{name}: {_PIPELINE}"
        try:
            pipeline = _Pipeline.model_validate(_read(archive, f"{top}{_PIPELINE}", name))
            subject = f"{name}: {_DATALINK}"
            link = _Datalink.model_validate(_read(archive, f"{top}{_DATALINK}", name))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise PackageError(f"{subject} is not what the SDK writes: {where}: {first['msg']}") from None
    flow = pipeline.dataFlowPipeline
    shifting = link.timeShifting
    return Contract(
        inputs={each.name: each.type for each in flow.pipelineInputs},
        outputs={each.name: each.type for each in flow.pipelineOutputs if not each.metric},
        metrics={each.name: each.type for each in flow.pipelineOutputs if each.metric},
        parameters={each.name: (each.type, each.defaultValue) for each in flow.pipelineParameters},
        periodicity=shifting.periodicity if shifting is not None and shifting.enabled else None,
        components={each.name: f"{each.runtime.type} {each.runtime.version}" for each in flow.components},
    )


def _read(archive: zipfile.ZipFile, file: str, package: str) -> Any:
    try:
        size = archive.getinfo(file).file_size
        if size > _LARGEST:
            raise PackageError(f"{package}: {file} has {size} bytes; at most {_LARGEST} are read")
        return load_yaml(archive.read(file))
    except KeyError:
        raise PackageError(f"{package}: is not a pipeline package: it holds no {file}") from None
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise PackageError(f"{package}: {file} cannot be read: {error!s:.500}") from None


# The SDK's own names; what else there is does not matter here.


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True)


_Text = Annotated[str, Field(max_length=1_000)]
_Many = Field(default=(), max_length=10_000)


class _Variable(_Section):
    name: _Text
    type: _Text
    metric: bool = False


class _Parameter(_Section):
    name: _Text
    type: _Text
    defaultValue: bool | int | float | _Text | None = None  # noqa: N815


class _Runtime(_Section):
    type: _Text
    version: _Text = ""


class _Component(_Section):
    name: _Text
    runtime: _Runtime


class _Flow(_Section):
    components: tuple[_Component, ...] = Field(max_length=1_000)
    pipelineInputs: tuple[_Variable, ...] = _Many  # noqa: N815
    pipelineOutputs: tuple[_Variable, ...] = _Many  # noqa: N815
    pipelineParameters: tuple[_Parameter, ...] = _Many  # noqa: N815


class _Pipeline(_Section):
    dataFlowPipeline: _Flow  # noqa: N815


class _TimeShifting(_Section):
    enabled: bool = False
    periodicity: int | None = None


class _Datalink(_Section):
    timeShifting: _TimeShifting | None = None  # noqa: N815
