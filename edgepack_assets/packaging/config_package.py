"""The pipeline configuration package: what the SDK saves for a component, made reproducible and unstamped.

Unstamped: version and package id are the placeholders below until deployment_package.py stamps them. Times
are the zip format's epoch: a package is identified by its content, not by when it was built.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import yaml

from edgepack_assets.model_types.base import ComponentSpec
from edgepack_assets.runtime.lock import Lock
from edgepack_assets.runtime.sdk import quiet_import
from edgepack_assets.runtime.zips import write_zip

with quiet_import():
    from simaticai.deployment import Pipeline, PythonComponent

COMPONENT = "inference"
UNSTAMPED_VERSION = "0.0.0-unstamped"
UNSTAMPED_ID = uuid.UUID(int=0)
LOCK_FILE = "requirements.lock"
"""In the component: the full lock with hashes, as pip's `--require-hashes` takes it."""

_TIMES = re.compile(rb"^(\s*(?:createdOn|updatedOn): ).*$", re.MULTILINE)
_TIME = rb"\g<1>'1980-01-01T00:00:00Z'"


def config_package_name(package_name: str) -> str:
    """The file name of the config package."""
    return f"{package_name.replace(' ', '-')}_{UNSTAMPED_VERSION}.zip"


def build_config_package(
    component_folder: Path, spec: ComponentSpec, lock: Lock, package_name: str, description: str, work: Path
) -> Path:
    """Let the SDK save the pipeline of the component in `component_folder` (all of its files ship, entrypoint.py
    is its entrypoint) and write it anew, reproducibly, into `work`. Raises AssertionError of the SDK if what the
    component declares is invalid."""
    pins = work / "requirements.txt"
    pins.write_text(lock.as_requirements(), encoding="utf-8")
    (component_folder / LOCK_FILE).write_text(lock.as_requirements(hashes=True), encoding="utf-8")
    component = PythonComponent(name=COMPONENT, python_version=lock.python, desc=spec.description)
    component.add_resources(component_folder, sorted(p.name for p in component_folder.iterdir()))
    component.set_entrypoint("entrypoint.py")
    component.set_requirements(pins)
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
    saved = Path(pipeline.save(work / "saved", package_id=UNSTAMPED_ID, version=UNSTAMPED_VERSION))
    component.python_dependencies.clear()  # temporary folders of the SDK that it leaves behind
    top = saved.parent / saved.name.removesuffix(".zip")
    # The SDK's runner takes the zip's first entry for the top folder.
    files: dict[str, Path | bytes] = {f"{top.name}/": b""}
    for path in sorted(top.rglob("*")):
        name = f"{top.name}/{path.relative_to(top).as_posix()}"
        if path.is_dir() or path.name == "PythonPackages.zip":
            continue  # the SDK's is empty: the lock names the wheels, and the deployment package holds them
        files[name] = normalised(path.read_bytes()) if path.suffix == ".yml" and path.parent == top else path
    target = work / config_package_name(package_name)
    write_zip(target, files)
    return target


def normalised(text: bytes) -> bytes:
    """A YAML file of the SDK with its times replaced by the epoch, spelled as `dump_yaml` spells it."""
    return dump_yaml(yaml.safe_load(_TIMES.sub(_TIME, text)))


def dump_yaml(document: object) -> bytes:
    """One spelling for every YAML file in a package, so that stamping changes the stamp and nothing else."""
    return yaml.safe_dump(document, sort_keys=False).encode()
