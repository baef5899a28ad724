"""The run launcher under the name that dagster.yaml files of users have; it is defs/run_launcher.py."""

from edgepack_assets.defs.run_launcher import WatchedRunLauncher

__all__ = ["WatchedRunLauncher"]
