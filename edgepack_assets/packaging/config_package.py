"""The pipeline configuration package: what the SDK saves for a component, made reproducible and unstamped.

Unstamped: version and package id are the placeholders below until deployment_package.py stamps them. Times
are the zip format's epoch: a package is identified by its content, not by when it was built.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from simaticai.packaging.constants import PYTHON_PACKAGES_ZIP, README_HTML, REQUIREMENTS_TXT, TELEMETRY_YAML

from edgepack_assets.environments.lock import Lock
from edgepack_assets.errors import PackageError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.filesystem.canonical_yaml import dump_yaml, load_yaml
from edgepack_assets.filesystem.reproducible_zip import Content, write_zip
from edgepack_assets.model_types.interface import ComponentSpec
from edgepack_assets.packaging.sdk import quiet_import
from edgepack_assets.packaging.stamp import COMPONENT, UNSTAMPED_ID, UNSTAMPED_TIME, UNSTAMPED_VERSION

LOCK_FILE = "requirements.lock"
"""In the component: the full lock with hashes, as pip's `--require-hashes` takes it."""

_RESERVED = (REQUIREMENTS_TXT, LOCK_FILE, PYTHON_PACKAGES_ZIP)
_TIMES = ("createdOn", "updatedOn")
_LARGEST_FOR_SDK = 1 << 20


def config_package_name(package_name: str) -> str:
    """The file name of the config package."""
    return f"{package_name.replace(' ', '-')}_{UNSTAMPED_VERSION}.zip"


def build_config_package(  # noqa: PLR0917 - six things, none a part of another
    component_folder: Path, spec: ComponentSpec, lock: Lock, package_name: str, description: str, work: Path
) -> Path:
    """Let the SDK save the pipeline of the component in `component_folder` (all of its files ship, entrypoint.py
    is its entrypoint) and write it anew, reproducibly, into `work`.

    Raises PackageError if the SDK refuses what the component declares or holds."""
    with quiet_import():
        from simaticai.deployment import PythonComponent

    for name in _RESERVED:
        if (component_folder / name).exists():
            raise PackageError(
                f"the component holds {name}, which the packaging writes itself: rename the model's file"
            )
    shipped = _shipped_files(component_folder)
    with disk_errors(work):
        (component_folder / LOCK_FILE).write_text(lock.as_requirements(hashes=True), encoding="utf-8")
        large = _large_files(component_folder, shipped)
        given = _without_contents(component_folder, [*shipped, LOCK_FILE], large, work / "given")
        component = PythonComponent(name=COMPONENT, python_version=lock.python, desc=spec.description)
        try:
            pins = work / REQUIREMENTS_TXT
            pins.write_text(lock.as_requirements(), encoding="utf-8")
            component.add_resources(given, [*shipped, LOCK_FILE])
            component.set_entrypoint("entrypoint.py")
            component.set_requirements(pins)
            pipeline = _pipeline(component, spec, package_name, description)
            saved = Path(pipeline.save(work / "saved", package_id=UNSTAMPED_ID, version=UNSTAMPED_VERSION))
        except (AssertionError, ValueError, RuntimeError) as error:
            raise PackageError(f"the SDK refuses the component: {' '.join(str(error).split())}") from error
        finally:
            dependencies = component.python_dependencies
            for folder in (dependencies.python_packages, dependencies.temp):  # the SDK never removes them
                shutil.rmtree(folder)
        target = work / config_package_name(package_name)
        write_zip(target, _files(saved.parent / saved.name.removesuffix(".zip"), component_folder, large))
    return target


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


def _pipeline(component: Any, spec: ComponentSpec, package_name: str, description: str) -> Any:
    """The SDK's pipeline of the one component."""
    with quiet_import():
        from simaticai.deployment import Pipeline

    for variable in spec.inputs:
        component.add_input(variable.name, variable.type, variable.description)
    for variable in spec.outputs:
        component.add_output(variable.name, variable.type, variable.description)
    for variable in spec.metrics:
        component.add_metric(variable.name, variable.description)
    pipeline = Pipeline.from_components([component], name=package_name, version=UNSTAMPED_VERSION, desc=description)
    for parameter in spec.parameters:
        pipeline.add_parameter(parameter.name, parameter.default, parameter.type, desc=parameter.description)
    if spec.periodicity is not None:
        pipeline.set_timeshifting_periodicity(spec.periodicity)
    return pipeline


def _files(top: Path, component_folder: Path, large: Collection[str]) -> dict[str, Content]:
    """What the SDK saved, as it goes into our zip, with the large files of the component."""
    # The SDK's runner takes the zip's first entry for the top folder.
    files: dict[str, Content] = {f"{top.name}/": b""}
    for path in top.rglob("*"):
        name = path.relative_to(top).as_posix()
        if path.is_dir() or name == f"{COMPONENT}/{PYTHON_PACKAGES_ZIP}":
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
    return files | {f"{top.name}/{COMPONENT}/{name}": component_folder / name for name in large}


def normalised(text: bytes) -> bytes:
    """A YAML file of the SDK with its times replaced by the epoch, spelled as `dump_yaml` spells it."""
    return dump_yaml(_without_times(load_yaml(text)))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: UNSTAMPED_TIME if key in _TIMES else _without_times(item) for key, item in value.items()}
    return [_without_times(item) for item in value] if isinstance(value, list) else value
