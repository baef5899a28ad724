"""The project as a whole: what loading it imports, and that its files agree with each other."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

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


FLOORS = [
    {"masking"},
    {"errors"},
    {"checks", "partitions", "filesystem"},
    {"config"},
    {"azure"},
    {"registry", "artefacts"},
    {"new_models"},
    {"environments"},
    {"sandbox"},
    {"model_types"},
    {"packaging"},
    {"tasks"},
    {"operations"},
    {"defs"},
    {"run_launcher", "definitions"},
    {"quickstart"},
    {"cli"},
]
"""From the ground up: a module imports from its own floor or one below."""


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("edgepack_assets.")}
    return found - {"__version__"}


def _libraries(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


def test_no_import_runs_upward() -> None:
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    upward = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        upward += [f"{'/'.join(parts)} imports {name}" for name in _imports(path) if floor[name] > floor[parts[0]]]
    assert upward == []


def test_dagster_and_the_sdk_stay_where_they_belong() -> None:
    allowed = {
        "dagster": {"cli", "definitions", "defs", "quickstart"},
        "simaticai": {"packaging"},
    }
    for library, places in allowed.items():
        for path in sorted(PACKAGE.rglob("*.py")):
            top = path.relative_to(PACKAGE).with_suffix("").parts[0]
            if library in _libraries(path):
                assert top in places, f"{path} imports {library}"


def test_no_module_is_long() -> None:
    long = {str(p): n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}
