"""The registered deployment packages of the configured model types: which model version has one, and what it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgepack_assets.config.schema import ModelTypeSettings, Settings
from edgepack_assets.errors import PluginError
from edgepack_assets.model_types import model_type
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry import approval
from edgepack_assets.registry.base import Kind, RegisteredVersion, Registry
from edgepack_assets.tasks.packages import stages
from edgepack_assets.tasks.packages.archive import Archived, archived
from edgepack_assets.tasks.packages.history import by_model_version
from edgepack_assets.tasks.packages.tags import GATES_OVERRIDDEN, MODEL_NAME, MODEL_VERSION
from edgepack_assets.text_format import format_table


@dataclass(frozen=True)
class Packaged:
    """A model version and its registered deployment package, `NAME:VERSION`. The note stands behind its name."""

    key: ModelKey
    package: str
    location: str
    metrics: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True)
class Missing:
    """The model versions that have no package: those that may be packaged, and those that wait for approval."""

    keys: tuple[ModelKey, ...]
    unapproved: tuple[ModelKey, ...]


@dataclass(frozen=True)
class PackageEntry:
    """A registered package of a model type as a list shows it. `model` is NAME:VERSION, or ? where no tag says it."""

    model_type: str
    package: RegisteredVersion
    model: str
    gates: str
    metrics: Mapping[str, float]
    stages: tuple[str, ...]
    archived: Archived | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it, with every tag."""
        return {
            "model_type": self.model_type,
            "name": self.package.name,
            "version": self.package.number,
            "model": self.model,
            "created": self.package.created.isoformat(),
            "gates": self.gates,
            "metrics": dict(self.metrics),
            "stages": list(self.stages),
            "archived": None if self.archived is None else asdict(self.archived),
            "location": self.package.location,
            "tags": dict(self.package.tags),
        }


def list_packages(model_type: str, entry: ModelTypeSettings, registry: Registry) -> list[PackageEntry]:
    """The registered packages of a model type, oldest first."""
    packages = registry.versions(Kind.MODEL, entry.registered_package_name)
    in_stages = defaultdict(list)
    for move in stages.current(packages).values():
        in_stages[move.package.number].append(str(move))
    return [
        PackageEntry(
            model_type, package, f"{package.tags.get(MODEL_NAME, '?')}:{package.tags.get(MODEL_VERSION, '?')}",
            "overridden" if GATES_OVERRIDDEN in package.tags else "passed", metrics_of(entry, package.tags),
            tuple(sorted(in_stages[package.number])), archived(package),
        )
        for package in packages
    ]  # fmt: skip


def find_package(entry: ModelTypeSettings, model: RegisteredVersion, registry: Registry) -> RegisteredVersion | None:
    """The latest registered deployment package of a model version, if there is one."""
    packages = registry.versions(Kind.MODEL, entry.registered_package_name)
    return by_model_version(packages, model.name).get(model.number)


def packaged(key: ModelKey, entry: ModelTypeSettings, package: RegisteredVersion) -> Packaged:
    """A registered package with the metrics that it is tagged with."""
    return Packaged(key, str(package), package.location, metrics_of(entry, package.tags))


def metrics_of(entry: ModelTypeSettings, tags: Mapping[str, str]) -> dict[str, float]:
    """The metrics among a package's tags; none where the plug-in that names them cannot be used."""
    names = [] if why_no_metrics(entry) else sorted(model_type(entry.implementation).metric_names)
    return {name: value for name in names if (value := _number(tags.get(name))) is not None}


def why_no_metrics(entry: ModelTypeSettings) -> str:
    """Why nobody says which tags are metrics: the fault of the plug-in. Empty if it has none."""
    try:
        model_type(entry.implementation)
    except PluginError as error:
        return str(error)
    return ""


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None  # people and other tools write tags too


def missing_packages(settings: Settings, registry: Registry) -> Missing:
    """The versions of the configured models that have no registered package, in the order of the configuration."""
    keys: list[ModelKey] = []
    unapproved: list[ModelKey] = []
    for name, entry in settings.model_types.items():
        packages = registry.versions(Kind.MODEL, entry.registered_package_name)
        done = by_model_version(packages, entry.model_name)
        needs_approval = entry.needs_approval(settings.run.environment)
        for version in registry.versions(Kind.MODEL, entry.model_name):
            if version.number not in done:
                waits = needs_approval and approval.approval_of(version.tags) is None
                (unapproved if waits else keys).append(ModelKey(name, version.number))
    return Missing(tuple(keys), tuple(unapproved))


def packages_table(packages: Iterable[Packaged]) -> str:
    """A table with a line for each metric, then where each package is."""
    rows = [("Model", "Package", "Metric", "")]
    places = []
    for one in packages:
        first = (str(one.key), f"{one.package}{one.note}")
        for name, value in one.metrics.items() or [("", None)]:
            rows.append((*first, name, "" if value is None else f"{value:.4g}"))
            first = ("", "")
        places.append(f"  {one.package}: {one.location}")
    return "\n".join([format_table(rows, underlined=True), "", "The packages are in", *places])
