"""The pipeline configuration package: what the SDK saves for a component, made reproducible and unstamped.

Unstamped: version and package id are the placeholders below until deployment_package.py stamps them. Times
are the zip format's epoch: a package is identified by its content, not by when it was built.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from simaticai.packaging.constants import PYTHON_PACKAGES_ZIP, README_HTML, REQUIREMENTS_TXT, TELEMETRY_YAML

from edgepack_assets.environments.lock import Lock
from edgepack_assets.errors import ComponentRefusedError, PackageError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.filesystem.canonical_yaml import dump_yaml, load_yaml
from edgepack_assets.filesystem.reproducible_zip import Content, write_zip
from edgepack_assets.model_types.interface import ComponentSpec
from edgepack_assets.model_types.pipeline import GpuTensor, PipelineComponent
from edgepack_assets.packaging.sdk import quiet_import
from edgepack_assets.packaging.stamp import COMPONENT, UNSTAMPED_ID, UNSTAMPED_TIME, UNSTAMPED_VERSION

LOCK_FILE = "requirements.lock"
"""In the component: the full lock with hashes, as pip's `--require-hashes` takes it."""

_RESERVED = (REQUIREMENTS_TXT, LOCK_FILE, PYTHON_PACKAGES_ZIP)
_GPU_MODEL = "1/model.onnx"
_TIMES = ("createdOn", "updatedOn")
_LARGEST_FOR_SDK = 1 << 20


def config_package_name(package_name: str) -> str:
    """The file name of the config package."""
    return f"{package_name.replace(' ', '-')}_{UNSTAMPED_VERSION}.zip"


def build_config_package(  # noqa: PLR0917 - six things, none a part of another
    component_folder: Path, spec: ComponentSpec, lock: Lock, package_name: str, description: str, work: Path
) -> Path:
    """The config package of one component, whose files are in `component_folder`: see build_pipeline_package."""
    component = PipelineComponent(COMPONENT, component_folder, spec)
    return build_pipeline_package((component,), lock, package_name, description, work)


def build_pipeline_package(
    components: Sequence[PipelineComponent], lock: Lock, package_name: str, description: str, work: Path
) -> Path:
    """Let the SDK save the pipeline of the components, one after the other, and write it anew, reproducibly, into
    `work`. All files of a component's folder ship; entrypoint.py is the entrypoint of a Python component, and `lock`
    is what each of these needs.

    Raises ComponentRefusedError if the SDK refuses what a component declares or holds."""
    made: list[Any] = []
    given_otherwise: dict[str, Path] = {}
    with disk_errors(work):
        try:
            for each in components:
                add = _add_python_component if each.gpu is None else _add_gpu_component
                given_otherwise |= add(each, lock, work, made)
            pipeline = _pipeline(made, [each.spec for each in components], package_name, description)
            saved = Path(pipeline.save(work / "saved", package_id=UNSTAMPED_ID, version=UNSTAMPED_VERSION))
        except (AssertionError, ValueError, RuntimeError) as error:
            raise ComponentRefusedError(f"the SDK refuses the component: {' '.join(str(error).split())}") from error
        finally:
            for dependencies in (each.python_dependencies for each in made if hasattr(each, "python_dependencies")):
                for folder in (dependencies.python_packages, dependencies.temp):  # the SDK never removes them
                    shutil.rmtree(folder)
        target = work / config_package_name(package_name)
        write_zip(target, _files(saved.parent / saved.name.removesuffix(".zip"), given_otherwise))
    return target


def _add_python_component(each: PipelineComponent, lock: Lock, work: Path, made: list[Any]) -> dict[str, Path]:
    """Add the SDK's component to `made`. The files that it did not see: name in the package -> file."""
    with quiet_import():
        from simaticai.deployment import PythonComponent

    for name in _RESERVED:
        if (each.folder / name).exists():
            raise PackageError(
                f"the component holds {name}, which the packaging writes itself: rename the model's file"
            )
    shipped = _shipped_files(each.folder)
    (each.folder / LOCK_FILE).write_text(lock.as_requirements(hashes=True), encoding="utf-8")
    large = _large_files(each.folder, shipped)
    given = _without_contents(each.folder, [*shipped, LOCK_FILE], large, work / "given" / each.name)
    component = PythonComponent(name=each.name, python_version=lock.python, desc=each.spec.description)
    made.append(component)
    pins = work / REQUIREMENTS_TXT
    pins.write_text(lock.as_requirements(), encoding="utf-8")
    component.add_resources(given, [*shipped, LOCK_FILE])
    component.set_entrypoint("entrypoint.py")
    component.set_requirements(pins)
    for variable in each.spec.inputs:
        component.add_input(variable.name, variable.type, variable.description)
    for variable in each.spec.outputs:
        component.add_output(variable.name, variable.type, variable.description)
    for variable in each.spec.metrics:
        component.add_metric(variable.name, variable.description)
    return {f"{each.name}/{name}": each.folder / name for name in large}


def _large_files(folder: Path, shipped: Iterable[str]) -> set[str]:
    """The component's files that the SDK need not see. It reads Python code; what a model holds is nothing to it."""
    return {name for name in shipped if not name.endswith(".py") and (folder / name).stat().st_size > _LARGEST_FOR_SDK}


def _without_contents(folder: Path, names: Iterable[str], large: Collection[str], target: Path) -> Path:
    """A copy of the component with empty files in place of large ones: `save` copies all files, and compresses them
    into a zip that nobody needs. For a model of a gigabyte that takes a minute."""
    for name in names:
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if name in large:
            copy.touch()
        else:
            shutil.copyfile(folder / name, copy)
    return target


def _shipped_files(folder: Path) -> list[str]:
    """Every file of the component, in an order that no file system decides."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        # Model code has run beside these files: a link could make us ship what lies elsewhere on this machine.
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise PackageError(f"the component holds {name}, which is a link or no file: it cannot be shipped")
        if path.is_file() and "__pycache__" not in path.parts:
            names.append(name)
    return sorted(names)


def _add_gpu_component(each: PipelineComponent, lock: Lock, work: Path, made: list[Any]) -> dict[str, Path]:
    """As for a Python component, without a lock. The SDK reads a graph of no nodes with the inputs and outputs of the
    model: it would build the whole model in this process."""
    with quiet_import():
        from onnx import helper
        from simaticai.deployment import GPURuntimeComponent
        from simaticai.helpers.model_config import TensorRTOptimization

    gpu = each.gpu
    assert gpu is not None
    shipped = _shipped_files(each.folder)
    if shipped != [_GPU_MODEL]:
        raise PackageError(f"the GPU component {each.name} holds {', '.join(shipped)}; it is {_GPU_MODEL} alone")

    def tensors(of: Sequence[GpuTensor]) -> list[Any]:
        return [
            helper.make_tensor_value_info(tensor.name, helper.np_dtype_to_tensor_dtype(_dtype(tensor)), tensor.shape)
            for tensor in of
        ]

    stand_in = work / "given" / each.name / "model.onnx"
    stand_in.parent.mkdir(parents=True)
    graph = helper.make_graph([], "stand_in", tensors(gpu.inputs), tensors(gpu.outputs))
    stand_in.write_bytes(helper.make_model(graph).SerializeToString())
    optimization = None
    if gpu.tensorrt is not None:
        optimization = TensorRTOptimization()
        optimization.parameters |= {key: value for key, value in gpu.tensorrt.items() if key in optimization.parameters}
        for key in gpu.tensorrt.keys() - optimization.parameters.keys():
            optimization.add_extra_parameter(key, gpu.tensorrt[key])
    component = GPURuntimeComponent(name=each.name, desc=each.spec.description)
    component.use_model(stand_in, gpu.max_batch_size, optimization=optimization, warmup=gpu.warmup)
    made.append(component)
    return {f"{each.name}/{_GPU_MODEL}": each.folder / _GPU_MODEL}


def _dtype(tensor: GpuTensor) -> Any:
    import numpy as np

    return np.dtype(tensor.dtype)


def _pipeline(components: Sequence[Any], specs: Sequence[ComponentSpec], package_name: str, description: str) -> Any:
    """The SDK's pipeline of the components, each wired to the one before it by the names of variables."""
    with quiet_import():
        from simaticai.deployment import Pipeline

    pipeline = Pipeline.from_components(
        list(components), name=package_name, version=UNSTAMPED_VERSION, desc=description
    )
    for before, component in pairwise(components):
        # the SDK only warns of these
        given = {name: each["type"] for name, each in before.outputs.items()}
        if loose := sorted(name for name, each in component.inputs.items() if given.get(name) != each["type"]):
            raise PackageError(f"{before.name} does not give what {component.name} takes: {', '.join(loose)}")
    for parameter in (parameter for spec in specs for parameter in spec.parameters):
        pipeline.add_parameter(parameter.name, parameter.default, parameter.type, desc=parameter.description)
    for periodicity in (spec.periodicity for spec in specs if spec.periodicity is not None):
        pipeline.set_timeshifting_periodicity(periodicity)
    return pipeline


def _files(top: Path, given_otherwise: Mapping[str, Path]) -> dict[str, Content]:
    """What the SDK saved, as it goes into our zip, with the files that it did not see."""
    # The SDK's runner takes the zip's first entry for the top folder.
    files: dict[str, Content] = {f"{top.name}/": b""}
    for path in top.rglob("*"):
        name = path.relative_to(top).as_posix()
        if path.is_dir() or (path.name == PYTHON_PACKAGES_ZIP and path.parent.parent == top):
            continue  # the SDK's is empty: the lock names the wheels, and the deployment package holds them
        if name == TELEMETRY_YAML:
            continue  # it tells of this machine and this moment, and a package must be the same on any
        if path.parent == top and path.suffix == ".yml":
            files[f"{top.name}/{name}"] = normalised(path.read_bytes())
        elif name == README_HTML:
            # the SDK writes it in the encoding of the machine's locale, though it says UTF-8 inside
            files[f"{top.name}/{name}"] = path.read_text().encode()
        else:
            files[f"{top.name}/{name}"] = path
    return files | {f"{top.name}/{name}": file for name, file in given_otherwise.items()}


def normalised(text: bytes) -> bytes:
    """A YAML file of the SDK with its times replaced by the epoch, spelled as `dump_yaml` spells it."""
    return dump_yaml(_without_times(load_yaml(text)))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: UNSTAMPED_TIME if key in _TIMES else _without_times(item) for key, item in value.items()}
    return [_without_times(item) for item in value] if isinstance(value, list) else value
