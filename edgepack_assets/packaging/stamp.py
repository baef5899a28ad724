"""Stamping a package with its version and package id, and reading one back to prove what it holds.

`contents` is the proof: path -> sha256 of every file in the package and in its component, with the stamp taken
out. Two packages of equal contents differ in their stamp only. Nothing of the SDK is needed for it.
"""

from __future__ import annotations

import hashlib
import html
import re
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from edgepack_assets.artefacts.artefact import canonical_json
from edgepack_assets.errors import PackageError
from edgepack_assets.filesystem.canonical_yaml import dump_yaml, load_yaml
from edgepack_assets.filesystem.reproducible_zip import Member, checked_names, opened_inside, opened_zip
from edgepack_assets.packaging.pipeline_content import PIPELINE_CONTENT, ComponentEntry, FileEntry, pipeline_content

COMPONENT = "inference"
UNSTAMPED_VERSION = "0.0.0-unstamped"
UNSTAMPED_ID = uuid.UUID(int=0)

UNSTAMPED_TIME = "1980-01-01T00:00:00Z"

CONFIG, RUNTIME, README = "pipeline_config.yml", "runtime_config.yml", "README.html"
DATALINK = "datalink_metadata.yml"
STAMPED_FILES = (CONFIG, README)
"""The files that every stamp changes: pipeline_config.yml (dataFlowPipelineVersion, packageId, createdOn, the end of
the description, and the version in the topics of the metrics) and README.html (the version in its title and first
heading, and a paragraph below that heading)."""
DATED_FILES = (RUNTIME, DATALINK)
"""The files of which a stamp changes the times only."""

PACKAGES = "PythonPackages.zip"
REQUIREMENTS = "requirements.txt"
COMPONENTS = "components/"
_TOPICS = "/siemens/edge/aiinference/"
_NAMESPACE = uuid.UUID("6b1f64b4-6a4c-5a0e-9a39-2f4d1d3c8a71")
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_MADE_FROM = "made from "


@dataclass(frozen=True)
class Origin:
    """What a package was made from, in words (`text`), and when its model version was registered (`created`)."""

    text: str
    created: str

    @classmethod
    def of(cls, made_from: str, created: datetime) -> Origin:
        """The origin of a package. Names and versions that others chose may hold anything: they are made plain, so that
        the text can be found again in the description and means nothing in HTML."""
        time = created.astimezone(UTC).strftime(_TIME_FORMAT)
        if time == UNSTAMPED_TIME:  # else the package would read as one without an origin
            time = UNSTAMPED_TIME.replace(":00Z", ":01Z")
        return cls(_MADE_FROM + re.sub(r"[^A-Za-z0-9_.,:; +-]", "_", made_from), time)

    @classmethod
    def read(cls, description: str, created: str) -> Origin | None:
        """The origin that a package's description and time tell of. Raises ValueError if they don't fit together."""
        if created == UNSTAMPED_TIME:
            return None
        _, separator, text = description.rpartition(f" ({_MADE_FROM}")
        if not separator or not text.endswith(")"):
            raise ValueError("the description does not say what the package was made from")
        return cls(_MADE_FROM + text.removesuffix(")"), created)


@dataclass(frozen=True)
class Stamp:
    """What tells two versions of the same content apart.

    Without an `origin` times and description stay as they are. A package of an earlier release has none, and no
    `lists_content`: it holds no pipeline_content.yml."""

    version: int
    package_id: uuid.UUID
    origin: Origin | None = None
    lists_content: bool = True

    def apply(self, name: str, data: bytes, project: str) -> bytes:
        """One of STAMPED_FILES or DATED_FILES of the pipeline `project`, with the placeholders replaced. A pure
        function.

        Raises PackageError if the file does not carry the placeholders where they belong."""
        return _restamp(name, data, project, _UNSTAMPED, self._marks)

    def remove(self, name: str, data: bytes, project: str) -> bytes:
        """The inverse of `apply`."""
        return _restamp(name, data, project, self._marks, _UNSTAMPED)

    @property
    def _marks(self) -> _Marks:
        return _Marks(str(self.version), str(self.package_id), self.origin)

    def __str__(self) -> str:
        return f"version {self.version}, package id {self.package_id}"


@dataclass(frozen=True)
class _Marks:
    """What a stamp writes."""

    version: str
    package_id: str
    origin: Origin | None

    @property
    def created(self) -> str:
        return self.origin.created if self.origin else UNSTAMPED_TIME

    @property
    def suffix(self) -> str:
        return f" ({self.origin.text})" if self.origin else ""

    @property
    def paragraph(self) -> str:
        return f"\n<p>{html.escape(self.origin.text)}</p>" if self.origin else ""


_UNSTAMPED = _Marks(UNSTAMPED_VERSION, str(UNSTAMPED_ID), None)


def read_stamp(package: Path) -> Stamp:
    """The stamp that a deployment package carries. Raises PackageError if it carries none."""
    with opened_zip(package, package.name) as archive:
        names = checked_names(archive, package.name)
        info = read_yaml(archive, CONFIG, package.name).get("dataFlowPipelineInfo", {})
    try:
        origin = Origin.read(info["description"], info["createdOn"])
        version, package_id = int(info["dataFlowPipelineVersion"]), uuid.UUID(info["packageId"])
        return Stamp(version, package_id, origin, PIPELINE_CONTENT in names)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PackageError(f"{package.name}: is not stamped with a version and a package id") from None


def package_id_for(registered_name: str) -> uuid.UUID:
    """The package id of a name that has no registered version yet: the same on every machine."""
    return uuid.uuid5(_NAMESPACE, registered_name)


def deployment_package_name(registered_name: str, version: int) -> str:
    """The file name of a deployment package: `<Package-Name>-edge_<version>.zip`."""
    return f"{registered_name}_{version}.zip"


def contents(package: Path, stamp: Stamp) -> dict[str, str]:
    """The contents of a stamped package, read from its bytes. Raises PackageError on a zip not to be trusted.

    pipeline_content.yml is no part of them: it must say what follows from the component, and nothing else."""
    digests: dict[str, str] = {}
    components: dict[str, ComponentEntry] = {}
    with opened_zip(package, package.name) as outer:
        names = _only_files(outer, package.name)
        pipeline = read_yaml(outer, CONFIG, package.name)
        project = project_of(pipeline, package.name)
        named = components_of(pipeline, package.name)
        for name in names:
            if name.startswith(COMPONENTS):
                subject = f"{package.name}/{name}"
                is_python = all(each.is_python for each in named if each.inside == name)
                with opened_inside(outer, name, subject) as component:
                    components[name] = _read_component(component, outer.getinfo(name).file_size, subject, is_python)
                digests |= _contents(name, components[name])
            elif name in STAMPED_FILES or name in DATED_FILES:
                digests[name] = hashlib.sha256(stamp.remove(name, outer.read(name), project)).hexdigest()
            elif name != PIPELINE_CONTENT:
                digests[name] = digest_of(Member(outer, name))
        if (PIPELINE_CONTENT in names) != stamp.lists_content:
            raise PackageError(f"{package.name}: {'holds no' if stamp.lists_content else 'holds a'} {PIPELINE_CONTENT}")
        if stamp.lists_content:
            if missing := [each.inside for each in named if each.inside not in components]:
                raise PackageError(f"{package.name}: holds no {' and no '.join(missing)}")
            if outer.read(PIPELINE_CONTENT) != pipeline_content({c.name: components[c.inside] for c in named}):
                raise PackageError(f"{package.name}: {PIPELINE_CONTENT} lists other files than its components hold")
    return digests


def _contents(name: str, component: ComponentEntry) -> dict[str, str]:
    """The part of a package's `contents` of the component that lies under `name`. Wheels count one by one."""
    files = {f"{name}/{file}": entry.digest for file, entry in component.files.items() if file != PACKAGES}
    return files | {f"{name}/{PACKAGES}/{wheel}": entry.digest for wheel, entry in component.wheels.items()}


def _read_component(component: zipfile.ZipFile, size: int, subject: str, is_python: bool = True) -> ComponentEntry:
    files = _entries(component, subject)
    wheels = {}
    if PACKAGES in files:
        with opened_inside(component, PACKAGES, f"{subject}/{PACKAGES}") as archive:
            wheels = _entries(archive, f"{subject}/{PACKAGES}")
    requirements = component.read(REQUIREMENTS) if REQUIREMENTS in files else b""
    return ComponentEntry(size, files, wheels, requirements, is_python)


def _entries(archive: zipfile.ZipFile, subject: str) -> dict[str, FileEntry]:
    members = {name: Member(archive, name) for name in _only_files(archive, subject)}
    return {name: FileEntry(member.size, digest_of(member)) for name, member in members.items()}


def content_digest(digests: Mapping[str, str]) -> str:
    """sha256 of `contents`: the identity of a package but for its stamp."""
    return hashlib.sha256(canonical_json(digests)).hexdigest()


def _only_files(archive: zipfile.ZipFile, subject: str) -> list[str]:
    """The names of an archive that holds files and nothing else, as we build it."""
    names = checked_names(archive, subject)
    if len(names) != len(archive.infolist()):
        raise PackageError(f"{subject}: holds folders of their own, which a deployment package has not")
    return names


def digest_of(member: Member) -> str:
    with member.archive.open(member.name) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def read_yaml(archive: zipfile.ZipFile, name: str, subject: str) -> dict[str, Any]:
    try:
        document = load_yaml(archive.read(name))
    except KeyError:
        raise PackageError(f"{subject}: holds no {name}") from None
    except yaml.YAMLError as error:
        raise PackageError(f"{subject}: {name} is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise PackageError(f"{subject}: {name} is not a mapping")
    return document


def project_of(pipeline: dict[str, Any], subject: str) -> str:
    try:
        return str(pipeline["dataFlowPipelineInfo"]["projectName"])
    except (KeyError, TypeError):
        raise PackageError(f"{subject}: {CONFIG} names no project") from None


@dataclass(frozen=True)
class ComponentName:
    """A component that pipeline_config.yml names: its name, the name of its zip in the package (`inside`), and whether
    it runs on Python, which is what ships wheels; a GPU runtime component does not."""

    name: str
    inside: str
    is_python: bool


def components_of(pipeline: dict[str, Any], subject: str) -> list[ComponentName]:
    """The package's components, at least one, in the order of the pipeline. Raises PackageError."""
    try:
        components = [
            ComponentName(
                str(each["name"]),
                f"{COMPONENTS}{each['name']}_{each['version']}.zip",
                is_python(each),
            )
            for each in pipeline["dataFlowPipeline"]["components"]
        ]
    except (KeyError, TypeError, AttributeError):
        raise PackageError(f"{subject}: {CONFIG} names no component") from None
    names = [each.name for each in components]
    if not names:
        raise PackageError(f"{subject}: {CONFIG} names no component")
    if len(set(names)) != len(names):
        raise PackageError(f"{subject}: {CONFIG} names two components of one name: {', '.join(names)}")
    return components


def is_python(component: Mapping[str, Any]) -> bool:
    """Whether a component, as pipeline_config.yml says it, runs on Python."""
    return bool(component.get("runtime", {}).get("type", "python") == "python")


def _restamp(name: str, data: bytes, project: str, old: _Marks, new: _Marks) -> bytes:
    if name == README:
        # The SDK writes the name as it is. What comes first is its own: a description follows the heading.
        data = _replaced_once(name, data, f"<title>{project} ({old.version})<", f"<title>{project} ({new.version})<")
        was, now = (f"<h1>Pipeline {project} ({marks.version})</h1>{marks.paragraph}" for marks in (old, new))
        return _replaced_once(name, data, was, now)
    if name in DATED_FILES:
        return data if old.created == new.created else _redated(name, data, old.created, new.created)
    try:
        return _restamped_config(name, load_yaml(data), project, old, new)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise PackageError(f"{name}: is no pipeline's configuration: {error}") from None


def _restamped_config(name: str, document: dict[str, Any], project: str, old: _Marks, new: _Marks) -> bytes:
    info = document["dataFlowPipelineInfo"]
    if (info["dataFlowPipelineVersion"], info["packageId"]) != (old.version, old.package_id):
        raise PackageError(
            f"{name}: carries version {info['dataFlowPipelineVersion']} and package id {info['packageId']}, "
            f"not {old.version} and {old.package_id}"
        )
    info["dataFlowPipelineVersion"], info["packageId"] = new.version, new.package_id
    if info["createdOn"] != old.created or not info["description"].endswith(old.suffix):
        raise PackageError(f"{name}: does not carry the time {old.created} and the origin {old.suffix.strip()!r}")
    info["createdOn"] = new.created
    info["description"] = info["description"].removesuffix(old.suffix) + new.suffix
    for output in document["dataFlowPipeline"]["pipelineOutputs"]:
        if output.get("metric"):
            topic = f"{_TOPICS}{project}/{old.version}/metrics/"
            if not output["topic"].startswith(topic):
                raise PackageError(f"{name}: the topic of {output['name']} is {output['topic']}, not below {topic}")
            output["topic"] = f"{_TOPICS}{project}/{new.version}/metrics/{output['topic'].removeprefix(topic)}"
    return dump_yaml(document)


def _redated(name: str, data: bytes, old: str, new: str) -> bytes:
    """A file with its times replaced. They stand on lines of their own, as `dump_yaml` writes them."""
    changed, count = re.subn(
        rf"^( *(?:createdOn|updatedOn): '){re.escape(old)}('\n)".encode(),
        lambda match: match[1] + new.encode() + match[2],
        data,
        flags=re.MULTILINE,
    )
    if not count:
        raise PackageError(f"{name}: does not carry the time {old}")
    return changed


def _replaced_once(name: str, data: bytes, old: str, new: str) -> bytes:
    before, old_bytes, after = data.partition(old.encode())
    if not old_bytes:
        raise PackageError(f"{name}: does not hold {old}")
    return before + new.encode() + after
