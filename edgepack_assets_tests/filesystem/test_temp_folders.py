"""Temporary folders: gone when they are done with, and when their process was killed at the next chance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgepack_assets.errors import EdgepackError
from edgepack_assets.filesystem.temp_folders import Scratch, scratch_folder


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_this_user_s_and_gone_afterwards(top: Path) -> None:
    with scratch_folder() as folder:
        assert list(folder.iterdir()) == []
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "deep" / "er").mkdir(parents=True)
    assert list(top.iterdir()) == []


def test_folders_of_a_killed_process_are_removed_and_no_others(top: Path) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c",
         "import sys\n"
         "from edgepack_assets.filesystem.temp_folders import Scratch\n"
         "folder = Scratch().path\n"
         "(folder / 'a' / 'b').mkdir(parents=True)\n"
         "(folder / 'a' / 'b' / 'secret').touch()\n"
         "(folder / 'a').chmod(0)\n"
         "print(folder, flush=True)\n"
         "sys.stdin.read()\n"],
        env={"TMPDIR": str(top)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert host.stdout is not None
    abandoned = Path(host.stdout.readline().strip())
    lookalike, file = top / "edgepack-scratch-of-mine", top / "edgepack-scratch-notes"
    lookalike.mkdir()
    file.touch()
    mine = Scratch()
    assert abandoned.is_dir()  # its process runs
    host.kill()
    host.communicate()
    with scratch_folder():
        assert not abandoned.exists()
        assert mine.path.is_dir()
    mine.remove()
    assert sorted(top.iterdir()) == [file, lookalike]


def test_one_that_cannot_be_made_is_told(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(top / "gone"))
    with pytest.raises(EdgepackError, match=r"gone: cannot be written: No such file"), scratch_folder():
        pass
