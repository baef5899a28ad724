"""One sensor for each model type: finds new versions in the registry and requests their packaging.

What is packaged is decided in new_models/decide.py. This module runs the tick and writes its result to Dagster.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.instance import add_keys
from edgepack_assets.defs.jobs import package_model
from edgepack_assets.defs.sensors.bounded_registry import BoundedRegistry, OutageTimer
from edgepack_assets.defs.sensors.run_outcomes import TAGS, runs_of
from edgepack_assets.errors import ConfigError, EdgepackError
from edgepack_assets.model_types import Plugin
from edgepack_assets.new_models.cursor import State
from edgepack_assets.new_models.decide import decide
from edgepack_assets.new_models.run_requests import Request, Rules
from edgepack_assets.new_models.tick import Decision
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import RegisteredVersion


def registry_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors of all model types. Raises ConfigError if two would have one name."""
    by_name: dict[str, str] = {}
    for model_type in settings.model_types:
        other = by_name.setdefault(sensor_name(model_type), model_type)
        if other != model_type:
            raise ConfigError(
                f"{settings.file}: model types {other!r} and {model_type!r} would share the sensor "
                f"{sensor_name(model_type)}: let them differ by more than - and _"
            )
    return [registry_sensor(settings, model_type) for model_type in settings.model_types]


def registry_sensor(settings: Settings, model_type: str, job: Any = package_model) -> dg.SensorDefinition:
    """The sensor `<model_type>_models`, on by default, which requests runs of `job`."""
    entry = settings.model_type(model_type)

    @dg.sensor(
        name=sensor_name(model_type),
        job=job,
        minimum_interval_seconds=settings.sensors.interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Finds versions of {entry.model_name} in the registry that are not packaged yet, adds their "
        "partitions and requests one run for each. Its cursor is its record of what it has handled.",
        tags={"edgepack": "registry"},
    )
    def registry_models(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return _tick(context, settings.file, model_type, job.name)

    return registry_models


def sensor_name(model_type: str) -> str:
    """The name of a model type's sensor."""
    return f"{model_type.replace('-', '_')}_models"


def _tick(
    context: dg.SensorEvaluationContext, config_file: Path, model_type: str, job: str
) -> dg.SensorResult | dg.SkipReason:
    settings = load_settings(config_file)  # read in each tick, so that changes take effect without a restart
    entry = settings.model_type(model_type)
    Plugin(entry.implementation)  # one that cannot be used fails the tick, before runs are requested that would fail
    state = State.from_cursor(context.cursor) if context.cursor else None
    rules = Rules(
        model_type=model_type,
        model_name=entry.model_name,
        needs_approval=entry.needs_approval(settings.run.environment),
        start=settings.sensors.start,
        batch=settings.sensors.batch,
        attempts=settings.sensors.attempts,
        interval=settings.sensors.interval,
        sweep_interval=settings.sensors.sweep_interval,
    )
    outage = OutageTimer(settings, model_type)
    try:
        decision = decide(
            state,
            rules,
            BoundedRegistry(settings, model_type),
            lambda versions: runs_of(context.instance, job, model_type, versions),
            time.time(),
        )
    except EdgepackError as error:
        if (failure := outage.failure_after(error)) is not None:
            raise failure from error
        return dg.SkipReason(f"the registry does not answer, it is asked again in the next tick: {error}")
    if decision.fault is None:
        outage.stop()
    elif (failure := outage.failure_after(decision.fault)) is not None and not decision.requests:
        raise failure from decision.fault
    if decision.requests:  # else the tick shows the messages as the reason why it requests nothing
        for message in decision.messages:
            context.log.info(message)
    # Dagster would add the keys itself, and fail the tick if another process adds one of them at the same time.
    add_keys(context.instance, [_key(rules, version) for version in _versions_with_partition(decision)])
    return _sensor_result(decision, settings, rules)


def _versions_with_partition(decision: Decision) -> list[RegisteredVersion]:
    """The versions that need a partition: those that wait for approval, and those that are packaged."""
    return [*decision.newly_waiting, *(request.registered for request in decision.requests)]


def _sensor_result(decision: Decision, settings: Settings, rules: Rules) -> dg.SensorResult:
    requests = [
        dg.RunRequest(
            run_key=request.run_key,
            partition_key=str(_key(rules, request.registered)),
            tags=_run_tags(request, settings, rules),
        )
        for request in decision.requests
    ]
    approved = [request for request in decision.requests if request.approval is not None and request.attempt == 1]
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else "; ".join(decision.messages),
        cursor=decision.state.to_cursor(),
        asset_events=[*_observe_waiting(decision.newly_waiting, rules), *_observe_approved(approved, rules)],
    )


def _key(rules: Rules, version: RegisteredVersion) -> ModelKey:
    return ModelKey(rules.model_type, version.number)


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
            partition=str(_key(rules, version)),
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
            partition=str(_key(rules, request.registered)),
            metadata={"approval": f"approved by {request.approval}", "model": str(request.registered)},
        )
        for request in requests
    ]
