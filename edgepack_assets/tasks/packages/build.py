"""Building a stamped deployment package and reading what it holds, when it is registered or ahead of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.config.registry_settings import LocalRegistrySettings
from edgepack_assets.environments.lock import Lock
from edgepack_assets.errors import EdgepackError, NotFoundError
from edgepack_assets.filesystem.hashed_ahead import start_hashing
from edgepack_assets.packaging.stamp import Origin, Stamp, content_digest, contents
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.tasks.ahead.built_package import BuiltPackage
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.packages.registration import next_stamp
from edgepack_assets.tasks.packages.tags import CONTENT_DIGEST, MODEL_NAME, MODEL_VERSION
from edgepack_assets.tasks.payload_data import raw_data_of

_SHOWN = 12
"""Digits of a digest in a package's description; the tags have all of them."""


@dataclass(frozen=True)
class PackageInputs:
    """All that a deployment package is built from, its stamp aside. `expected` are the contents that it must have."""

    config_package: Artefact
    payload_data: Artefact
    registered_name: str
    lock: Lock
    expected: Mapping[str, str]

    def decide(self, stamp: Stamp) -> tuple[object, ...]:
        """What decides about the bytes of the package with this stamp."""
        digest = self.config_package.parts["package"].digest
        return digest, self.lock.digest, self.registered_name, content_digest(self.expected), stamp


def build_package(inputs: PackageInputs, stamp: Stamp, folder: Path, context: TaskContext) -> BuiltPackage:
    """Build the package in a folder, and read back what it holds. It is hashed meanwhile for a local registry. Raises
    EdgepackError."""
    package = context.store.fetch(inputs.config_package.parts["package"])
    path = context.packaging.build_deployment_package(
        package, inputs.lock, context.store, inputs.registered_name, stamp, folder, inputs.expected
    )
    if isinstance(context.settings.registry, LocalRegistrySettings):
        start_hashing(path)
    return BuiltPackage(path, contents(path, stamp))


def build_ahead(key: ModelKey, config_package: Artefact, payload_data: Artefact, context: TaskContext) -> None:
    """Begin to build the package that this run will most likely register, if it goes on to that.

    Only for a local registry: which stamp comes next costs another one as many calls as it saves time. Whatever is
    wrong is no reason to fail here: deployment_package meets it again."""
    expected, registry = context.kept_contents(config_package), context.settings.registry
    if expected is None or not isinstance(registry, LocalRegistrySettings):
        return
    if not context.built_ahead.may_start(registry.path):
        return
    try:
        name = context.entry(key).registered_package_name
        model = config_package.facts["model"]
        inputs = PackageInputs(config_package, payload_data, name, context.lock_of(config_package), expected)
        identity = {
            CONTENT_DIGEST: content_digest(expected),
            MODEL_NAME: model["name"],
            MODEL_VERSION: str(model["version"]),
        }
        unmarked = next_stamp(context.registry, name, identity)
        if unmarked is None:
            return
        stamp = replace(unmarked, origin=origin_of(inputs, context))
        context.built_ahead.start(inputs.decide(stamp), lambda folder: build_package(inputs, stamp, folder, context))
    except EdgepackError as error:
        context.log.debug(f"the package of {key} is not built ahead: {error}")


def origin_of(inputs: PackageInputs, context: TaskContext) -> Origin | None:
    """What the package says that it was made from. None if its model version has left the registry meanwhile."""
    model, raw, lock = inputs.config_package.facts["model"], raw_data_of(inputs.payload_data), inputs.lock
    try:
        registered = context.registry.get(Kind.MODEL, model["name"], model["version"])
    except NotFoundError as error:
        context.log.warning(f"the package does not say what it was made from, nor when that was registered: {error}")
        return None
    return Origin.of(
        f"model {model['name']}:{model['version']}, sha256 {model['digest'][:_SHOWN]}, with lock "
        f"{lock.digest[:_SHOWN]} for Python {lock.python}; validated on {raw['name']}:{raw['version']}",
        registered.created,
    )
