"""The wheel as a user installs it: everything of the package, nothing of the tests, and it works without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from edgepack_assets import __version__

pytestmark = pytest.mark.environments

PROJECT = Path(__file__).parents[1]
PACKAGE = "edgepack_assets"
MINIMAL = """\
model_types:
  press:
    implementation: state_identifier
    model_name: press_model
    package_name: Press
    raw_data: {name: press_raw}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves its files beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    skip = shutil.ignore_patterns("__pycache__")
    for name in (PACKAGE, f"{PACKAGE}_tests", "benchmarks"):
        shutil.copytree(PROJECT / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--wheel-dir", str(folder), str(source)],
        check=True,
    )  # fmt: skip
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    ours = {
        path.relative_to(PROJECT).as_posix()
        for path in (PROJECT / PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == ours
    assert {f"{PACKAGE}/default_dagster.yaml", f"{PACKAGE}/py.typed"} <= packed
    assert any("/component/" in name for name in packed)


def test_the_version_is_that_of_the_code(wheel: Path) -> None:
    assert wheel.name == f"edgepack_assets-{__version__}-py3-none-any.whl"


def test_an_installed_wheel_runs_the_command_and_loads_the_definitions(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, with the dependencies of this one and without its edgepack_assets."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index",
         str(wheel)],
        check=True,
    )  # fmt: skip
    # A .pth file in a folder that another .pth file names is not read: the editable install stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tmp_path / "edgepack.yaml").write_text(MINIMAL)
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("EDGEPACK", "DAGSTER", "PYTHON"))
    }

    def run(*command: object) -> str:
        return subprocess.run(
            [str(each) for each in command], cwd=tmp_path, env=variables, check=True, capture_output=True, text=True
        ).stdout

    assert "Usage: edgepack" in run(environment / "bin" / "edgepack", "--help")
    code = "import edgepack_assets.definitions as d; print(d.__file__, len(d.defs.assets))"
    where, count = run(python, "-c", code).split()
    assert Path(where).is_relative_to(environment)
    assert int(count) == 8
    assert "DAGSTER_HOME" in run(environment / "bin" / "edgepack", "env")  # copies default_dagster.yaml
    assert (tmp_path / ".edgepack" / "dagster" / "dagster.yaml").is_file()
