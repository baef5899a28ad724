"""Importing in the background, in a process that ends before the imports do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SLOW = "import time, pathlib\ntime.sleep(1)\npathlib.Path(__file__).with_name('done').touch()\n"
ENDS = "from edgepack_assets.tasks.ahead import background_imports\nbackground_imports.start(['slow_library'])\n"


def test_a_process_that_ends_early_ends_after_its_imports(tmp_path: Path) -> None:
    (tmp_path / "slow_library.py").write_text(SLOW)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.append({str(tmp_path)!r})\n{ENDS}"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "done").is_file()
