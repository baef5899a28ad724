"""How the frozen sample is stored and opened: a user's folder whose SQLite files are SQL text and whose path is a
placeholder. How it is made is in make.py, what must hold of it in test_frozen.py."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg

from edgepack_assets.definitions import build_defs

SAMPLE = Path(__file__).parent / "sample"
_LEFT_OUT = {"environments", "storage", ".lock", ".db-wal", ".db-shm"}
"""Environments are built from the locked wheels; `storage` has the output of runs."""
_HIDDEN = {"edgepack": ".edgepack"}
"""Git ignores a folder of that name."""
_FOLDER = "/placeholder/of/the/folder"


def freeze(folder: Path, sample: Path = SAMPLE) -> None:
    """Store a user's folder as the sample."""
    shutil.rmtree(sample, ignore_errors=True)
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not path.is_file() or _LEFT_OUT & {*relative.parts, path.suffix}:
            continue
        target = sample / _visible(relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(".db"):  # one is called just that
            with closing(sqlite3.connect(path)) as database:
                text = "\n".join(database.iterdump()) + "\n"
            target.with_name(f"{target.name}.sql").write_text(text.replace(str(folder), _FOLDER))
        elif path.suffix in (".yaml", ".json"):
            target.write_text(path.read_text().replace(str(folder), _FOLDER))
        else:
            shutil.copyfile(path, target)


def thaw(folder: Path, sample: Path = SAMPLE) -> None:
    """Make a user's folder of the sample."""
    for path in sorted(sample.rglob("*")):
        if path.is_dir():
            continue
        target = folder.joinpath(*(_HIDDEN.get(part, part) for part in path.relative_to(sample).parts))
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".sql":
            with closing(sqlite3.connect(target.with_name(target.name.removesuffix(".sql")))) as database:
                database.executescript(path.read_text().replace(_FOLDER, str(folder)))
        else:
            shutil.copyfile(path, target)


def _visible(relative: Path) -> Path:
    shown = {hidden: visible for visible, hidden in _HIDDEN.items()}
    return Path(*(shown.get(part, part) for part in relative.parts))


def names(defs: dg.Definitions) -> dict[str, Any]:
    """Every name by which Dagster keeps what users have."""
    graph = defs.resolve_asset_graph()
    assets = {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}
    return {
        "assets": sorted(assets),
        "checks": sorted(f"{key.asset_key.to_user_string()}.{key.name}" for key in graph.asset_check_keys),
        "partitions": {name: getattr(node.partitions_def, "name", None) for name, node in sorted(assets.items())},
        "pools": {name: sorted(node.pools or ()) for name, node in sorted(assets.items())},
        "jobs": sorted(job.name for job in defs.jobs or []),
        "sensors": sorted(sensor.name for sensor in defs.sensors or []),
        "resources": sorted(defs.resources or {}),
    }


def tick(
    config: Path, instance: dg.DagsterInstance, cursor: str | None
) -> tuple[dg.SensorDefinition, dg.SensorResult | dg.SkipReason]:
    """The sensor of the model type `press`, and what it answers."""
    sensor = build_defs(config).resolve_sensor_def("press_models")
    answer = sensor(dg.build_sensor_context(instance, cursor=cursor))
    assert isinstance(answer, dg.SensorResult | dg.SkipReason)
    return sensor, answer
