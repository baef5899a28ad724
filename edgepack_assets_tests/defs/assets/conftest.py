"""The tiny component's plant, for assets that need a package."""

from edgepack_assets_tests.tasks.conftest import built, plant

__all__ = ["built", "plant"]
