"""A control group bounds what is in it together, where one can be made; else nothing is promised."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack_assets.sandbox import cgroup

MEMORY = 128 << 20
TAKE = "import os, time; os.fork(); os.fork(); b = bytearray(b'x') * (60 << 20); time.sleep(600)"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    cgroup._parent.cache_clear()
    yield
    cgroup._parent.cache_clear()


def test_the_kernel_ends_all_that_is_in_a_group_that_takes_too_much() -> None:
    group = cgroup.new_group(MEMORY)
    if group is None:
        pytest.skip("no control group can be made here")
    assert not group.is_exceeded()
    done = subprocess.run(group.command([sys.executable, "-c", TAKE]), check=False)
    assert done.returncode == -9
    assert group.is_exceeded()
    group.remove()
    assert not group._folder.exists()


def test_a_folder_that_bounds_nothing_is_no_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One may be writable, and yet no process may be moved there: whoever says that the kernel enforces must know."""
    monkeypatch.setattr(cgroup, "_TOP", tmp_path)
    own = next((line[4:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:4] == "0::/"), None)
    if own is None:
        pytest.skip("this kernel has no cgroup v2")
    parent = (tmp_path / own).parent if own else tmp_path
    parent.mkdir(parents=True, exist_ok=True)
    (parent / "cgroup.subtree_control").write_text("cpu memory\n")
    assert cgroup.new_group(MEMORY) is None


@pytest.mark.parametrize("name", ["memory.max", "memory.high", "cpu.max"])
def test_nothing_leaves_the_limits_of_dagster_s_own_group(tmp_path: Path, name: str) -> None:
    assert not cgroup._is_limited(tmp_path)
    (tmp_path / name).write_text("max 100000\n" if name == "cpu.max" else "max\n")
    assert not cgroup._is_limited(tmp_path)
    (tmp_path / name).write_text("50000 100000\n")
    assert cgroup._is_limited(tmp_path)


def test_groups_that_killed_processes_left_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name in (f"edgepack-{gone.pid}-0123abcd", "edgepack-1-0123abcd", "edgepack-else", "other"):
        (tmp_path / name).mkdir()
    cgroup._remove_left(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edgepack-1-0123abcd", "edgepack-else", "other"]
