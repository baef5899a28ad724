"""Packages, and model versions that were validated without one, as they are compared: their facts and their answers.

What is at hand in the artefact store is taken from there. What is not is read from the registered package, or answered
by it in the sandbox.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.model_types.interface import Answered, Results
from edgepack_assets.packaging.component_files import component_files
from edgepack_assets.packaging.contract import read_contract
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import RegisteredVersion
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.metrics import open_metrics
from edgepack_assets.tasks.package_run import run_package
from edgepack_assets.tasks.packages.download import registered_zip
from edgepack_assets.tasks.packages.history import metric_of
from edgepack_assets.tasks.packages.tags import RAW_DATA
from edgepack_assets.tasks.payload_data import open_payload, raw_data_of
from edgepack_assets.tasks.predecessor.answers import run_registered
from edgepack_assets.tasks.predecessor.find import Predecessor, Recorded, recorded
from edgepack_assets.tasks.reports.comparison import PackageFacts
from edgepack_assets.text_format import counted


@dataclass(frozen=True)
class Candidate:
    """One of two that are compared: a registered package, or a model version that was validated and has none. `known`
    is what the artefact store has of it, and always there without a package."""

    key: ModelKey
    package: RegisteredVersion | None
    known: Recorded | None
    metrics: Artefact | None = None

    def __str__(self) -> str:
        version = f"model version {self.key.version}"
        return f"{self.package} of {version}" if self.package is not None else f"{version}, which has no package"

    @property
    def name(self) -> str:
        """As short as it is unmistakable."""
        return str(self.package) if self.package is not None else f"{self.key} (no package)"


def registered_candidate(key: ModelKey, package: RegisteredVersion, context: TaskContext) -> Candidate:
    """A registered package of a model version."""
    return Candidate(key, package, recorded(Predecessor(package, key.version), context))


def validated_candidate(key: ModelKey, context: TaskContext) -> Candidate | None:
    """A model version as it was validated last; None if the artefact store does not have that. Raises
    TransientError."""
    try:
        payload, package, results = (
            context.store.load(asset, str(key)) for asset in ("payload_data", "config_package", "validation_results")
        )
    except TransientError:
        raise
    except EdgepackError as error:
        context.log.info(f"{key} is not in the artefact store: {error}")
        return None
    if any(results.made_from.get(each.asset) != each.digest for each in (payload, package)):
        return None
    try:
        metrics = context.store.load("metrics", str(key))
    except TransientError:
        raise
    except EdgepackError:
        return Candidate(key, None, Recorded(package, payload, results))
    is_of_these = metrics.made_from.get("validation_results") == results.digest
    return Candidate(key, None, Recorded(package, payload, results), metrics if is_of_these else None)


def facts_of(
    candidate: Candidate, payload_digest: str, latency: Mapping[str, float], context: TaskContext
) -> PackageFacts:
    """What is known of it; its metrics on the payload of that digest, if it was ever validated on that."""
    names = context.model_type(candidate.key).metric_names
    metrics: dict[str, float | None] = {}
    raw_data = "-"
    package = candidate.package
    if package is not None:
        values = {name: metric_of(package, name, payload_digest) for name in sorted(names)}
        metrics = {name: value for name, (value, _) in values.items() if value is not None}
        raw_data = next(
            (where for value, where in values.values() if value is not None), package.tags.get(RAW_DATA, "-")
        )
    elif candidate.metrics is not None:
        metrics = dict(open_metrics(candidate.metrics, context).numbers)
    known = candidate.known
    if package is None and known is not None:
        raw = raw_data_of(known.payload_data)
        raw_data = f"{raw['name']}:{raw['version']}"
    digests: Mapping[str, str] = {}
    with context.work_folder() as work:
        if known is not None:
            digests = context.kept_contents(known.config_package) or {}
            path = context.store.fetch(known.config_package.parts["package"])
        else:
            assert package is not None
            path = registered_zip(package, work, context.registry)
        contract, (files, wheels) = read_contract(path), component_files(path, digests)
    requirements = _versions_of(wheels)
    if known is not None:
        requirements = {each.name: each.version for each in context.lock_of(known.config_package).packages}
    return PackageFacts(
        candidate.name, metrics, raw_data, contract, requirements, files,
        package.resolve().size if package is not None else None, latency,
    )  # fmt: skip


def _versions_of(wheels: list[str]) -> dict[str, str]:
    versions = {}
    for wheel in wheels:
        try:
            name, version, *_ = parse_wheel_filename(wheel)
        except InvalidWheelFilename:
            versions[wheel] = "?"
        else:
            versions[str(name)] = str(version)
    return dict(sorted(versions.items()))


def latency_of(validation_results: Artefact, context: TaskContext) -> dict[str, float]:
    """Seconds for a record, as they were measured when it was validated; empty if they are not at hand."""
    blob = validation_results.observations.get("latency")
    if blob is None or not context.store.has(blob.digest):
        return {}
    latency: dict[str, float] = context.store.read_json(blob)
    return latency


def inspection_of(candidate: Candidate, context: TaskContext) -> dict[str, Any] | None:
    """What was found in its model, if that is at hand."""
    if candidate.known is None:
        return None
    inspection: dict[str, Any] = context.store.read_json(candidate.known.config_package.parts["inspection"])
    return inspection


@contextmanager
def answered(
    candidate: Candidate, payload_data: Artefact, context: TaskContext
) -> Iterator[tuple[Answered, Mapping[str, float]]]:
    """(what it answers to a payload, seconds for a record): as recorded, else from a run in the sandbox.

    The files may be gone after the block. Raises EdgepackError if it cannot be run."""
    inspection, known = inspection_of(candidate, context), candidate.known
    if known is not None and known.payload_data.parts["records"] == payload_data.parts["records"]:
        results = context.results_of(known.validation_results)
        yield Answered(candidate.name, results, inspection), latency_of(known.validation_results, context)
        return
    payload = open_payload(payload_data, context)
    context.log.info(f"running {candidate} over {counted(payload.count, 'record')}")
    if candidate.package is not None:
        predecessor = Predecessor(candidate.package, candidate.key.version)
        with run_registered(predecessor, payload, candidate.key, context) as run:
            yield Answered(candidate.name, Results(run.results), inspection), run.latency
        return
    assert known is not None
    package = context.store.fetch(known.config_package.parts["package"])
    environment = context.environment(context.lock_of(known.config_package))
    server = context.server_of(known.config_package)
    with context.work_folder() as work:
        run, _ = run_package(
            f"running {candidate}", package, environment, payload, candidate.key, work, context, server=server
        )
        yield Answered(candidate.name, Results(run.results), inspection), run.latency
