"""What a thousand model types cost: loading, commands, ticks, an idle day, the database.

    python -m benchmarks.many_model_types [--types 1000] [--versions 100] [--seconds 180] [--json FILE]

Everything is compared with two model types in the same run. Costs are processor time, so that a busy machine does not
matter much. The idle day is extrapolated from `--seconds` under a real daemon with its code server; 0 leaves it out.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg
import yaml

from benchmarks.processor_time import used_by_session
from benchmarks.sensor_ticks import add
from edgepack_assets.config.loader import load_settings
from edgepack_assets.defs.sensors import registry_sensors

FEW = 2
DAY = 24 * 3600
_STARTS = 45
_TICKS_SHOWN = 20


def make(folder: Path, types: int, versions: int) -> Path:
    """A project with so many model types and versions of each."""
    folder.mkdir()
    entries = {}
    for number in range(types):
        name = f"press_{number}"
        entries[name] = {"implementation": "state_identifier", "model_name": name, "package_name": f"Press {number}",
                         "raw_data": {"name": "raw"}}  # fmt: skip
        for version in range(1, versions + 1):
            add(folder / "registry" / "models" / name, version)
    add(folder / "registry" / "data" / "raw", 1)
    file = folder / "edgepack.yaml"
    document = {"registry": {"path": "registry"}, "sensors": {"start": "none"}, "model_types": entries}
    file.write_text(yaml.safe_dump(document))
    (folder / "home").mkdir()
    return file


def environment(file: Path) -> dict[str, str]:
    """The environment of a process that works on the project of `file`."""
    names = {"EDGEPACK_CONFIG": str(file), "DAGSTER_HOME": str(file.parent / "home"), "SIMATICAI_TELEMETRY": "deny"}
    return {**os.environ, **names, "DAGSTER_MODULE_NAME": "edgepack_assets.definitions"}


def cost_of(command: list[str], file: Path) -> float:
    """Processor seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment(file), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ratio_of_costs(command: list[str], few: Path, many: Path, times: int = 5) -> dict[str, float]:
    """The least cost of a command with few and with many model types, measured in turn."""
    costs = {"few": [cost_of(command, few)], "many": [cost_of(command, many)]}
    for _ in range(times - 1):
        costs["few"].append(cost_of(command, few))
        costs["many"].append(cost_of(command, many))
    few_cost, many_cost = min(costs["few"]), min(costs["many"])
    return {"few": few_cost, "many": many_cost, "ratio": many_cost / few_cost}


def ticks(file: Path) -> dict[str, float]:
    """Ticks until every model type was looked at first, and the cost of those with nothing new after that."""
    [sensor] = registry_sensors(load_settings(file))
    cursor, first, looked, largest = None, 0, 0, 0
    costs = []
    with dg.DagsterInstance.from_config(str(file.parent / "home")) as instance:
        while looked < len(load_settings(file).model_types):
            looked, cursor = _tick(sensor, instance, cursor)
            first, largest = first + 1, max(largest, len(cursor))
        for _ in range(_TICKS_SHOWN):
            began = time.process_time()
            looked, cursor = _tick(sensor, instance, cursor)
            costs.append(time.process_time() - began)
            assert looked == len(load_settings(file).model_types)
    return {"first_ticks": first, "idle_mean_s": sum(costs) / len(costs), "idle_worst_s": max(costs),
            "idle_cursor_characters": len(cursor or ""), "largest_cursor_characters": largest}  # fmt: skip


def _tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None) -> tuple[int, str]:
    result = sensor(dg.build_sensor_context(instance, cursor=cursor))
    assert isinstance(result, dg.SensorResult)
    assert result.skip_reason is not None, "nothing is to be packaged"
    return int((result.skip_reason.skip_message or "").split()[2]), result.cursor or ""


def idle(file: Path, seconds: float) -> dict[str, float]:
    """A daemon and a code server with nothing to do: their processor time, their ticks, and what those add."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    served = {"location_name": "edgepack_assets", "host": "127.0.0.1", "port": int(port)}
    workspace = file.parent / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": served}]}))
    variables = environment(file)
    module = variables.pop("DAGSTER_MODULE_NAME")
    programs = Path(sys.executable).parent
    code_server = [programs / "dagster", "code-server", "start", "-p", port, "-m", module, "--location-name",
                   "edgepack_assets"]  # fmt: skip
    with (file.parent / "daemon.log").open("w") as log, contextlib.ExitStack() as ended:
        processes = []
        for command in (code_server, [programs / "dagster-daemon", "run", "-w", workspace]):
            started = subprocess.Popen(command, env=variables, start_new_session=True, stdout=log, stderr=log)
            ended.callback(started.wait)
            ended.callback(os.killpg, started.pid, signal.SIGKILL)  # in the background Dagster ignores SIGTERM
            processes.append(started.pid)
            time.sleep(_STARTS)  # the daemon finds the code server, and reads the states
        before, ticks_before = [used_by_session(each) for each in processes], _ticks_of(file)
        time.sleep(seconds)
        code, daemon = (used_by_session(each) - spent for each, spent in zip(processes, before, strict=True))
        made = _ticks_of(file)[len(ticks_before) :]
    spent = code + daemon
    times = [at for at, _ in made]
    return {
        "core_percent": 100 * spent / seconds,
        "code_server_percent": 100 * code / seconds,
        "day_cpu_s": spent / seconds * DAY,
        "ticks": len(made),
        "longest_gap_s": max((b - a for a, b in itertools.pairwise(times)), default=0.0),
        "tick_row_bytes": sum(size for _, size in made) / max(1, len(made)),
        "day_rows_bytes": sum(size for _, size in made) / seconds * DAY,
    }


def _ticks_of(file: Path) -> list[tuple[float, int]]:
    """When each tick of registry_models was, and the bytes of its row."""
    database = file.parent / "home" / "schedules" / "schedules.db"
    with sqlite3.connect(database) as connection:
        found = connection.execute(
            "select timestamp, length(tick_body), tick_body from job_ticks order by id"
        ).fetchall()
    seconds = [time.mktime(time.strptime(str(at)[:19], "%Y-%m-%d %H:%M:%S")) for at, _, _ in found]
    return [(at, size) for at, (_, size, body) in zip(seconds, found, strict=True) if "registry_models" in body]


def main() -> int:
    """Measure and print."""
    logging.disable(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgepack-benchmark-") as folder:
        few = make(Path(folder) / "few", FEW, options.versions)
        many = make(Path(folder) / "many", options.types, options.versions)
        load = [sys.executable, "-c", "import edgepack_assets.definitions as d; d.defs.get_repository_def()"]
        command = [str(Path(sys.executable).with_name("edgepack")), "model", "list", "press_1"]
        result: dict[str, dict[str, float]] = {
            "code_location": ratio_of_costs(load, few, many),
            "edgepack_model_list": ratio_of_costs(command, few, many),
            "ticks": ticks(many),
        }
        database = sum(file.stat().st_size for file in (many.parent / "home").rglob("*.db"))
        result["rows"] = {"database_bytes": database, "bytes_per_type": database / options.types}
        if options.seconds:
            result["idle_few"] = idle(few, options.seconds)
            result["idle_many"] = idle(many, options.seconds)
    for part, values in result.items():
        print(f"{part:20}", ", ".join(f"{name} {value:,.3f}" for name, value in values.items()))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
