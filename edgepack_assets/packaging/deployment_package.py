"""The deployment (edge configuration) package: built from the validated config package and the locked wheels,
never resolving again, and stamped with version and package id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from simaticai.packaging.constants import PACKAGE_SIZE_HARD_LIMIT, PACKAGE_SIZE_LIMIT

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.checks import CheckRow
from edgepack_assets.environments.lock import Lock
from edgepack_assets.errors import PackageError
from edgepack_assets.filesystem.atomic_files import file_digest
from edgepack_assets.filesystem.canonical_yaml import dump_yaml, load_yaml
from edgepack_assets.filesystem.reproducible_zip import Content, Inner, Member, checked_names, opened_zip, write_zip
from edgepack_assets.packaging.config_package import normalised
from edgepack_assets.packaging.pipeline_content import (
    PIPELINE_CONTENT,
    ComponentEntry,
    FileEntry,
    pipeline_content,
)
from edgepack_assets.packaging.sdk import quiet_import
from edgepack_assets.packaging.stamp import (
    COMPONENT,
    CONFIG,
    DATALINK,
    PACKAGES,
    REQUIREMENTS,
    RUNTIME,
    STAMPED_FILES,
    ComponentName,
    Stamp,
    components_of,
    deployment_package_name,
    digest_of,
    is_python,
    project_of,
    read_yaml,
)


def build_deployment_package(  # noqa: PLR0917 - what it is made of, and where
    config_package: Path, lock: Lock, store: ArtefactStore, registered_name: str, stamp: Stamp, work: Path,
    digests: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Build and stamp the package in `work`. `digests`: what `expected_contents` gives, if it was read already.

    Raises PackageError if it breaks the server's schema or limits, EdgepackError if it cannot be written."""
    digests = expected_contents(config_package, lock) if digests is None else digests
    with _opened_config(config_package) as config:
        outer: dict[str, Content] = dict(config.outside())
        for name in STAMPED_FILES:
            outer[name] = stamp.apply(name, config.read(name), config.project)
        pipeline = load_yaml(stamp.apply(CONFIG, config.read(CONFIG), config.project))
        runtime = stamp.apply(RUNTIME, _runtime_config(pipeline), config.project)
        outer[RUNTIME] = runtime
        if DATALINK in outer:
            outer[DATALINK] = stamp.apply(DATALINK, config.read(DATALINK), config.project)
        for row in schema_rows(pipeline, load_yaml(runtime)):
            if not row.passed:
                raise PackageError(f"{row.name}: {row.found}")
        size = _size_of_deployment_package(config, lock)
        if not size.passed:
            raise PackageError(f"{registered_name}: {size.found}; at most {size.wanted}")
        target = work / deployment_package_name(registered_name, stamp.version)
        packages = work / PACKAGES
        if lock.packages:
            write_zip(packages, {package.file: store.fetch(package.blob) for package in lock.packages})
        listed = {}
        for each in components_of(pipeline, config.name):
            members = config.inside(each.name)
            component = Inner({**members, **({PACKAGES: packages} if lock.packages and each.is_python else {})})
            outer[each.inside] = component
            listed[each.name] = _listed(each, members, component.size, lock, packages, digests)
        if stamp.lists_content:
            outer[PIPELINE_CONTENT] = pipeline_content(listed)
        write_zip(target, outer)
        packages.unlink(missing_ok=True)
    row = size_row(target.stat().st_size)
    if not row.passed:
        target.unlink()
        raise PackageError(f"{target.name}: {row.found}; at most {row.wanted}")
    return target


def _listed(  # noqa: PLR0917 - what it holds, and how large it is
    component: ComponentName, members: Mapping[str, Member], size: int, lock: Lock, packages: Path,
    digests: Mapping[str, str],
) -> ComponentEntry:  # fmt: skip
    """A component as pipeline_content.yml lists it."""
    files = {name: FileEntry(each.size, digests[f"{component.inside}/{name}"]) for name, each in members.items()}
    wheels = {}
    if lock.packages and component.is_python:
        files[PACKAGES] = FileEntry(packages.stat().st_size, file_digest(packages))
        wheels = {package.file: FileEntry(package.size, package.digest) for package in lock.packages}
    requirements = members[REQUIREMENTS].read() if REQUIREMENTS in members else b""
    return ComponentEntry(size, files, wheels, requirements, component.is_python)


def expected_contents(config_package: Path, lock: Lock) -> dict[str, str]:
    """The contents that a deployment package of this config package and lock must have."""
    with _opened_config(config_package) as config:
        digests = {name: digest_of(member) for name, member in config.outside().items()}
        for each in config.components:
            files = config.inside(each.name)
            digests |= {f"{each.inside}/{name}": digest_of(member) for name, member in files.items()}
            for package in lock.packages if each.is_python else ():
                digests[f"{each.inside}/{PACKAGES}/{package.file}"] = package.digest
        digests[RUNTIME] = hashlib.sha256(_runtime_config(config.pipeline)).hexdigest()
    return digests


def schema_rows(pipeline: dict[str, Any], runtime: dict[str, Any]) -> list[CheckRow]:
    """Whether pipeline and runtime configuration hold to the SDK's schemas."""
    with quiet_import():
        from simaticai.deploy.pipeline import _validate_with_schema

    rows = []
    for file, document, schema in (
        (CONFIG, pipeline, "pipeline.schema.json"),
        (RUNTIME, runtime, "runtime.schema.json"),
    ):
        name = f"{file} holds to the SDK's schema"
        try:
            _validate_with_schema(file, document, schema)
            rows.append(CheckRow(name, True, "valid", schema))
        except AssertionError as error:
            rows.append(CheckRow(name, False, " ".join(str(error).split()), schema))
    return rows


def config_package_rows(config_package: Path, lock: Lock, components: Sequence[str] = (COMPONENT,)) -> list[CheckRow]:
    """The rows of config_package.is_fit: structure (`components` are the names that it must have), schema, and the size
    its deployment package will have."""
    with _opened_config(config_package) as config:
        names, wanted, found = [each.name for each in config.components], [], []
        for component in config.pipeline["dataFlowPipeline"]["components"]:
            entrypoint = PurePosixPath(component["entrypoint"]).as_posix()  # without the SDK's ./
            wanted.append(entrypoint)
            found.append(entrypoint if entrypoint in config.inside(component["name"]) else "missing")
        return [
            CheckRow("components", names == list(components), ", ".join(names), ", ".join(components)),
            CheckRow("entrypoint", found == wanted, ", ".join(found), ", ".join(wanted)),
            *schema_rows(config.pipeline, load_yaml(_runtime_config(config.pipeline))),
            _size_of_deployment_package(config, lock),
        ]


def _size_of_deployment_package(config: _ConfigPackage, lock: Lock) -> CheckRow:
    """Whether the deployment package of this config package will be within the server's limit."""
    carrying = sum(each.is_python for each in config.components)  # each ships its own copies
    return size_row(config.size + carrying * sum(package.size for package in lock.packages))


def size_row(size: int) -> CheckRow:
    """Whether a deployment package of that many bytes is within the server's limit."""
    note = " (servers before 2.9 may refuse it)" if size > PACKAGE_SIZE_LIMIT else ""
    return CheckRow(
        "size of the deployment package",
        size <= PACKAGE_SIZE_HARD_LIMIT,
        f"{size} bytes{note}",
        f"{PACKAGE_SIZE_HARD_LIMIT} bytes",
    )


def _runtime_config(pipeline: dict[str, Any]) -> bytes:
    with quiet_import():
        from simaticai.deploy.pipeline import _generate_runtime_config

    runtime = _generate_runtime_config(pipeline)
    runtime["runtimeConfiguration"]["components"] = [
        {
            "name": component["name"],
            "device": "IED1",
            "targetRuntime": "Python" if is_python(component) else component["runtime"]["type"],
        }
        for component in pipeline["dataFlowPipeline"]["components"]
    ]
    return normalised(dump_yaml(runtime))


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
        return read_yaml(self.members[CONFIG].archive, self.members[CONFIG].name, self.name)

    @property
    def project(self) -> str:
        return project_of(self.pipeline, self.name)

    def read(self, name: str) -> bytes:
        return self.members[name].read()

    @cached_property
    def components(self) -> list[ComponentName]:
        """Its components, in the order of the pipeline."""
        return components_of(self.pipeline, self.name)

    def inside(self, component: str) -> dict[str, Member]:
        """The files of a component, by their names inside the component."""
        top = f"{component}/"
        return {name.removeprefix(top): member for name, member in self.members.items() if name.startswith(top)}

    def outside(self) -> dict[str, Member]:
        """The files of no component."""
        tops = {each.name for each in self.components}
        return {name: member for name, member in self.members.items() if name.partition("/")[0] not in tops}


@contextmanager
def _opened_config(config_package: Path) -> Iterator[_ConfigPackage]:
    subject = config_package.name
    with opened_zip(config_package, subject) as archive:
        names = checked_names(archive, subject)
        tops = {name.split("/", 1)[0] for name in names}
        if len(tops) != 1:
            raise PackageError(f"{subject}: must hold one top folder, it holds {', '.join(sorted(tops)) or 'nothing'}")
        members = {name.partition("/")[2]: Member(archive, name) for name in names}
        missing = [name for name in STAMPED_FILES if name not in members]
        if missing:
            raise PackageError(f"{subject}: holds no {' and no '.join(missing)}")
        yield _ConfigPackage(subject, members)
