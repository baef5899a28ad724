"""The stamped deployment package: built from what was validated, run once more as it is, registered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from edgepack_assets import __version__
from edgepack_assets.artefacts import Artefact, check_chain, file_digest
from edgepack_assets.errors import EdgepackError, PackageError, VersionTakenError
from edgepack_assets.evidence import Part
from edgepack_assets.model_types.base import Results, read_lines
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.runtime.lock import Lock
from edgepack_assets.tasks.metrics import all_gate_parts
from edgepack_assets.tasks.payload_data import open_payload, raw_data_of
from edgepack_assets.tasks.tools import Tools

_ANSWERS_TO_COMPARE = 2
_TOLERANCE = 1e-9
"""Relative difference allowed between floats of two runs of the same bytes on the same machine."""
_MOST_RACES = 50


@dataclass(frozen=True)
class DeploymentReport:
    """What a person sees of a deployment package."""

    registered: RegisteredVersion
    package_id: str
    content_digest: str
    was_registered_before: bool
    parts: list[Part]


def deploy(
    key: ModelKey, config_package: Artefact, payload_data: Artefact, validation_results: Artefact, metrics: Artefact,
    run_tags: Mapping[str, str], tools: Tools,
) -> tuple[Artefact, DeploymentReport]:  # fmt: skip
    """Verify chain and gates, build, run and register the package; or report the version that stands.

    Raises StaleError, EdgepackError (gates), PackageError, ComponentError.
    """
    inputs = {"config_package": config_package, "payload_data": payload_data, "validation_results": validation_results}
    check_chain(validation_results, inputs)
    check_chain(metrics, inputs)
    _refuse_failed_gates(metrics, key, tools)
    from edgepack_assets.packaging import deployment_package as packaging

    entry, lock = tools.entry(key), tools.lock_of(config_package)
    name = entry.registered_package_name
    package = tools.store.fetch(config_package.parts["package"])
    expected = packaging.expected_contents(package, lock)
    content = packaging.content_digest(expected)
    tags = _tags(key, content, payload_data, config_package, metrics, lock, run_tags, tools)
    with tools.work_folder() as work:
        registered, before = _existing(name, tags, tools), True
        executed = False
        for _ in range(_MOST_RACES):
            if registered is not None:
                break
            versions = tools.registry.versions(Kind.MODEL, name)
            stamp = packaging.Stamp(
                versions[-1].version + 1 if versions else 1,
                packaging.uuid.UUID(versions[-1].tags["packageid"]) if versions else packaging.package_id_for(name),
            )
            built = packaging.build_deployment_package(package, lock, tools.store, name, stamp, work)
            found = packaging.contents(built, stamp)
            if found != expected:
                differing = sorted(f for f in found.keys() | expected.keys() if found.get(f) != expected.get(f))
                raise PackageError(f"{built.name} differs from what was validated in: {', '.join(differing)}")
            if not executed:
                _execute(key, built, payload_data, validation_results, lock, work, tools)
                executed = True  # another stamp on proven equal contents needs no second run
            try:
                registered = tools.registry.register(
                    Kind.MODEL, name, built, {**tags, "packageid": str(stamp.package_id)}, version=stamp.version
                )
                before = False
            except VersionTakenError:
                tools.log.info(f"{name}:{stamp.version} was taken by another run; stamping the next version")
                registered = _existing(name, tags, tools)
                built.unlink()
                continue
        if registered is None:
            raise PackageError(f"{name}: {_MOST_RACES} versions in a row were taken by other runs; run this again")
        parts = _registered_parts(registered, expected, None if before else file_digest(built), work, tools)
    artefact = Artefact(
        asset="deployment_package", partition=str(key),
        parts={"contents": tools.store.put_json(expected)},
        facts={"name": registered.name, "version": registered.version, "packageid": registered.tags["packageid"],
               "content_digest": content, "digest": registered.digest, "size": registered.size},
        made_from={**{n: value.digest for n, value in inputs.items()}, "metrics": metrics.digest},
    )  # fmt: skip
    return artefact, DeploymentReport(registered, registered.tags["packageid"], content, before, parts)


def _refuse_failed_gates(metrics: Artefact, key: ModelKey, tools: Tools) -> None:
    failed = [part for part in all_gate_parts(metrics, key, tools) if not part.passed]
    if failed:
        lines = "; ".join(f"{part.name}: {part.found}, wanted {part.wanted}" for part in failed)
        raise EdgepackError(f"the gates of {key} do not hold, nothing is registered: {lines}")


def _tags(
    key: ModelKey, content: str, payload_data: Artefact, config_package: Artefact, metrics: Artefact, lock: Lock,
    run_tags: Mapping[str, str], tools: Tools,
) -> dict[str, str]:  # fmt: skip
    raw, model = raw_data_of(payload_data), config_package.facts["model"]
    tags = {
        "model_name": model["name"],
        "model_version": str(model["version"]),
        "model_type": key.model_type,
        "content_digest": content,
        "lock_digest": lock.digest,
        "lock_key": lock.key,
        "raw_data": f"{raw['name']}:{raw['version']}",
        "raw_data_digest": raw["digest"],
        "payload_digest": payload_data.digest,
        "edgepack_version": __version__,
        **{name: value for name, value in run_tags.items() if value},
    }
    return tags | {name: repr(value) for name, value in metrics.facts["metrics"].items() if value is not None}


def _existing(name: str, tags: Mapping[str, str], tools: Tools) -> RegisteredVersion | None:
    """The version that holds this very content of this very model version, if there is one."""
    identity = ("content_digest", "model_name", "model_version")
    for version in reversed(tools.registry.versions(Kind.MODEL, name)):
        if all(version.tags.get(tag) == tags[tag] for tag in identity):
            return version
    return None


def _execute(
    key: ModelKey, built: Path, payload_data: Artefact, validation_results: Artefact, lock: Lock, work: Path,
    tools: Tools,
) -> None:  # fmt: skip
    """Run the stamped package over the payload's first records; its outputs must be those that were validated."""
    from edgepack_assets.runtime.runner import PackageRunner

    folder = work / "execution"
    folder.mkdir()
    payload = open_payload(payload_data, tools)
    with PackageRunner(built, folder, tools.sandbox, tools.environment(lock)) as runner:
        run = runner.run(f"running {built.name} of {key}", payload.records, tools.preload(key, lock),
                         until_answers=_ANSWERS_TO_COMPARE)
    validated = Results(tools.store.fetch(validation_results.parts["results"]))
    compared = 0
    for ours, theirs in zip(read_lines(run.results), islice(read_lines(validated.path), run.records), strict=True):
        if not _equal(ours, theirs):
            raise PackageError(
                f"{built.name} answers record {theirs['record']} with {ours['outputs']}, "
                f"but was validated with {theirs['outputs']}"
            )
        compared += 1
    if compared != run.records or run.answered == 0:
        raise PackageError(f"{built.name} gave {run.answered} answers to {run.records} records")
    tools.log.info(f"{built.name} was run over {compared} records: outputs equal the validated ones")


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_equal(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=_TOLERANCE)
    return bool(ours == theirs)


def _registered_parts(
    registered: RegisteredVersion, expected: dict[str, str], built: str | None, work: Path, tools: Tools
) -> list[Part]:
    """The rows of deployment_package.is_registered_as_built, from a fresh download."""
    from edgepack_assets.packaging import deployment_package as packaging

    path = tools.registry.download(registered, work / "registered")
    stamp = packaging.read_stamp(path)
    found = packaging.contents(path, stamp)
    differing = sorted(f for f in found.keys() | expected.keys() if found.get(f) != expected.get(f))
    wanted = packaging.Stamp(registered.version, packaging.uuid.UUID(registered.tags["packageid"]))
    parts = [
        Part("files that differ from the validated ones", not differing, ", ".join(differing) or "none", "none"),
        Part("stamp", stamp == wanted, str(stamp), str(wanted)),
    ]
    if built is not None:
        digest = file_digest(path)
        parts.insert(0, Part("registered bytes", digest == built, digest[:16], f"{built[:16]}, as built"))
    return parts
