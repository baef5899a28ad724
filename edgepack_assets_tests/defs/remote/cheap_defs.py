"""The cheap assets as a code location."""

from edgepack_assets.config.loader import find_config
from edgepack_assets_tests.defs.remote.cheap_assets import load

defs = load(find_config())
