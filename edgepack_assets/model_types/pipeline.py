"""What a model type may say of a package of several components, one after the other: each component's files and what it
declares, and which of them is an ONNX model for the server's GPU runtime.

packaging/ makes the package of it, and the runner runs each component in its own environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgepack_assets.model_types.interface import ComponentSpec


@dataclass(frozen=True)
class GpuTensor:
    """An input or output of an ONNX model: its name, its numpy type (float32, uint8, ...), its shape. None as the first
    size: batches of any size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class GpuModel:
    """What config.pbtxt says of a GPU component. `tensorrt`: parameters of the TensorRT accelerator, in text, by name;
    None without it. With `max_batch_size` above 1 the first size of each tensor is None."""

    inputs: tuple[GpuTensor, ...]
    outputs: tuple[GpuTensor, ...]
    max_batch_size: int = 1
    warmup: bool = False
    tensorrt: Mapping[str, str] | None = None


@dataclass(frozen=True)
class PipelineComponent:
    """A component of a package. All files of `folder` ship. A Python component has entrypoint.py there; a GPU component
    (`gpu`) has 1/model.onnx, and its spec only needs a description.

    What one component gives is what the next takes, by name: as a numpy array where both declare the same of the types
    Float32Array, UInt8Array and so on. The last one's outputs and metrics are the package's. A component must not
    keep anything from one record to the next: the records are run in parts."""

    name: str
    folder: Path
    spec: ComponentSpec
    gpu: GpuModel | None = field(default=None)
