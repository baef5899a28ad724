"""The skeleton that `edgepack model-type new` writes packages as it is, by the commands of its own README."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from textwrap import dedent

from click.testing import CliRunner

from edgepack_assets.cli.main import main
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.e2e.conftest import PROJECT
from edgepack_assets_tests.e2e.users import EDGEPACK, commands, environment_with


def test_the_skeleton_packages_green_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    written = CliRunner().invoke(main, ["model-type", "new", "pump_level", str(source)])
    assert written.exit_code == 0, written.output
    entry = (source / "README.md").read_text().split("# edgepack.yaml\n")[1].split("\n\n")[0]
    (tmp_path / "edgepack.yaml").write_text(f"registry: {{path: registry}}\n{dedent(entry)}\n")
    shutil.copyfile(PROJECT / "dagster.yaml", tmp_path / "dagster.yaml")
    python = environment_with(source, tmp_path / "venv")
    run, _ = commands(python, tmp_path)
    run(str(source / "sample.py"))
    for command in re.findall(r"^ +edgepack (.*)", (source / "README.md").read_text(), re.MULTILINE):
        *words, last = command.split()
        run(*EDGEPACK, *words, str(source / last) if (source / last).exists() else last)
    [package] = LocalRegistry(tmp_path / "registry").versions(Kind.MODEL, "PumpLevel-edge")
    assert float(package.tags["accuracy"]) == 1.0
