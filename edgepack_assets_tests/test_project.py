"""The project as a whole: what loading it imports, and that its files agree with each other.

The layers are import-linter's, see pyproject.toml.
"""

from __future__ import annotations

import ast
import configparser
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgepack_assets import __version__

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "edgepack_assets"
HEAVY = {"simaticai", "azure.ai.ml", "sklearn", "matplotlib", "pandas", "pyarrow", "scipy"}


def test_loading_the_code_location_imports_nothing_heavy() -> None:
    code = (
        f"import sys, edgepack_assets.definitions as d; d.defs; print(sorted(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_file_names_the_same_module() -> None:
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    workspace = yaml.safe_load((PROJECT / "workspace.yaml").read_text())
    (target,) = workspace["load_from"]
    module = "edgepack_assets.definitions"
    assert pyproject["tool"]["dagster"]["module_name"] == module
    assert pyproject["tool"]["dg"]["project"]["code_location_target_module"] == module
    assert target["python_module"]["module_name"] == module


def test_setup_cfg_holds_tool_settings_only() -> None:
    config = configparser.ConfigParser()
    config.read(PROJECT / "setup.cfg")
    assert not {"metadata", "options"} & {section.split(".")[0] for section in config.sections()}


def test_the_lock_has_a_version_of_every_dependency_within_its_bounds_and_no_address() -> None:
    lines = (PROJECT / "requirements-dev.lock").read_text().splitlines()
    assert not [line for line in lines if "/" in line or "@" in line.partition(";")[0] or line.startswith("-")]
    locked: dict[str, list[Requirement]] = {}
    for line in lines:
        requirement = Requirement(line)
        locked.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    asked = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    for dependency in map(Requirement, asked):
        if dependency.name == project["name"]:
            continue
        pins = locked.get(canonicalize_name(dependency.name), [])
        assert pins, f"{dependency} is not in requirements-dev.lock: make lock"
        for pin in pins:
            [version] = [each.version for each in pin.specifier]
            assert dependency.specifier.contains(version), f"{pin} is out of {dependency}: make lock"


def test_pre_commit_runs_the_linters_of_make_lint() -> None:
    config = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())
    [repository] = config["repos"]
    assert repository["repo"] == "local"  # nothing is downloaded
    hooks = {tuple(hook["entry"].replace("--force-exclude", "").split()) for hook in repository["hooks"]}
    recipe = (PROJECT / "Makefile").read_text().partition("\nlint:")[2].partition("\nlint-components:")[0]
    commands = re.findall(r'^\t"\$\(BIN\)/([a-z-]+)"(.*)', recipe, re.MULTILINE)
    assert commands
    assert hooks == {(f".venv/bin/{name}", *rest.replace(" .", "").split()) for name, rest in commands}


def test_the_newest_release_of_the_changelog_is_the_version() -> None:
    releases = re.findall(
        r"^## \[([0-9.]+)\] - \d{4}-\d{2}-\d{2}$", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert releases[0] == __version__


def _libraries(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


RUN_BY_ANOTHER_PYTHON = ("child_main", "child_limits", "value_types", "namespace_init", "escape_attempts")
"""Modules of sandbox/ that a component's own Python runs, by their path."""


def test_what_another_python_runs_needs_the_standard_library_only() -> None:
    files = [PACKAGE / "sandbox" / f"{name}.py" for name in RUN_BY_ANOTHER_PYTHON]
    files += [PACKAGE / f"environments/{name}.py" for name in ("exit_with_parent", "compile_modules")]
    files += [PACKAGE / "model_types/model_folder/pickle_origin.py"]
    for path in files:
        assert _libraries(path) <= sys.stdlib_module_names, path


OF_A_MODEL_TYPE = re.compile(r"windows?|labels?|clusters?|clustering|pickles?|features?|phases?", re.IGNORECASE)
CORE = ("tasks", "defs", "config", "new_models", "operations", "checks.py", "partitions.py", "definitions.py")


MACHINES = {"cluster", "clusters"}
"""What Azure ML calls a group of machines; a module that speaks of it speaks of no clustering."""


def test_the_core_speaks_of_no_model_type() -> None:
    """Words of one kind of model belong to its plug-in, in texts too; Dagster's errors have a field
    `label`, and Windows is a system."""
    files = [path for name in CORE for path in [PACKAGE / name, *(PACKAGE / name).rglob("*.py")] if path.is_file()]
    found = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in files
        for line in path.read_text().splitlines()
        if {
            word
            for word in re.findall(r"[A-Za-z]+", line.replace("core.windows.net", ""))
            if OF_A_MODEL_TYPE.fullmatch(word)
        }
        - {"Windows"}
        - (MACHINES if path.name == "compute_settings.py" else set())
        and "user_failure_data.label" not in line
        and not re.search(r"(status|before)\.phase\b", line)  # of a job
    ]
    assert len(files) > 50
    assert found == []


def test_no_module_is_long() -> None:
    long = {str(p): n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}
