"""The command of a job on another machine, `python -m edgepack_assets.remote_job`: see defs/remote/inside.py."""

import sys
from pathlib import Path

import dagster as dg

from edgepack_assets.defs.remote.inside import main


def load(config_file: Path) -> dg.Definitions:
    """The definitions of the job's configuration file, which is not there while this module is imported."""
    from edgepack_assets.definitions import build_defs

    return build_defs(config_file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], load))
