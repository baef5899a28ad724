"""The sensors: Dagster's side of what happens by itself. What the registry sensors decide is in new_models/."""

from edgepack_assets.defs.sensors.new_models import registry_sensor, registry_sensors

__all__ = ["registry_sensor", "registry_sensors"]
