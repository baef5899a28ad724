"""Model registries behind one interface (base.py): a local folder (local.py), Azure ML (azure_ml/)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack_assets.config.registry_settings import LocalRegistrySettings

if TYPE_CHECKING:
    from edgepack_assets.config.schema import Settings
    from edgepack_assets.registry.base import Registry


def open_registry(settings: Settings) -> Registry:
    """The registry that the configuration names. Nothing is asked of a remote one yet."""
    if isinstance(settings.registry, LocalRegistrySettings):
        from edgepack_assets.registry.local import LocalRegistry

        return LocalRegistry(settings.registry.path)
    from edgepack_assets.registry.azure_ml import AzureMLRegistry

    return AzureMLRegistry(settings.registry)
