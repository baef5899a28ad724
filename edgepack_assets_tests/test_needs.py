"""A test that needs a program which this machine lacks is skipped and says what to install; in CI it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgepack_assets_tests.needs import NEEDS, NEEDS_ALL, skipped_lines

PROJECT = Path(__file__).parents[1]
TEST = "edgepack_assets_tests/sandbox/test_isolation.py::test_required_runs_where_something_works[bubblewrap]"


def run_without_programs(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != NEEDS_ALL}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={folder / 'base'}", *options, TEST],
        cwd=PROJECT, env={**environment, "PATH": str(folder), **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("options", [(), ("-n", "1", "--dist", "loadgroup")])
@pytest.mark.long
def test_the_end_says_what_to_install_and_pytest_has_the_last_word(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run_without_programs(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, line, summary = done.stdout.splitlines()
    assert line == "skipped 1 test: bubblewrap is not installed (Debian: apt-get install bubblewrap)"
    assert "1 skipped in" in summary


def test_in_ci_a_missing_program_is_an_error(tmp_path: Path) -> None:
    done = run_without_programs(tmp_path, **{NEEDS_ALL: "1"})
    assert done.returncode == 1
    assert "bubblewrap is not installed" in done.stdout
    assert "1 error in" in done.stdout.splitlines()[-1]


def test_ci_sets_it_and_installs_every_program() -> None:
    script = (PROJECT / ".ci" / "run").read_text()
    assert f"export {NEEDS_ALL}=1" in script
    for need in NEEDS.values():
        for package in need.packages.split():
            assert package in script


def test_a_line_counts_the_tests_of_each_program() -> None:
    assert skipped_lines(["Skipped: Chromium is not installed"] * 2 + ["Skipped: for a reason of its own"]) == [
        "skipped 2 tests: Chromium is not installed (Debian: apt-get install chromium fonts-dejavu-core)"
    ]
