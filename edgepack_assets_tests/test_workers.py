"""Tests that share a dear fixture run on one worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GROUPED = """
import pytest

@pytest.mark.xdist_group("dear")
def test_of_the_group():
    pass
"""


def test_pytest_xdist_sees_the_groups(tmp_path: Path) -> None:
    """A release of pytest or of pytest-xdist can part them without a word. Each worker would make every fixture."""
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    command = ["-m", "pytest", "-v", "-n", "1", "--dist", "loadgroup", "-p", "no:cacheprovider", "test_grouped.py"]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "test_of_the_group@dear" in done.stdout
