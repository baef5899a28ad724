"""Stamping a package with its version and package id, and reading one back to prove what it holds.

`contents` is the proof: path -> sha256 of every file in the package and in its component, with the stamp taken
out. Two packages of equal contents differ in their stamp only. Nothing of the SDK is needed for it.
"""

from __future__ import annotations

import hashlib
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgepack_assets.artefacts import canonical_json
from edgepack_assets.errors import PackageError
from edgepack_assets.runtime.zips import Member, checked_names, opened_inside, opened_zip
from edgepack_assets.yaml_text import dump_yaml, load_yaml

COMPONENT = "inference"
UNSTAMPED_VERSION = "0.0.0-unstamped"
UNSTAMPED_ID = uuid.UUID(int=0)

CONFIG, RUNTIME, README = "pipeline_config.yml", "runtime_config.yml", "README.html"
STAMPED_FILES = (CONFIG, README)
"""The only files that a stamp changes: pipeline_config.yml (dataFlowPipelineVersion, packageId, and the version
in the topics of the metrics) and README.html (the version in its title and first heading)."""

PACKAGES = "PythonPackages.zip"
COMPONENTS = "components/"
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
        info = read_yaml(archive, CONFIG, package.name).get("dataFlowPipelineInfo", {})
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


def contents(package: Path, stamp: Stamp) -> dict[str, str]:
    """The contents of a stamped package, read from its bytes. Raises PackageError on a zip not to be trusted."""
    found: dict[str, str] = {}
    with opened_zip(package, package.name) as outer:
        names = _only_files(outer, package.name)
        project = project_of(read_yaml(outer, CONFIG, package.name), package.name)
        for name in names:
            if name.startswith(COMPONENTS):
                found |= _contents_inside(outer, name, package.name)
            elif name in STAMPED_FILES:
                found[name] = hashlib.sha256(stamp.remove(name, outer.read(name), project)).hexdigest()
            else:
                found[name] = digest_of(Member(outer, name))
    return found


def _contents_inside(outer: zipfile.ZipFile, name: str, what: str) -> dict[str, str]:
    found = {}
    with opened_inside(outer, name, f"{what}/{name}") as component:
        for file in _only_files(component, f"{what}/{name}"):
            if file != PACKAGES:
                found[f"{name}/{file}"] = digest_of(Member(component, file))
                continue
            inside = f"{what}/{name}/{file}"
            with opened_inside(component, file, inside) as wheels:
                for wheel in _only_files(wheels, inside):
                    found[f"{name}/{file}/{wheel}"] = digest_of(Member(wheels, wheel))
    return found


def content_digest(found: dict[str, str]) -> str:
    """sha256 of `contents`: the identity of a package but for its stamp."""
    return hashlib.sha256(canonical_json(found)).hexdigest()


def _only_files(archive: zipfile.ZipFile, what: str) -> list[str]:
    """The names of an archive that holds files and nothing else, as we build it."""
    names = checked_names(archive, what)
    if len(names) != len(archive.infolist()):
        raise PackageError(f"{what}: holds folders of their own, which a deployment package has not")
    return names


def digest_of(member: Member) -> str:
    with member.archive.open(member.name) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def read_yaml(archive: zipfile.ZipFile, name: str, what: str) -> dict[str, Any]:
    try:
        document = load_yaml(archive.read(name))
    except KeyError:
        raise PackageError(f"{what}: holds no {name}") from None
    except yaml.YAMLError as error:
        raise PackageError(f"{what}: {name} is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise PackageError(f"{what}: {name} is not a mapping")
    return document


def project_of(pipeline: dict[str, Any], what: str) -> str:
    try:
        return str(pipeline["dataFlowPipelineInfo"]["projectName"])
    except (KeyError, TypeError):
        raise PackageError(f"{what}: {CONFIG} names no project") from None


def _restamp(name: str, data: bytes, project: str, old: tuple[str, uuid.UUID], new: tuple[str, uuid.UUID]) -> bytes:
    if name == README:
        # The SDK writes the name as it is. What comes first is its own: a description follows the heading.
        for start in ("<title>", "<h1>Pipeline "):
            data = _replaced_once(name, data, f"{start}{project} ({old[0]})<", f"{start}{project} ({new[0]})<")
        return data
    document = load_yaml(data)
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
