"""Model registries behind one interface (base.py): a local folder (local.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgepack_assets.registry.base import Registry
    from edgepack_assets.settings import Settings


def open_registry(settings: Settings) -> Registry:
    """The registry that the configuration names."""
    from edgepack_assets.registry.local import LocalRegistry

    return LocalRegistry(settings.registry.path)
