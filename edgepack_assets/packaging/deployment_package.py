"""The deployment (edge configuration) package: built from the validated config package and the locked wheels,
never resolving again; stamped with version and package id; and read back to prove what it holds.

`contents` is the proof: path -> sha256 of every file in the package and in its component, with the stamp taken
out. Two packages of equal contents differ in their stamp only.
"""

from __future__ import annotations

import hashlib
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from edgepack_assets.artefact_store import ArtefactStore
from edgepack_assets.artefacts import canonical_json
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
from edgepack_assets.runtime.zips import Content, Member, checked_names, opened_zip, write_zip

with quiet_import():
    from simaticai.deploy.pipeline import _generate_runtime_config, _validate_with_schema
    from simaticai.packaging.constants import PACKAGE_SIZE_HARD_LIMIT, PACKAGE_SIZE_LIMIT

_CONFIG, _RUNTIME, _README = "pipeline_config.yml", "runtime_config.yml", "README.html"
STAMPED_FILES = (_CONFIG, _README)
"""The only files that a stamp changes: pipeline_config.yml (dataFlowPipelineVersion, packageId, and the version
in the topics of the metrics) and README.html (the version in its title and first heading)."""

_PACKAGES = "PythonPackages.zip"
_COMPONENTS = "components/"
_TOPICS = "/siemens/edge/aiinference/"
_NAMESPACE = uuid.UUID("6b1f64b4-6a4c-5a0e-9a39-2f4d1d3c8a71")


@dataclass(frozen=True)
class Stamp:
    """What tells two versions of the same content apart."""

    version: int
    package_id: uuid.UUID

    def apply(self, name: str, data: bytes, project: str) -> bytes:
        """One of STAMPED_FILES of the pipeline `project`, with the placeholders replaced. A pure function.

        Raises PackageError if the file does not carry the placeholders where they belong."""
        return _restamp(name, data, project, (UNSTAMPED_VERSION, UNSTAMPED_ID), (str(self.version), self.package_id))

    def remove(self, name: str, data: bytes, project: str) -> bytes:
        """The inverse of `apply`."""
        return _restamp(name, data, project, (str(self.version), self.package_id), (UNSTAMPED_VERSION, UNSTAMPED_ID))

    def __str__(self) -> str:
        return f"version {self.version}, package id {self.package_id}"


def read_stamp(package: Path) -> Stamp:
    """The stamp that a deployment package carries. Raises PackageError if it carries none."""
    with opened_zip(package, package.name) as archive:
        checked_names(archive, package.name)
        info = _read_yaml(archive, _CONFIG, package.name).get("dataFlowPipelineInfo", {})
    try:
        return Stamp(int(info["dataFlowPipelineVersion"]), uuid.UUID(info["packageId"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PackageError(f"{package.name}: is not stamped with a version and a package id") from None


def package_id_for(registered_name: str) -> uuid.UUID:
    """The package id of a name that has no registered version yet: the same on every machine."""
    return uuid.uuid5(_NAMESPACE, registered_name)


def deployment_package_name(registered_name: str, version: int) -> str:
    """The file name of a deployment package: `<Package-Name>-edge_<version>.zip`."""
    return f"{registered_name}_{version}.zip"


def build_deployment_package(  # noqa: PLR0917 - six things, none a part of another
    config_package: Path, lock: Lock, store: ArtefactStore, registered_name: str, stamp: Stamp, work: Path
) -> Path:
    """Build and stamp the package in `work`. Raises PackageError if it breaks the server's schema or limits,
    EdgepackError if it cannot be written."""
    with _opened_config(config_package) as config:
        outer: dict[str, Content] = dict(config.outside())
        for name in STAMPED_FILES:
            outer[name] = stamp.apply(name, config.read(name), config.project)
        pipeline = yaml.safe_load(stamp.apply(_CONFIG, config.read(_CONFIG), config.project))
        runtime = _runtime_config(pipeline)
        outer[_RUNTIME] = runtime
        for part in schema_parts(pipeline, yaml.safe_load(runtime)):
            if not part.passed:
                raise PackageError(f"{part.name}: {part.found}")
        size = _size_of_deployment_package(config, lock)
        if not size.passed:
            raise PackageError(f"{registered_name}: {size.found}; at most {size.wanted}")
        component, target = work / "component.zip", work / deployment_package_name(registered_name, stamp.version)
        files: dict[str, Content] = dict(config.inside())
        if lock.packages:
            files[_PACKAGES] = work / _PACKAGES
            write_zip(work / _PACKAGES, {package.file: store.fetch(package.blob) for package in lock.packages})
        write_zip(component, files)
        (work / _PACKAGES).unlink(missing_ok=True)
        write_zip(target, {**outer, f"{_COMPONENTS}{_component_file(pipeline)}": component})
        component.unlink()
    part = size_part(target.stat().st_size)
    if not part.passed:
        target.unlink()
        raise PackageError(f"{target.name}: {part.found}; at most {part.wanted}")
    return target


def expected_contents(config_package: Path, lock: Lock) -> dict[str, str]:
    """The contents that a deployment package of this config package and lock must have."""
    with _opened_config(config_package) as config:
        inside = f"{_COMPONENTS}{_component_file(config.pipeline)}/"
        found = {name: _digest(member) for name, member in config.outside().items()}
        found |= {f"{inside}{name}": _digest(member) for name, member in config.inside().items()}
        for package in lock.packages:
            found[f"{inside}{_PACKAGES}/{package.file}"] = package.digest
        found[_RUNTIME] = hashlib.sha256(_runtime_config(config.pipeline)).hexdigest()
    return found


def contents(package: Path, stamp: Stamp) -> dict[str, str]:
    """The contents of a stamped package, read from its bytes. Raises PackageError on a zip not to be trusted."""
    found: dict[str, str] = {}
    with opened_zip(package, package.name) as outer:
        names = _only_files(outer, package.name)
        project = _project(_read_yaml(outer, _CONFIG, package.name), package.name)
        for name in names:
            if name.startswith(_COMPONENTS):
                found |= _contents_inside(outer, name, package.name)
            elif name in STAMPED_FILES:
                found[name] = hashlib.sha256(stamp.remove(name, outer.read(name), project)).hexdigest()
            else:
                found[name] = _digest(Member(outer, name))
    return found


def _contents_inside(outer: zipfile.ZipFile, name: str, what: str) -> dict[str, str]:
    found = {}
    with outer.open(name) as stream, opened_zip(stream, f"{what}/{name}") as component:
        for file in _only_files(component, f"{what}/{name}"):
            if file != _PACKAGES:
                found[f"{name}/{file}"] = _digest(Member(component, file))
                continue
            inside = f"{what}/{name}/{file}"
            with component.open(file) as packed, opened_zip(packed, inside) as wheels:
                for wheel in _only_files(wheels, inside):
                    found[f"{name}/{file}/{wheel}"] = _digest(Member(wheels, wheel))
    return found


def content_digest(found: dict[str, str]) -> str:
    """sha256 of `contents`: the identity of a package but for its stamp."""
    return hashlib.sha256(canonical_json(found)).hexdigest()


def schema_parts(pipeline: dict[str, Any], runtime: dict[str, Any]) -> list[Part]:
    """Whether pipeline and runtime configuration hold to the SDK's schemas."""
    parts = []
    for file, document, schema in (
        (_CONFIG, pipeline, "pipeline.schema.json"),
        (_RUNTIME, runtime, "runtime.schema.json"),
    ):
        name = f"{file} holds to the SDK's schema"
        try:
            _validate_with_schema(file, document, schema)
            parts.append(Part(name, True, "valid", schema))
        except AssertionError as error:
            parts.append(Part(name, False, " ".join(str(error).split()), schema))
    return parts


def config_package_parts(config_package: Path, lock: Lock) -> list[Part]:
    """The rows of config_package.is_fit: structure, schema, and the size its deployment package will have."""
    with _opened_config(config_package) as config:
        names = [component["name"] for component in config.pipeline["dataFlowPipeline"]["components"]]
        entrypoint = Path(config.pipeline["dataFlowPipeline"]["components"][0]["entrypoint"]).name
        found = entrypoint if entrypoint in config.inside() else "missing"
        return [
            Part("components", names == [COMPONENT], ", ".join(names), COMPONENT),
            Part("entrypoint", found == entrypoint, found, entrypoint),
            *schema_parts(config.pipeline, yaml.safe_load(_runtime_config(config.pipeline))),
            _size_of_deployment_package(config, lock),
        ]


def _size_of_deployment_package(config: _ConfigPackage, lock: Lock) -> Part:
    """Whether the deployment package of this config package will be within the server's limit."""
    return size_part(config.size + sum(package.size for package in lock.packages))


def size_part(size: int) -> Part:
    """Whether a deployment package of that many bytes is within the server's limit."""
    note = " (servers before 2.9 may refuse it)" if size > PACKAGE_SIZE_LIMIT else ""
    return Part(
        "size of the deployment package",
        size <= PACKAGE_SIZE_HARD_LIMIT,
        f"{size} bytes{note}",
        f"{PACKAGE_SIZE_HARD_LIMIT} bytes",
    )


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


@dataclass(frozen=True)
class _ConfigPackage:
    """A config package, open for reading: file name -> member, without its one top folder."""

    name: str
    members: dict[str, Member]

    @property
    def size(self) -> int:
        return sum(member.size for member in self.members.values())

    @cached_property
    def pipeline(self) -> dict[str, Any]:
        return _read_yaml(self.members[_CONFIG].archive, self.members[_CONFIG].name, self.name)

    @property
    def project(self) -> str:
        return _project(self.pipeline, self.name)

    def read(self, name: str) -> bytes:
        return self.members[name].archive.read(self.members[name].name)

    def inside(self) -> dict[str, Member]:
        """The component's files, by their names inside the component."""
        top = f"{COMPONENT}/"
        return {name.removeprefix(top): member for name, member in self.members.items() if name.startswith(top)}

    def outside(self) -> dict[str, Member]:
        """All other files."""
        return {name: member for name, member in self.members.items() if not name.startswith(f"{COMPONENT}/")}


@contextmanager
def _opened_config(config_package: Path) -> Iterator[_ConfigPackage]:
    what = config_package.name
    with opened_zip(config_package, what) as archive:
        names = checked_names(archive, what)
        tops = {name.split("/", 1)[0] for name in names}
        if len(tops) != 1:
            raise PackageError(f"{what}: must hold one top folder, it holds {', '.join(sorted(tops)) or 'nothing'}")
        members = {name.partition("/")[2]: Member(archive, name) for name in names}
        missing = [name for name in STAMPED_FILES if name not in members]
        if missing:
            raise PackageError(f"{what}: holds no {' and no '.join(missing)}")
        yield _ConfigPackage(what, members)


def _only_files(archive: zipfile.ZipFile, what: str) -> list[str]:
    """The names of an archive that holds files and nothing else, as we build it."""
    names = checked_names(archive, what)
    if len(names) != len(archive.infolist()):
        raise PackageError(f"{what}: holds folders of their own, which a deployment package has not")
    return names


def _digest(member: Member) -> str:
    with member.archive.open(member.name) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def _read_yaml(archive: zipfile.ZipFile, name: str, what: str) -> dict[str, Any]:
    try:
        document = yaml.safe_load(archive.read(name))
    except KeyError:
        raise PackageError(f"{what}: holds no {name}") from None
    except yaml.YAMLError as error:
        raise PackageError(f"{what}: {name} is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise PackageError(f"{what}: {name} is not a mapping")
    return document


def _project(pipeline: dict[str, Any], what: str) -> str:
    try:
        return str(pipeline["dataFlowPipelineInfo"]["projectName"])
    except (KeyError, TypeError):
        raise PackageError(f"{what}: {_CONFIG} names no project") from None


def _restamp(name: str, data: bytes, project: str, old: tuple[str, uuid.UUID], new: tuple[str, uuid.UUID]) -> bytes:
    if name == _README:
        # The SDK writes the name as it is. What comes first is its own: a description follows the heading.
        for start in ("<title>", "<h1>Pipeline "):
            data = _replaced_once(name, data, f"{start}{project} ({old[0]})<", f"{start}{project} ({new[0]})<")
        return data
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
            topic = f"{_TOPICS}{project}/{old[0]}/metrics/"
            if not output["topic"].startswith(topic):
                raise PackageError(f"{name}: the topic of {output['name']} is {output['topic']}, not below {topic}")
            output["topic"] = f"{_TOPICS}{project}/{new[0]}/metrics/{output['topic'].removeprefix(topic)}"
    return dump_yaml(document)


def _replaced_once(name: str, data: bytes, old: str, new: str) -> bytes:
    before, found, after = data.partition(old.encode())
    if not found:
        raise PackageError(f"{name}: does not hold {old}")
    return before + new.encode() + after
