"""What a component declares to the server: inputs, outputs, metrics and parameters. Plug-ins import it from
interface.py."""

from __future__ import annotations

from dataclasses import dataclass

from edgepack_assets.sandbox.value_types import TYPES

SDK_TYPES = TYPES
"""Types of variables that the AI Inference Server knows (simaticai 2.9); arrays may state a size, DoubleArray[3]."""


@dataclass(frozen=True)
class Variable:
    """An input, output or metric of the component: name, type of SDK_TYPES, description."""

    name: str
    type: str
    description: str = ""


@dataclass(frozen=True)
class Parameter:
    """A pipeline parameter that can be changed while the pipeline runs.

    The entrypoint has `update_parameters(params: dict)` for that, which is called before the first record too."""

    name: str
    type: str
    default: int | float | str | bool
    description: str = ""


@dataclass(frozen=True)
class ComponentSpec:
    """What the component declares to the server. `periodicity` is in milliseconds, None without timeshifting.

    A name of a metric has an underscore, and its type is String: the component gives JSON, {"value": x}."""

    description: str
    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    metrics: tuple[Variable, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    periodicity: int | None = None
