"""The skeleton that `edgepack model-type new` writes packages as it is, by the commands of its own README. Broken
afterwards, it is named with what is wrong in it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from textwrap import dedent

from click.testing import CliRunner

from edgepack_assets.cli.main import main
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.e2e.conftest import PROJECT
from edgepack_assets_tests.e2e.users import EDGEPACK, commands, environment_with

TITLE = r"the model type pump_level \(edgepack-pump-level 0\.1\.0\)"
BROKEN = [
    # what only the SDK refuses
    ("model_type.py", 'Variable("above"', 'Variable("a b"', TITLE + ": component_spec declares what cannot be "
     "packaged, or .*Invalid name 'a b'"),
    ("child_tasks.py", "return {", "return {}[0] or {", f"failed in inspect_model of {TITLE}: KeyError: 0"),
    ("component/entrypoint.py", "    if data", "    raise IndexError('no row')\n    if data",
     TITLE + r": its component should answer each record .* at record 0: IndexError: no row"),
]  # fmt: skip
"""What is wrong in which file, and what is said of it."""


def test_the_skeleton_packages_green_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    written = CliRunner().invoke(main, ["model-type", "new", "pump_level", str(source)])
    assert written.exit_code == 0, written.output
    entry = (source / "README.md").read_text().split("# edgepack.yaml\n")[1].split("\n\n")[0]
    (tmp_path / "edgepack.yaml").write_text(f"registry: {{path: registry}}\n{dedent(entry)}\n")
    shutil.copyfile(PROJECT / "dagster.yaml", tmp_path / "dagster.yaml")
    python = environment_with(source, tmp_path / "venv")
    run, environment = commands(python, tmp_path)
    run(str(source / "sample.py"))
    for command in re.findall(r"^ +edgepack (.*)", (source / "README.md").read_text(), re.MULTILINE):
        *words, last = command.split()
        run(*EDGEPACK, *words, str(source / last) if (source / last).exists() else last)
    [package] = LocalRegistry(tmp_path / "registry").versions(Kind.MODEL, "PumpLevel-edge")
    assert float(package.tags["accuracy"]) == 1.0

    [installed] = (tmp_path / "venv/lib").glob("python*/site-packages/edgepack_pump_level")
    for file, now, broken, said in BROKEN:
        sound = (installed / file).read_text()
        assert now in sound
        (installed / file).write_text(sound.replace(now, broken))
        done = subprocess.run(
            [str(python), *EDGEPACK, "package", "pump_level:1", "--from", "config_package"], cwd=tmp_path,
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        (installed / file).write_text(sound)
        assert done.returncode == 1
        assert re.search(said, done.stderr), f"{file}, {broken}:\n{done.stderr[-4000:]}"
