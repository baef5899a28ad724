"""The sensors of the code location. What the sensors of new models decide is in new_models/."""

from edgepack_assets.defs.sensors.new_models import registry_sensor, registry_sensors

__all__ = ["registry_sensor", "registry_sensors"]
