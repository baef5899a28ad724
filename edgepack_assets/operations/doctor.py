"""The checks of `edgepack doctor`: whether this machine and the configuration can package models."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from edgepack_assets.artefacts.store import open_store
from edgepack_assets.config.implementations import INTERFACE_VERSION, distribution, installed
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings
from edgepack_assets.config.schema import EDGE_PYTHONS, Settings
from edgepack_assets.environments.index_check import ask_with_pip, ask_with_uv
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.uv import uv_command
from edgepack_assets.errors import EdgepackError, PluginError, without_credentials
from edgepack_assets.model_types import Plugin
from edgepack_assets.operations.certificates import trusted_authorities
from edgepack_assets.operations.config_check import check_config
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind
from edgepack_assets.sandbox.self_test import try_protections
from edgepack_assets.text_format import counted, format_size

_DISTRIBUTION = "edgepack-assets"
_ENOUGH_SPACE = 5_000_000_000
"""Bytes: what building an environment and packaging a large model take at once."""


@dataclass(frozen=True)
class Finding:
    """One check: what was tried, whether it holds, and a message. `vital` if no run works without it."""

    section: str
    name: str
    holds: bool
    message: str
    vital: bool = True


def examine(settings: Settings) -> Iterator[Finding]:
    """Try everything that a run needs. Takes about 15 s, most of it for the isolation of model code."""
    yield _tried("configuration", "settings and gates", lambda: _configuration(settings))
    yield from _pythons(settings)
    yield from _disks(settings)
    yield from _dependencies()
    yield _tried("machine", "uv, which locks and installs", lambda: uv_command()[0])
    yield from _index(settings)
    yield from _authorities(settings)
    yield _tried("storage", "artefact store", lambda: _store(settings))
    yield from _registry(settings)
    yield from _compute(settings)
    yield from _model_types(settings)
    yield from _isolation(settings)


def _configuration(settings: Settings) -> str:
    check_config(settings.file)
    return f"{counted(len(settings.model_types), 'model type')}, no mistake"


def _disks(settings: Settings) -> Iterator[Finding]:
    """Free space where environments, artefacts and temporary files are. A first packaging takes about a GB there."""
    folders = {settings.runtime.environments, Path(tempfile.gettempdir())}
    if "://" not in settings.artefacts.root:
        folders.add(Path(settings.artefacts.root))
    for folder in sorted(folders):
        present = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(present).free
        enough = free >= _ENOUGH_SPACE
        message = f"{format_size(free)} free" + ("" if enough else f", a run may need {format_size(_ENOUGH_SPACE)}")
        yield Finding("machine", f"disk space for {folder}", enough, message, vital=False)


def _dependencies() -> Iterator[Finding]:
    """The versions of this project's dependencies, held against the bounds that it was tested with."""
    shown = []
    for text in metadata.requires(_DISTRIBUTION) or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding("machine", f"package {requirement.name}", False, f"is not installed, wanted {requirement}")
            continue
        shown.append(f"{requirement.name} {version}")
        if not requirement.specifier.contains(version, prereleases=True):
            yield Finding(
                "machine", f"package {requirement.name}", False, f"{version} is installed, wanted {requirement}"
            )
    yield Finding("machine", f"{_DISTRIBUTION} {metadata.version(_DISTRIBUTION)}", True, ", ".join(shown))


def _pythons(settings: Settings) -> Iterator[Finding]:
    wanted = {entry.python_version for entry in settings.model_types.values()} - {None}
    interpreters: dict[str, str] = {}
    for version in EDGE_PYTHONS:
        try:
            interpreters[version] = str(find_python(version, settings.runtime.pythons)[1])
        except EdgepackError as error:
            interpreters[version] = ""
            vital = version in wanted or (not wanted and not any(interpreters.values()) and version == EDGE_PYTHONS[-1])
            yield Finding("machine", f"Python {version} for components", False, str(error), vital)
        else:
            yield Finding("machine", f"Python {version} for components", True, interpreters[version])


def _tried(section: str, name: str, attempt: Callable[[], str], vital: bool = True) -> Finding:
    try:
        return Finding(section, name, True, attempt(), vital)
    except EdgepackError as error:
        return Finding(section, name, False, str(error), vital)


def _index(settings: Settings) -> Iterator[Finding]:
    """Not vital: models whose wheels are locked already need no index."""
    address = without_credentials(settings.runtime.index_url or "https://pypi.org/simple")
    for ask in (ask_with_uv, ask_with_pip):
        yield _tried("package index", address, partial(ask, settings.runtime), vital=False)


def _authorities(settings: Settings) -> Iterator[Finding]:
    in_storage = settings.artefacts.root.startswith(("abfs://", "abfss://"))
    with_azure = in_storage or isinstance(settings.registry, AzureMLRegistrySettings)
    for row in trusted_authorities(with_azure):  # if certificates are missing, the part itself fails in its own section
        message = f"{row.source}{': ' * bool(row.problem)}{row.problem}"
        yield Finding("trusted certificate authorities", row.part, not row.problem, message, vital=False)


def _store(settings: Settings) -> str:
    store = open_store(settings)
    content = f"edgepack doctor {os.getpid()}".encode()
    blob = store.put_bytes(content, "text/plain")
    if store.fetch(blob).read_bytes() != content:
        raise EdgepackError(f"{settings.artefacts.root} returns other bytes than were stored")
    return f"{settings.artefacts.root}: can be written and read"


def _registry(settings: Settings) -> Iterator[Finding]:
    holds = True
    if isinstance(settings.registry, AzureMLRegistrySettings):
        from edgepack_assets.registry.azure_ml import check_connection

        for step in check_connection(settings.registry):
            holds = holds and step.ok
            yield Finding("registry", step.step, step.ok, step.words)
    if holds:
        yield _tried("registry", "what is in it", lambda: _count(settings))


def _compute(settings: Settings) -> Iterator[Finding]:
    """What jobs of Azure ML need, once for each section that differs. Nothing if all work is done here."""
    examined = []
    for name in settings.model_types:
        compute = settings.compute_of(name)
        if not compute.is_remote:
            continue
        workspace = settings.compute_workspace_of(name)
        asked = compute, workspace, settings.plug_ins_of(name)
        if asked in examined:
            continue
        examined.append(asked)
        from edgepack_assets.compute.azure_ml import check_compute

        for step in check_compute(*asked):
            yield Finding("compute", step.step, step.ok, step.words)


def _count(settings: Settings) -> str:
    registry = open_registry(settings)
    models, data = (len(registry.names(kind)) for kind in (Kind.MODEL, Kind.DATA))
    return f"{settings.registry.type}: {counted(models, 'model')} and {counted(data, 'data asset')}"


def _model_types(settings: Settings) -> Iterator[Finding]:
    """Each installed implementation is imported. Only those that edgepack.yaml uses are vital."""
    used = {entry.implementation for entry in settings.model_types.values()}
    for name, entry_points in installed().items():
        origin = ", ".join(f"{distribution(each)}, {each.value}" for each in entry_points)
        try:
            Plugin(name)
        except PluginError as error:
            yield Finding("model types", name, False, f"{error} [{origin}]", vital=name in used)
        else:
            in_use = "" if name in used else ", not used by edgepack.yaml"
            message = f"{origin}, interface version {INTERFACE_VERSION}{in_use}"
            yield Finding("model types", name, True, message, vital=name in used)


def _isolation(settings: Settings) -> Iterator[Finding]:
    required = settings.runtime.isolation == "required"
    try:
        tried = try_protections(settings.runtime)
    except EdgepackError as error:
        yield Finding("isolation", "running model code", False, str(error))
        return
    backend = "model code is not isolated" if tried.backend == "none" else f"model code is isolated by {tried.backend}"
    lacking = (
        ""
        if tried.backend == "none" or not tried.missing
        else f", but these protections are missing: {', '.join(tried.missing)}"
    )
    name = f"runtime.isolation: {settings.runtime.isolation}"
    yield Finding("isolation", name, not tried.missing, backend + lacking, required)
    for row in tried.rows:
        yield Finding("isolation", row.name, row.passed, row.found, required)
