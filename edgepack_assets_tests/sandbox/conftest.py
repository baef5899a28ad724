"""What tests of running code share; see environments/plain.py."""

from edgepack_assets_tests.environments.plain import environment, index, no_network_settings, plain_settings, store

__all__ = ["environment", "index", "no_network_settings", "plain_settings", "store"]
