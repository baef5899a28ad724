"""What differs between kinds of models: plug-ins behind the interface in interface.py, ours and other people's."""

from __future__ import annotations

from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.model_types.interface import ModelType
from edgepack_assets.model_types.plugin import Plugin

__all__ = ["ModelType", "Plugin", "model_type", "model_type_of"]


def model_type(implementation: str) -> Plugin:
    """The installed implementation of that name. Raises PluginError if it cannot be used, saying why."""
    return Plugin(implementation)


def model_type_of(entry: ModelTypeSettings) -> Plugin:
    """The implementation that an entry of edgepack.yaml names. Raises PluginError if it cannot be used there."""
    plugin = Plugin(entry.implementation)
    plugin.check_settings(entry.settings)
    return plugin
