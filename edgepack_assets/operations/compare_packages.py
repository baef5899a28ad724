"""`edgepack package compare`: which two are meant, and what differs between them."""

from __future__ import annotations

from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import ComponentError, EdgepackError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind, RegisteredVersion, resolve
from edgepack_assets.sandbox.sandbox import TaskFailedError
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.packages.history import by_model_version, model_version_of
from edgepack_assets.tasks.reports.comparison import Comparison
from edgepack_assets.tasks.reports.facts import Candidate, registered_candidate, validated_candidate
from edgepack_assets.tasks.reports.side_by_side import compare_candidates


def package_key(model_type: str, package: RegisteredVersion, settings: Settings) -> ModelKey:
    """The model version that a package was made from. Raises EdgepackError if its tags do not say."""
    model_name = settings.model_type(model_type).model_name
    version = model_version_of(package, model_name)
    if version is None:
        raise EdgepackError(f"{package} has no tags that say which version of {model_name} it was made from")
    return ModelKey(model_type, version)


def candidate_of_model(model_type: str, version: int | str, context: TaskContext) -> Candidate:
    """The newest package of a model version; without one, what was validated of it last. `version` may be `latest`.

    Raises NotFoundError, and EdgepackError if there is neither."""
    entry = context.settings.model_type(model_type)
    model = resolve(context.registry, Kind.MODEL, entry.model_name, version)
    key = ModelKey(model_type, model.number)
    packages = context.registry.versions(Kind.MODEL, entry.registered_package_name)
    package = by_model_version(packages, entry.model_name).get(key.version)
    if package is not None:
        return registered_candidate(key, package, context)
    candidate = validated_candidate(key, context)
    if candidate is None:
        raise EdgepackError(f"{key} has no package, and was not validated as it is: edgepack package {key}")
    return candidate


def compare_two(before: Candidate, now: Candidate, context: TaskContext) -> Comparison:
    """Compare two packages of one kind. Raises EdgepackError if they are of different ones, or the same."""
    kinds = [context.entry(each.key).implementation for each in (before, now)]
    if kinds[0] != kinds[1]:
        raise EdgepackError(
            f"{before} is of the type {before.key.model_type} ({kinds[0]}), {now} of {now.key.model_type} "
            f"({kinds[1]}): only packages of one kind can be compared"
        )
    if before.package is not None and before.package == now.package:
        raise EdgepackError(f"{before} is both of them: name two different packages")
    try:
        return compare_candidates(before, now, context)
    except TaskFailedError as error:  # without its traceback
        raise ComponentError(
            f"{before} and {now} cannot be compared on the same payload: {str(error).splitlines()[0]}"
        ) from error
