"""Finding an interpreter: the configured one, else one of this machine, and words that help if there is none."""

from __future__ import annotations

import pwd
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from edgepack_assets.config.schema import EDGE_PYTHONS
from edgepack_assets.environments import interpreters, uv
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.errors import EnvironmentBuildError

OTHER = "3.12" if sys.version_info[:2] == (3, 11) else "3.11"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "_found", {})


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any Python but those that a test puts on its PATH, and a uv that finds none."""
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    script(tmp_path / "uv", "exit 2")
    monkeypatch.setattr(interpreters, "uv_command", lambda *_: [str(tmp_path / "uv")])
    return tmp_path


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def python_that_says(path: Path, version: str, implementation: str = "cpython") -> Path:
    return script(path, f"echo {implementation} {version}\necho {path}")


def test_one_of_this_machine_is_found_and_is_no_shim_or_link() -> None:
    version, interpreter = find_python(None)
    assert version in EDGE_PYTHONS
    assert interpreter == interpreter.resolve()
    told = subprocess.run(
        [interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2], sys.prefix == sys.base_prefix)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.split() == [version, "True"]


def test_it_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_python(None)
    monkeypatch.setattr(interpreters, "run_command", None)
    assert find_python(None) == found


def test_one_that_was_removed_is_looked_up_again(bare_machine: Path) -> None:
    first = python_that_says(bare_machine / "bin" / "python3.11", "3.11")
    assert find_python("3.11") == ("3.11", first)
    first.unlink()
    with pytest.raises(EnvironmentBuildError, match=r"no Python 3.11 on this machine"):
        find_python("3.11")
    second = python_that_says(bare_machine / "pyenv" / "versions" / "3.11.2" / "bin" / "python", "3.11")
    assert find_python("3.11") == ("3.11", second)


def test_a_user_without_a_home_is_no_obstacle(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container any number may be the user, whom nobody has written down."""

    def unknown(number: int) -> NoReturn:
        raise KeyError(number)

    for name in ("PYENV_ROOT", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(EnvironmentBuildError, match=r"no Python 3.11 on this machine"):
        find_python("3.11")
    first = python_that_says(bare_machine / "bin" / "python3.11", "3.11")
    assert find_python("3.11") == ("3.11", first)


def test_a_shim_that_does_not_work_is_passed_over_and_the_newest_version_taken(bare_machine: Path) -> None:
    script(bare_machine / "bin" / "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    versions = bare_machine / "pyenv" / "versions"
    for patch in (2, 10, 9):
        python_that_says(versions / f"3.12.{patch}" / "bin" / "python", "3.12")
    assert find_python("3.12")[1] == versions / "3.12.10" / "bin" / "python"


@pytest.mark.parametrize(("version", "implementation"), [("3.10", "cpython"), ("3.11", "pypy")])
def test_another_python_under_the_name_is_not_taken(bare_machine: Path, version: str, implementation: str) -> None:
    python_that_says(bare_machine / "bin" / "python3.11", version, implementation)
    with pytest.raises(EnvironmentBuildError, match=r"no Python 3.11 on this machine"):
        find_python("3.11")


def test_uv_is_asked_last(bare_machine: Path) -> None:
    managed = python_that_says(bare_machine / "managed" / "python3.12", "3.12")
    script(bare_machine / "uv", f"echo {managed}")
    assert find_python("3.12") == ("3.12", managed)


def test_without_any_the_words_say_what_to_do(bare_machine: Path) -> None:
    with pytest.raises(EnvironmentBuildError, match=r"no Python 3.11 or 3.12 .*`uv python install 3.11`.*runtime.pyth"):
        find_python(None)


def test_a_uv_that_hangs_is_stopped(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(bare_machine / "uv", "/bin/sleep 600")
    monkeypatch.setattr(interpreters, "_TIME_LIMIT", 0.2)
    with pytest.raises(
        EnvironmentBuildError, match=r"looking for Python 3.12 with `uv python find` took longer than 0"
    ):
        find_python("3.12")


def test_a_missing_uv_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise FileNotFoundError("no uv in /venv/bin")

    uv._uv.cache_clear()
    monkeypatch.setattr("uv.find_uv_bin", missing)
    with pytest.raises(EnvironmentBuildError, match=r"uv, which .* is not there \(no uv in /venv/bin\): install"):
        uv.uv_command("--version")
    uv._uv.cache_clear()


@pytest.mark.parametrize("version", ["3.10", "3.13", "2.7", "3.11.4", "3", ""])
def test_a_version_that_the_edge_does_not_run_is_refused(version: str) -> None:
    with pytest.raises(EnvironmentBuildError, match=rf"Python {version} does not run on the edge, which has 3.11 and"):
        find_python(version)


def test_the_configured_one_is_taken_and_its_shim_followed(bare_machine: Path) -> None:
    real = python_that_says(bare_machine / "real", "3.12")
    link = bare_machine / "link"
    link.symlink_to(real)
    assert find_python("3.12", {"3.12": link}) == ("3.12", real)
    assert find_python(None, {"3.12": link}) == ("3.12", real)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("echo cpython 3.10; echo /x", "but it is 3.10"),
        ("echo pypy 3.12; echo /x", "but it is pypy 3.12"),
        ("exit 1", "but it is no Python interpreter"),
        ("/bin/sleep 600", "but it is no interpreter that works .* took longer than"),
    ],
)
def test_a_configured_one_that_is_another_is_refused(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str
) -> None:
    monkeypatch.setattr(interpreters, "_TIME_LIMIT", 0.5)
    path = script(bare_machine / "configured", body)
    with pytest.raises(EnvironmentBuildError, match=f"runtime.pythons names {path} for Python 3.12, {told}"):
        find_python("3.12", {"3.12": path})


def test_a_configured_one_that_cannot_be_started_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBuildError, match=r"but it is no interpreter that works .*No such file"):
        find_python("3.12", {"3.12": tmp_path / "gone"})
