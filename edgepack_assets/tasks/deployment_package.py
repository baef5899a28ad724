"""The stamped deployment package: built from what was validated, run once more as it is, registered."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from edgepack_assets import __version__
from edgepack_assets.artefacts import Artefact, check_chain
from edgepack_assets.errors import EdgepackError, PackageError, VersionTakenError
from edgepack_assets.evidence import Part
from edgepack_assets.files import file_digest
from edgepack_assets.model_types.base import Results, read_lines
from edgepack_assets.packaging.stamp import Stamp, content_digest, contents, package_id_for, read_stamp
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.runtime.lock import Lock
from edgepack_assets.runtime.runner import PackageRunner
from edgepack_assets.tasks.metrics import all_gate_parts
from edgepack_assets.tasks.payload_data import open_payload, raw_data_of
from edgepack_assets.tasks.tools import Tools

_ANSWERS_TO_COMPARE = 2
_TOLERANCE = 1e-9
"""Relative difference allowed between floats of two runs of the same bytes on the same machine."""
_MOST_RACES = 50


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

    def check(self) -> None:
        """Raises StaleError if one was made from other bytes than those at hand."""
        check_chain(self.validation_results, self.inputs())
        check_chain(self.metrics, self.inputs())


@dataclass(frozen=True)
class DeploymentReport:
    """What a person sees of a deployment package."""

    registered: RegisteredVersion
    package_id: str
    content_digest: str
    was_registered_before: bool
    parts: list[Part]


def deploy(
    key: ModelKey, validated: Validated, run_tags: Mapping[str, str], tools: Tools
) -> tuple[Artefact, DeploymentReport]:
    """Verify chain and gates, build, run and register the package; or report the version that stands.

    Raises StaleError, EdgepackError (gates), PackageError, ComponentError.
    """
    validated.check()
    _refuse_failed_gates(validated.metrics, key, tools)
    name, lock = tools.entry(key).registered_package_name, tools.lock_of(validated.config_package)
    package = tools.store.fetch(validated.config_package.parts["package"])
    expected: dict[str, str] = tools.packaging.call("deployment_package.expected_contents", package, lock)
    content = content_digest(expected)
    tags = {**_tags(key, validated, lock, run_tags), "content_digest": content}
    with tools.work_folder() as work:
        registered, built = _existing(name, tags, tools), None
        before = registered is not None
        for _ in range(_MOST_RACES):
            if registered is not None:
                break
            stamp = _next_stamp(name, tools)
            first = built is None
            built = tools.packaging.call(
                "deployment_package.build_deployment_package", package, lock, tools.store, name, stamp, work
            )
            found = contents(built, stamp)
            if found != expected:
                raise PackageError(f"{built.name} differs from what was validated in: {_differing(found, expected)}")
            if first:  # another stamp on contents that are proven equal needs no second run
                _execute(key, built, validated, lock, tools)
            try:
                registered = tools.registry.register(
                    Kind.MODEL, name, built, {**tags, "packageid": str(stamp.package_id)}, version=stamp.version
                )
            except VersionTakenError:
                tools.log.info(f"{name}:{stamp.version} was taken by another run; stamping the next version")
                registered = _existing(name, tags, tools)
                before = registered is not None
        if registered is None:
            raise PackageError(f"{name}: {_MOST_RACES} versions in a row were taken by other runs; run this again")
        digest = None if before or built is None else file_digest(built)
        parts = _registered_parts(registered, expected, digest, work, tools)
    artefact = Artefact(
        asset="deployment_package",
        partition=str(key),
        parts={"contents": tools.store.put_json(expected)},
        facts={
            "name": registered.name,
            "version": registered.version,
            "packageid": registered.tags["packageid"],
            "content_digest": content,
            "digest": registered.digest,
            "size": registered.size,
        },
        made_from={asset: value.digest for asset, value in validated.inputs().items()},
    )
    return artefact, DeploymentReport(registered, registered.tags["packageid"], content, before, parts)


def _next_stamp(name: str, tools: Tools) -> Stamp:
    """The next version of the package, with the package id that its versions share."""
    versions = tools.registry.versions(Kind.MODEL, name)
    if not versions:
        return Stamp(1, package_id_for(name))
    newest = versions[-1]
    given = newest.tags.get("packageid")
    return Stamp(newest.version + 1, uuid.UUID(given) if given else package_id_for(name))


def _differing(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    return ", ".join(sorted(f for f in found.keys() | expected.keys() if found.get(f) != expected.get(f))) or "none"


def _refuse_failed_gates(metrics: Artefact, key: ModelKey, tools: Tools) -> None:
    failed = [part for part in all_gate_parts(metrics, key, tools) if not part.passed]
    if failed:
        lines = "; ".join(f"{part.name}: {part.found}, wanted {part.wanted}" for part in failed)
        raise EdgepackError(f"the gates of {key} do not hold, nothing is registered: {lines}")


def _tags(key: ModelKey, validated: Validated, lock: Lock, run_tags: Mapping[str, str]) -> dict[str, str]:
    raw, model = raw_data_of(validated.payload_data), validated.config_package.facts["model"]
    tags = {
        "model_name": model["name"],
        "model_version": str(model["version"]),
        "model_type": key.model_type,
        "lock_digest": lock.digest,
        "lock_key": lock.key,
        "raw_data": f"{raw['name']}:{raw['version']}",
        "raw_data_digest": raw["digest"],
        "payload_digest": validated.payload_data.digest,
        "edgepack_version": __version__,
        **{name: value for name, value in run_tags.items() if value},
    }
    numbers = validated.metrics.facts["metrics"]
    return tags | {name: repr(value) for name, value in numbers.items() if value is not None}


def _existing(name: str, tags: Mapping[str, str], tools: Tools) -> RegisteredVersion | None:
    """The version that holds this very content of this very model version, if there is one."""
    identity = ("content_digest", "model_name", "model_version")
    for version in reversed(tools.registry.versions(Kind.MODEL, name)):
        if all(version.tags.get(tag) == tags[tag] for tag in identity):
            return version
    return None


def _execute(key: ModelKey, built: Path, validated: Validated, lock: Lock, tools: Tools) -> None:
    """Run the stamped package over the payload's first records; its outputs must be those that were validated."""
    payload = open_payload(validated.payload_data, tools)
    results = Results(tools.store.fetch(validated.validation_results.parts["results"]))
    with (
        tools.work_folder() as work,
        PackageRunner(built, work, tools.sandbox, tools.environment(lock)) as runner,
    ):
        what = f"running {built.name} of {key}"
        enough = None if tools.entry(key).run_whole_payload else _ANSWERS_TO_COMPARE
        run = runner.run(what, payload.records, tools.preload(key, lock), until_answers=enough, count=payload.count)
        first = islice(read_lines(results.path), run.records)
        for ours, theirs in zip(read_lines(run.results), first, strict=True):
            if not _equal(ours, theirs):
                raise PackageError(
                    f"{built.name} answers record {theirs['record']} with {ours['outputs']}, "
                    f"but was validated with {theirs['outputs']}"
                )
    if run.answered == 0:
        raise PackageError(f"{built.name} answered none of {run.records} records")
    tools.log.info(f"{built.name} was run over {run.records} records: outputs equal the validated ones")


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_equal(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=_TOLERANCE)
    return bool(ours == theirs)


def _registered_parts(
    registered: RegisteredVersion, expected: dict[str, str], built: str | None, work: Path, tools: Tools
) -> list[Part]:
    """The rows of deployment_package.is_registered_as_built, from a fresh download.

    `built` is the digest of the package that was built in this run: its files have been compared already."""
    path = tools.registry.download(registered, work / "registered")
    if built is not None:
        digest = file_digest(path)
        return [Part("registered bytes", digest == built, digest, f"{built}, as built and executed")]
    stamp = read_stamp(path)
    wanted = Stamp(registered.version, uuid.UUID(registered.tags["packageid"]))
    differing = _differing(contents(path, stamp), expected)
    return [
        Part("files that differ from the validated ones", differing == "none", differing, "none"),
        Part("stamp", stamp == wanted, str(stamp), str(wanted)),
    ]
