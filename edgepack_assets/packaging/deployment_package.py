"""The deployment (edge configuration) package: built from the validated config package and the locked wheels,
never resolving again; stamped with version and package id; and read back to prove what it holds.

`contents` is the proof: path -> sha256 of every file in the package and in its component, with the stamp taken
out. Two packages of equal contents differ in their stamp only.
"""

from __future__ import annotations

import hashlib
import html
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgepack_assets.artefacts import ArtefactStore, canonical_json
from edgepack_assets.errors import PackageError
from edgepack_assets.evidence import Part
from edgepack_assets.packaging.config_package import (
    COMPONENT,
    UNSTAMPED_ID,
    UNSTAMPED_VERSION,
    dump_yaml,
    normalised,
)
from edgepack_assets.runtime.lock import Lock
from edgepack_assets.runtime.sdk import quiet_import
from edgepack_assets.runtime.zips import checked_names, write_zip

with quiet_import():
    from simaticai.deploy.pipeline import _generate_runtime_config, _validate_with_schema
    from simaticai.packaging.constants import PACKAGE_SIZE_HARD_LIMIT, PACKAGE_SIZE_LIMIT

STAMPED_FILES = ("pipeline_config.yml", "README.html")
"""The only files that a stamp changes: pipeline_config.yml (dataFlowPipelineVersion, packageId, and the version
in the topics of the metrics) and README.html (the version in its title)."""

_PACKAGES = "PythonPackages.zip"
_NAMESPACE = uuid.UUID("6b1f64b4-6a4c-5a0e-9a39-2f4d1d3c8a71")


@dataclass(frozen=True)
class Stamp:
    """What tells two versions of the same content apart."""

    version: int
    package_id: uuid.UUID

    def apply(self, name: str, data: bytes, project: str) -> bytes:
        """One of STAMPED_FILES of the pipeline `project`, with the placeholders replaced. A pure function."""
        return _restamp(name, data, project, (UNSTAMPED_VERSION, UNSTAMPED_ID), (str(self.version), self.package_id))

    def remove(self, name: str, data: bytes, project: str) -> bytes:
        """The inverse of `apply`."""
        return _restamp(name, data, project, (str(self.version), self.package_id), (UNSTAMPED_VERSION, UNSTAMPED_ID))


    def __str__(self) -> str:
        return f"version {self.version}, package id {self.package_id}"


def read_stamp(package: Path) -> Stamp:
    """The stamp that a deployment package carries. Raises PackageError if it carries none."""
    with zipfile.ZipFile(package) as archive:
        info = yaml.safe_load(archive.read("pipeline_config.yml"))["dataFlowPipelineInfo"]
    try:
        return Stamp(int(info["dataFlowPipelineVersion"]), uuid.UUID(info["packageId"]))
    except ValueError:
        raise PackageError(f"{package.name}: is not stamped with a version and a package id") from None


def package_id_for(registered_name: str) -> uuid.UUID:
    """The package id of a name that has no registered version yet: the same on every machine."""
    return uuid.uuid5(_NAMESPACE, registered_name)


def deployment_package_name(registered_name: str, version: int) -> str:
    """The file name of a deployment package: `<Package-Name>-edge_<version>.zip`."""
    return f"{registered_name}_{version}.zip"


def build_deployment_package(
    config_package: Path, lock: Lock, store: ArtefactStore, registered_name: str, stamp: Stamp, work: Path
) -> Path:
    """Build and stamp the package in `work`. Raises PackageError if it breaks the server's schema or limits."""
    config = _read_files(config_package)
    project = _project(config["pipeline_config.yml"])
    outer: dict[str, Path | bytes] = {
        name: stamp.apply(name, data, project) if name in STAMPED_FILES else data
        for name, data in config.items() if not name.startswith(f"{COMPONENT}/")
    }  # fmt: skip
    pipeline = yaml.safe_load(outer["pipeline_config.yml"])
    runtime = _runtime_config(pipeline)
    outer["runtime_config.yml"] = runtime
    for part in schema_parts(pipeline, yaml.safe_load(runtime)):
        if not part.passed:
            raise PackageError(f"{part.name}: {part.found}")
    wheels = work / _PACKAGES
    write_zip(wheels, {package.file: store.fetch(package.blob) for package in lock.packages})
    component = work / "component.zip"
    files: dict[str, Path | bytes] = {
        name.removeprefix(f"{COMPONENT}/"): data for name, data in config.items() if name.startswith(f"{COMPONENT}/")
    }
    write_zip(component, {**files, _PACKAGES: wheels} if lock.packages else files)
    wheels.unlink()
    outer[f"components/{_component_file(pipeline)}"] = component
    target = work / deployment_package_name(registered_name, stamp.version)
    write_zip(target, outer)
    component.unlink()
    part = size_part(target.stat().st_size)
    if not part.passed:
        raise PackageError(f"{target.name}: {part.found}; at most {part.wanted}")
    return target


def expected_contents(config_package: Path, lock: Lock) -> dict[str, str]:
    """The contents that a deployment package of this config package and lock must have."""
    config = _read_files(config_package)
    found = {name: hashlib.sha256(data).hexdigest() for name, data in config.items()}
    for package in lock.packages:
        found[f"{COMPONENT}/{_PACKAGES}/{package.file}"] = package.digest
    runtime = _runtime_config(yaml.safe_load(config["pipeline_config.yml"]))
    return {**found, "runtime_config.yml": hashlib.sha256(runtime).hexdigest()}


def contents(package: Path, stamp: Stamp) -> dict[str, str]:
    """The contents of a stamped package, read from its bytes. Raises PackageError on a zip not to be trusted."""
    found: dict[str, str] = {}
    with zipfile.ZipFile(package) as outer:
        project = _project(outer.read("pipeline_config.yml"))
        for name in checked_names(outer, package.name):
            if name.startswith("components/"):
                with outer.open(name) as stream, zipfile.ZipFile(stream) as inner:
                    found |= _component_contents(inner, f"{package.name}/{name}")
            else:
                data = outer.read(name)
                if name in STAMPED_FILES:
                    data = stamp.remove(name, data, project)
                found[name] = hashlib.sha256(data).hexdigest()
    return found


def content_digest(found: dict[str, str]) -> str:
    """sha256 of `contents`: the identity of a package but for its stamp."""
    return hashlib.sha256(canonical_json(found)).hexdigest()


def schema_parts(pipeline: dict[str, Any], runtime: dict[str, Any]) -> list[Part]:
    """Whether pipeline and runtime configuration hold to the SDK's schemas."""
    parts = []
    for name, document, schema in (
        ("pipeline_config.yml holds to the SDK's schema", pipeline, "pipeline.schema.json"),
        ("runtime_config.yml holds to the SDK's schema", runtime, "runtime.schema.json"),
    ):
        try:
            _validate_with_schema(name, document, schema)
            parts.append(Part(name, True, "valid", schema))
        except AssertionError as error:
            parts.append(Part(name, False, " ".join(str(error).split()), schema))
    return parts


def config_package_parts(config_package: Path, lock: Lock) -> list[Part]:
    """The rows of config_package.is_fit: structure, schema, and the size its deployment package will have."""
    config = _read_files(config_package)
    pipeline = yaml.safe_load(config["pipeline_config.yml"])
    names = [component["name"] for component in pipeline["dataFlowPipeline"]["components"]]
    entrypoint = f"{COMPONENT}/{Path(pipeline['dataFlowPipeline']['components'][0]['entrypoint']).name}"
    size = sum(map(len, config.values())) + sum(package.size for package in lock.packages)
    return [
        Part("components", names == [COMPONENT], ", ".join(names), COMPONENT),
        Part("entrypoint", entrypoint in config, entrypoint if entrypoint in config else "missing", entrypoint),
        *schema_parts(pipeline, yaml.safe_load(_runtime_config(pipeline))),
        size_part(size),
    ]


def size_part(size: int) -> Part:
    """Whether a deployment package of that many bytes is within the server's limit."""
    note = " (servers before 2.9 may refuse it)" if size > PACKAGE_SIZE_LIMIT else ""
    return Part("size of the deployment package", size <= PACKAGE_SIZE_HARD_LIMIT, f"{size} bytes{note}",
                f"{PACKAGE_SIZE_HARD_LIMIT} bytes")


def _runtime_config(pipeline: dict[str, Any]) -> bytes:
    runtime = _generate_runtime_config(pipeline)
    runtime["runtimeConfiguration"]["components"] = [
        {"name": component["name"], "device": "IED1", "targetRuntime": "Python"}
        for component in pipeline["dataFlowPipeline"]["components"]
    ]
    return normalised(dump_yaml(runtime))


def _component_file(pipeline: dict[str, Any]) -> str:
    component = pipeline["dataFlowPipeline"]["components"][0]
    return f"{component['name']}_{component['version']}.zip"


def _read_files(config_package: Path) -> dict[str, bytes]:
    """The files of a config package, without its one top folder."""
    with zipfile.ZipFile(config_package) as archive:
        names = checked_names(archive, config_package.name)
        tops = {name.split("/", 1)[0] for name in names}
        if len(tops) != 1:
            raise PackageError(f"{config_package.name}: must hold one top folder, it holds {', '.join(sorted(tops))}")
        return {name.split("/", 1)[1]: archive.read(name) for name in names}


def _component_contents(inner: zipfile.ZipFile, what: str) -> dict[str, str]:
    found = {}
    for name in checked_names(inner, what):
        with inner.open(name) as stream:
            if name == _PACKAGES:
                with zipfile.ZipFile(stream) as wheels:
                    for wheel in checked_names(wheels, f"{what}/{name}"):
                        with wheels.open(wheel) as packed:
                            found[f"{COMPONENT}/{name}/{wheel}"] = hashlib.file_digest(packed, "sha256").hexdigest()  # type: ignore[arg-type]
            else:
                found[f"{COMPONENT}/{name}"] = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    return found


def _project(pipeline_config: bytes) -> str:
    return str(yaml.safe_load(pipeline_config)["dataFlowPipelineInfo"]["projectName"])


def _restamp(
    name: str, data: bytes, project: str, old: tuple[str, uuid.UUID], new: tuple[str, uuid.UUID]
) -> bytes:
    if name == "README.html":
        title = html.escape(project)
        return data.replace(f"{title} ({old[0]})".encode(), f"{title} ({new[0]})".encode())
    document = yaml.safe_load(data)
    info = document["dataFlowPipelineInfo"]
    if (info["dataFlowPipelineVersion"], info["packageId"]) != (old[0], str(old[1])):
        raise PackageError(
            f"{name}: carries version {info['dataFlowPipelineVersion']} and package id {info['packageId']}, "
            f"not {old[0]} and {old[1]}"
        )
    info["dataFlowPipelineVersion"], info["packageId"] = new[0], str(new[1])
    for output in document["dataFlowPipeline"]["pipelineOutputs"]:
        if output.get("metric"):
            output["topic"] = output["topic"].replace(f"/{project}/{old[0]}/metrics/", f"/{project}/{new[0]}/metrics/")
    return dump_yaml(document)
