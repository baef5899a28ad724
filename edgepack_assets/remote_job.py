"""The command of a job on another machine, `python -m edgepack_assets.remote_job`: see defs/remote/inside.py."""

import sys

from edgepack_assets.defs.remote.inside import main

if __name__ == "__main__":
    from edgepack_assets.definitions import build_defs

    sys.exit(main(sys.argv[1:], build_defs))
