"""The sensors that find new versions in the registry: one for each model type, or one for many (many_models.py).

What is packaged is decided in new_models/decide.py. This module runs the tick and writes its result to Dagster.
"""

from pathlib import Path
from typing import Any

import dagster as dg

from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.instance import add_keys
from edgepack_assets.defs.jobs import package_model
from edgepack_assets.defs.sensors.bounded_registry import BoundedRegistry, OutageTimer
from edgepack_assets.defs.sensors.kept_settings import settings_of
from edgepack_assets.defs.sensors.many_models import shared_sensor
from edgepack_assets.defs.sensors.one_type import (
    key_of,
    look,
    observations,
    rules_of,
    run_request,
    versions_with_partition,
)
from edgepack_assets.defs.sensors.state_store import StateStore, location_of, sensor_name, state_of_shared_sensor
from edgepack_assets.errors import ConfigError, EdgepackError, PluginError
from edgepack_assets.new_models.cursor import State
from edgepack_assets.new_models.many_types import newest


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
    if has_shared_sensor(settings):
        return [shared_sensor(settings)]
    return [registry_sensor(settings, model_type) for model_type in settings.model_types]


def has_shared_sensor(settings: Settings) -> bool:
    """Whether one sensor looks at all model types."""
    return len(settings.model_types) > settings.sensors.own_up_to


def registry_sensor(settings: Settings, model_type: str, job: Any = package_model) -> dg.SensorDefinition:
    """The sensor `<model_type>_models`, on by default, which requests runs of `job`."""
    entry = settings.model_type(model_type)

    @dg.sensor(
        name=sensor_name(model_type),
        job=job,
        minimum_interval_seconds=settings.sensor_interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Finds versions of {entry.model_name} in the registry that are not packaged yet, adds their "
        "partitions and requests one run for each. Its cursor is its record of what it has handled.",
        tags={"edgepack": "registry"},
    )
    def registry_models(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return _tick(context, settings.file, model_type, job.name)

    return registry_models


def _tick(
    context: dg.SensorEvaluationContext, config_file: Path, model_type: str, job: str
) -> dg.SensorResult | dg.SkipReason:
    settings = settings_of(config_file)  # in each tick, so that changes take effect without a restart
    if settings.model_type(model_type).sensor is False:
        return dg.SkipReason(f"switched off by model_types.{model_type}.sensor")
    state = _state(context, model_type)
    outage = OutageTimer(context.instance, settings, model_type)
    try:
        decision = look(context.instance, settings, model_type, state, job, BoundedRegistry(settings, model_type))
    except PluginError:
        raise
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
    add_keys(context.instance, [key_of(model_type, version) for version in versions_with_partition(decision)])
    rules = rules_of(settings, model_type)
    return dg.SensorResult(
        run_requests=[run_request(request, settings, rules) for request in decision.requests],
        skip_reason=None if decision.requests else "; ".join(decision.messages),
        cursor=decision.state.to_cursor(),
        asset_events=observations(decision, rules),
    )


def _state(context: dg.SensorEvaluationContext, model_type: str) -> State | None:
    """The state in the cursor, or what the sensor for many model types has handled since, where a project shrank."""
    own = State.from_cursor(context.cursor) if context.cursor else None
    location = location_of(context)
    store = StateStore(context.instance, location)
    row = store.read([model_type]).get(model_type)
    if row is None and own is not None:
        return own
    other = newest(row, state_of_shared_sensor(context.instance, location, model_type))
    if row is not None and own is not None and newest(other, own) is own:
        store.write({model_type: ""})  # taken over; a cursor that is cleared later starts anew
    return newest(other, own)
