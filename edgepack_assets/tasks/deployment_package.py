"""The stamped deployment package: built from what was validated, run once more as it is, registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from edgepack_assets import __version__
from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow, in_words
from edgepack_assets.config.digest import config_digest
from edgepack_assets.environments.lock import Lock
from edgepack_assets.errors import EdgepackError, PackageError
from edgepack_assets.filesystem.atomic_files import file_digest
from edgepack_assets.packaging.stamp import Stamp, content_digest, contents, read_stamp
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import ResolvedVersion
from edgepack_assets.tasks.chain import check_chain
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.failed_checks import refuse_failed_checks
from edgepack_assets.tasks.final_run import execute
from edgepack_assets.tasks.metrics import Scored, gate_rows, open_metrics
from edgepack_assets.tasks.packages import tags as package_tags
from edgepack_assets.tasks.packages.build import PackageInputs, build_package, origin_of
from edgepack_assets.tasks.packages.delta import DeltaReport, register_delta
from edgepack_assets.tasks.packages.registration import Registration, metrics_tag, register_package
from edgepack_assets.tasks.payload_data import raw_data_of
from edgepack_assets.tasks.predecessor.contract_changes import change_reason, contract_rows
from edgepack_assets.tasks.predecessor.kept_numbers import numbers_report
from edgepack_assets.text_format import counted


@dataclass(frozen=True)
class Validated:
    """What a deployment package is made from: artefacts that must have been made from each other."""

    config_package: Artefact
    payload_data: Artefact
    validation_results: Artefact
    metrics: Artefact

    def inputs(self) -> dict[str, Artefact]:
        """The artefacts by asset name."""
        return {artefact.asset: artefact for artefact in vars(self).values()}


@dataclass(frozen=True)
class DeploymentReport:
    """What a person sees of a deployment package."""

    registered: ResolvedVersion
    package_id: str
    content_digest: str
    was_registered_before: bool
    metrics: Mapping[str, float | None]
    rows: list[CheckRow]
    delta: DeltaReport | None = None


def deploy(
    key: ModelKey, validated: Validated, run_tags: Mapping[str, str], override: str, context: TaskContext
) -> tuple[Artefact, DeploymentReport]:
    """Verify chain and gates, build, run and register the package; or report the version that stands.

    `override` is a person's reason to register although gates do not hold; empty where there is none. It is kept in
    the package's tags. Raises StaleError, EdgepackError (checks, gates), PackageError, ComponentError, TransientError.
    """
    check_chain("deployment_package", key, validated.inputs().values())
    refuse_failed_checks(key, validated.inputs().values())
    metrics = open_metrics(validated.metrics, context)
    overridden = _refuse_failed_gates(key, metrics, validated, override, context)
    name, lock = context.entry(key).registered_package_name, context.lock_of(validated.config_package)
    package = context.store.fetch(validated.config_package.parts["package"])
    expected = context.kept_contents(validated.config_package) or context.packaging.expected_contents(package, lock)
    content = content_digest(expected)
    tags = {
        **_tags(key, validated, metrics, lock, run_tags, context),
        **overridden,
        package_tags.CONTENT_DIGEST: content,
    }
    inputs = PackageInputs(validated.config_package, validated.payload_data, name, lock, expected)
    with context.work_folder() as work:
        build = _Build(key, inputs, validated.validation_results, work, context)
        registration = register_package(context.registry, name, tags, build, context.log)
        registered, before = registration.registered.resolve(), registration.built is None
        rows = _registered_rows(registration, expected, work, context)
        delta = None
        if context.entry(key).delta:
            delta = register_delta(registered, registration.built, work, context)
            rows.append(delta.row)
        if before:
            dated, too_old = metrics_tag(registered, metrics.numbers, tags)
            if added := {**dated, **overridden}:
                registered = context.registry.set_tags(registered, added, without=too_old).resolve()
    package_id = registered.tags.get(package_tags.PACKAGE_ID, "")
    artefact = Artefact(
        asset="deployment_package",
        partition=str(key),
        parts={"contents": context.store.put_json(expected)},
        facts={
            "name": registered.name,
            "version": registered.version,
            "packageid": package_id,
            "content_digest": content,
            "digest": registered.digest,
            "size": registered.size,
            **({"delta": {"package": str(delta.registered or ""), "words": delta.words}} if delta else {}),
        },
        made_from={asset: value.digest for asset, value in validated.inputs().items()},
    )
    return artefact, DeploymentReport(registered, package_id, content, before, metrics.numbers, rows, delta)


class _Build:
    """Builds the package with a stamp, or takes the one that was built ahead, and proves it: it holds what was
    validated, and answers as was validated."""

    def __init__(
        self, key: ModelKey, inputs: PackageInputs, validation_results: Artefact, work: Path, context: TaskContext
    ) -> None:
        self._key, self._inputs, self._validation_results = key, inputs, validation_results
        self._work, self._context = work, context
        self._origin = origin_of(inputs, context)
        self._is_proven = False

    def __call__(self, unmarked: Stamp) -> Path:
        """The package. Raises PackageError, TaskFailedError, ComponentError."""
        inputs, context, stamp = self._inputs, self._context, replace(unmarked, origin=self._origin)
        ahead = context.built_ahead.take(inputs.decide(stamp), context.log)
        built = ahead or build_package(inputs, stamp, self._work, context)
        if built.contents != inputs.expected:
            differing = _differing(built.contents, inputs.expected)
            raise PackageError(f"{built.path.name} differs from what was validated in: {differing}")
        if not self._is_proven:  # another stamp on contents that are proven equal needs no second run
            server = context.server_of(inputs.config_package)
            execute(
                self._key, built.path, built.contents, inputs.payload_data, self._validation_results, inputs.lock,
                context, server,
            )  # fmt: skip
            self._is_proven = True
        return built.path


def _differing(files: Mapping[str, str], expected: Mapping[str, str]) -> str:
    return ", ".join(sorted(f for f in files.keys() | expected.keys() if files.get(f) != expected.get(f))) or "none"


def _refuse_failed_gates(
    key: ModelKey, metrics: Scored, validated: Validated, override: str, context: TaskContext
) -> dict[str, str]:
    """The tags of what is overridden: gates, and a change of the interface that the model's tags allow.

    Raises EdgepackError if a gate does not hold and there is no reason to pass it, or if the metrics are not sound: a
    person's reason cannot excuse answers to other records."""
    numbers = numbers_report(key, validated.payload_data, validated.validation_results, context).rows
    interface = contract_rows(key, validated.config_package, context)
    overridden = _overridden_gates(key, metrics, [*numbers, *interface], override, context)
    if any(row.warns and not row.passed for row in interface) and (reason := change_reason(key, context)):
        overridden[package_tags.INTERFACE_CHANGE] = reason
    return overridden


def _overridden_gates(
    key: ModelKey, metrics: Scored, kept: Iterable[CheckRow], override: str, context: TaskContext
) -> dict[str, str]:
    """`kept`: the rows on what a package keeps of the one before."""
    unsound = [row for row in metrics.consistency_rows if not (row.passed or row.warns)]
    failed = [row for row in [*gate_rows(metrics, key, context), *kept] if not (row.passed or row.warns)]
    if unsound or (failed and not override):
        raise EdgepackError(f"the gates of {key} do not hold, nothing is registered: {in_words([*unsound, *failed])}")
    if override and not failed:
        context.log.info(f"every gate of {key} holds: the reason to override them is not needed and not kept")
    if not failed:
        return {}
    if len(override) > package_tags.LONGEST_TAG:
        raise EdgepackError(
            f"the reason to override the gates of {key} has {counted(len(override), 'character')}; a tag "
            f"holds {package_tags.LONGEST_TAG}"
        )
    words = in_words(failed)
    context.log.warning(f"gates of {key} are overridden ({override}): {words}")
    words = words if len(words) <= package_tags.LONGEST_TAG else f"{words[: package_tags.LONGEST_TAG - 3]}..."
    return {package_tags.GATES_OVERRIDDEN: override, package_tags.GATES_OVERRIDDEN_FAILED: words}


def _tags(  # noqa: PLR0917 - what the tags are made from
    key: ModelKey, validated: Validated, metrics: Scored, lock: Lock, run_tags: Mapping[str, str], context: TaskContext
) -> dict[str, str]:
    package_tags.check_metric_names(metrics.numbers)
    raw, model = raw_data_of(validated.payload_data), validated.config_package.facts["model"]
    tags = {
        package_tags.MODEL_NAME: model["name"],
        package_tags.MODEL_VERSION: str(model["version"]),
        package_tags.MODEL_TYPE: key.model_type,
        package_tags.LOCK_DIGEST: lock.digest,
        package_tags.LOCK_KEY: lock.key,
        package_tags.RAW_DATA: f"{raw['name']}:{raw['version']}",
        package_tags.RAW_DATA_DIGEST: raw["digest"],
        package_tags.PAYLOAD_DIGEST: validated.payload_data.digest,
        package_tags.EDGEPACK_VERSION: __version__,
        package_tags.CONFIG_DIGEST: config_digest(context.settings),
        package_tags.NUMBERS_OF: validated.config_package.facts.get(package_tags.NUMBERS_OF, ""),
        **_server_tags(validated.config_package, context),
        **{name: value for name, value in run_tags.items() if value},
    }
    tags = {name: value for name, value in tags.items() if value or name != package_tags.NUMBERS_OF}
    return tags | {name: repr(value) for name, value in metrics.numbers.items() if value is not None}


def _server_tags(config_package: Artefact, context: TaskContext) -> dict[str, str]:
    server = context.server_of(config_package)
    if server is None:
        return {}
    return {package_tags.SERVER_LOCK_KEY: server.lock.key, package_tags.SERVER_LOCK_DIGEST: server.lock.digest}


def _registered_rows(
    registration: Registration, expected: Mapping[str, str], work: Path, context: TaskContext
) -> list[CheckRow]:
    """The rows of deployment_package.is_registered_as_built, from the registry's own bytes, which `view` holds
    against the registered digest.

    The files of a package that was built in this run have been compared already: its digest is enough."""
    registered, built = registration.registered.resolve(), registration.built
    with ThreadPoolExecutor(1) as pool:  # beside the download: hashing a hundred megabytes takes its time
        is_local = built is not None and built.stat().st_nlink > 1  # then it is the registry's own file, too
        as_built = None if built is None or is_local else pool.submit(file_digest, built)
        path = context.registry.view(registered, work / "registered")
    if built is not None:
        if as_built is not None:
            digest = as_built.result()
        else:  # `view` has just held these bytes against the registered digest
            digest = registered.digest if built.samefile(path) else file_digest(built)
        return [
            CheckRow("registered bytes", registered.digest == digest, registered.digest, f"{digest}, as built and run")
        ]
    stamp = read_stamp(path)
    wanted = f"version {registered.version}, package id {registered.tags.get(package_tags.PACKAGE_ID, 'none')}"
    differing = _differing(contents(path, stamp), expected)
    return [
        CheckRow("files that differ from the validated ones", differing == "none", differing, "none"),
        CheckRow("stamp", str(stamp) == wanted, str(stamp), wanted),
    ]
