"""What a tick does for one model type, in whichever sensor: its rules, its look at the registry, its requests."""

import time
from collections.abc import Sequence

import dagster as dg

from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.sensors.bounded_registry import BoundedRegistry
from edgepack_assets.defs.sensors.run_outcomes import TAGS, runs_of
from edgepack_assets.model_types import model_type_of
from edgepack_assets.new_models.cursor import State
from edgepack_assets.new_models.decide import decide
from edgepack_assets.new_models.run_requests import Request, Rules
from edgepack_assets.new_models.tick import Decision
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import RegisteredVersion


def rules_of(settings: Settings, model_type: str, batch: int | None = None) -> Rules:
    """The rules of a model type; `batch` in place of the configured one."""
    entry = settings.model_type(model_type)
    return Rules(
        model_type=model_type,
        model_name=entry.model_name,
        needs_approval=entry.needs_approval(settings.run.environment),
        start=settings.sensors.start,
        batch=settings.sensors.batch if batch is None else batch,
        attempts=settings.sensors.attempts,
        interval=settings.retry_interval,
        sweep_interval=settings.sensors.sweep_interval,
    )


def look(  # noqa: PLR0917 - what a look is made from
    instance: dg.DagsterInstance,
    settings: Settings,
    model_type: str,
    state: State | None,
    job: str,
    registry: BoundedRegistry,
    batch: int | None = None,
) -> Decision:
    """Look for new versions of a model type. Raises EdgepackError."""
    # An implementation that cannot be used fails here, before runs are requested that would fail.
    model_type_of(settings.model_type(model_type))
    return decide(
        state,
        rules_of(settings, model_type, batch),
        registry,
        lambda versions: runs_of(instance, job, model_type, versions),
        time.time(),
    )


def versions_with_partition(decision: Decision) -> list[RegisteredVersion]:
    """The versions that need a partition: those that wait for approval, and those that are packaged."""
    return [*decision.newly_waiting, *(request.registered for request in decision.requests)]


def key_of(model_type: str, version: RegisteredVersion) -> ModelKey:
    """The partition of a version."""
    return ModelKey(model_type, version.number)


def run_request(request: Request, settings: Settings, rules: Rules) -> dg.RunRequest:
    """A request, for Dagster."""
    return dg.RunRequest(
        run_key=request.run_key,
        partition_key=str(key_of(rules.model_type, request.registered)),
        tags=_run_tags(request, settings, rules),
    )


def observations(decision: Decision, rules: Rules) -> list[dg.AssetObservation]:
    """What the UI shows of a decision, besides its runs: which versions wait for approval, and which have it."""
    approved = [request for request in decision.requests if request.approval is not None and request.attempt == 1]
    return [*_observe_waiting(decision.newly_waiting, rules), *_observe_approved(approved, rules)]


def _run_tags(request: Request, settings: Settings, rules: Rules) -> dict[str, str]:
    tags = {
        "model_type": rules.model_type,
        "model_name": rules.model_name,
        "model_version": str(request.registered.version),
        "registered": request.registered.created.isoformat(),
        "attempt": str(request.attempt),
        "environment": settings.run.environment,
        "build_reference": settings.run.build_reference,
        "approved_by": request.approval.by if request.approval else "",
        "approved_at": request.approval.at if request.approval else "",
    }
    return {TAGS + name: value for name, value in tags.items() if value}


def _observe_waiting(versions: Sequence[RegisteredVersion], rules: Rules) -> list[dg.AssetObservation]:
    """Observations that show in the UI, on the asset of the model, that a version waits for a person's approval."""
    return [
        dg.AssetObservation(
            "registered_model",
            description=f"{version} waits for approval",
            partition=str(key_of(rules.model_type, version)),
            metadata={
                "approval": "waiting",
                "model": str(version),
                "registered": version.created.isoformat(),
                "location": version.location,
                "to_approve": f"edgepack model approve {version}",
            },
        )
        for version in versions
    ]


def _observe_approved(requests: Sequence[Request], rules: Rules) -> list[dg.AssetObservation]:
    return [
        dg.AssetObservation(
            "registered_model",
            description=f"{request.registered} is approved by {request.approval}",
            partition=str(key_of(rules.model_type, request.registered)),
            metadata={"approval": f"approved by {request.approval}", "model": str(request.registered)},
        )
        for request in requests
    ]
