"""All benchmarks, one after the other; `--json FILE` keeps what each told. Options of one are given to it alone:
`python -m benchmarks.package_run --help`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ALL = ("package_run", "sensor_backlog", "command_start", "component_cost", "image_rate", "scoring", "sensor_ticks",
       "large_model", "gate_errors", "version_disk", "registry_growth")  # fmt: skip


def main() -> int:
    """Run them and merge what they told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"))
    options = parser.parse_args()
    told = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ALL:
            print(f"\n{name}\n{'=' * len(name)}", flush=True)
            answer = Path(folder) / f"{name}.json"
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", str(answer)], check=True)
            told[name] = json.loads(answer.read_text())
    options.json.write_text(json.dumps(told, indent=1) + "\n")
    print(f"\nall of it: {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
