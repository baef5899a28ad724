"""The plant of the end-to-end tests: a folder with a configuration, on which the quickstart was run. That is done once
in a test run, so that environments are built once; each worker has a copy, and tests add models and types of their own
to it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import filelock
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from edgepack_assets.cli.main import main
from edgepack_assets.config.loader import load_settings
from edgepack_assets.definitions import build_defs
from edgepack_assets.defs.kept_helpers import keeping_helpers
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.uv import uv_command, uv_environment
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind, RegisteredVersion

PROJECT = Path(__file__).parents[2]


@dataclass
class Plant:
    """A folder with edgepack.yaml, and the commands a user would type in it."""

    folder: Path
    quickstart_said: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "edgepack.yaml"

    def configure(self, **model_types: dict[str, Any]) -> None:
        """Add model types to edgepack.yaml, or replace them."""
        document = yaml.safe_load(self.config.read_text())
        document["model_types"] |= model_types
        self.config.write_text(yaml.safe_dump(document, sort_keys=False))

    def run(self, *command: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a command of the project's environment in the plant's folder."""
        path = Path(sys.executable).with_name(command[0])
        done = subprocess.run(
            [str(path), *command[1:]], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done

    def edgepack(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of edgepack in this process, a second sooner than in one of its own. That the installed command
        does the same in a shell is what test_operations.py, test_ci.py and the tests in cli/ are about."""
        with self.shell():
            done = CliRunner().invoke(main, arguments, prog_name="edgepack")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert not check or done.exit_code == 0, f"{arguments}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    @contextlib.contextmanager
    def shell(self) -> Iterator[None]:
        """This process in the plant's folder, with its environment."""
        before = dict(os.environ)
        with contextlib.chdir(self.folder):
            os.environ.clear()
            os.environ.update(self.environment)
            try:
                yield
            finally:
                os.environ.clear()
                os.environ.update(before)

    def add_model(self, name: str, path: Path, *options: str) -> int:
        """`edgepack model add` of whatever it is; the version."""
        done = self.edgepack("model", "add", name, str(path), "--force", *options)
        return int(done.stdout.strip().splitlines()[0].rpartition(":")[2])

    def materialize(
        self, partition: str, *assets: str, check: bool = True, of: str = "deployment_package", **config: str
    ) -> subprocess.CompletedProcess[str]:
        """What `dagster asset materialize` does with these assets, by default all, in the plant's instance, but in this
        process and so three seconds sooner. All that the run logged is its output. The command itself is what
        test_quickstart.py and test_ci.py are about. The run configuration is that of the asset `of`."""
        with self.shell(), dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as instance:
            instance.add_dynamic_partitions("models", [partition])
            job = build_defs(self.config).resolve_implicit_global_asset_job_def()
            result = job.execute_in_process(
                instance=instance, partition_key=partition, raise_on_error=False,
                asset_selection=[dg.AssetKey(asset) for asset in assets] or None,
                run_config={"ops": {of: {"config": config}}} if config else None,
            )  # fmt: skip
            logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
        failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        logged += [
            each.user_failure_data.description or "" if each.user_failure_data else str(each.error) for each in failures
        ]
        said = "\n".join(logged)
        assert not check or result.success, said[-6000:]
        return subprocess.CompletedProcess(partition, 0 if result.success else 1, said, "")

    def packages(self, name: str) -> list[RegisteredVersion]:
        """The registered versions of a package."""
        return open_registry(load_settings(self.config)).versions(Kind.MODEL, name)

    def listed(self, kind: str = "model") -> list[dict[str, Any]]:
        """`edgepack <kind> list --json`."""
        found: list[dict[str, Any]] = json.loads(self.edgepack(kind, "list", "--json").stdout)
        return found

    def prepare(self) -> None:
        """Fill `environment` as `eval "$(edgepack env)"` in the plant's folder does."""
        shell = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "EDGEPACK", "SIMATICAI"))}
        self.environment = {**shell, "EDGEPACK_CONFIG": str(self.config)}
        exports = self.edgepack("env").stdout
        told = subprocess.run(
            ["bash", "-c", f"{exports}\nenv -0"], env=self.environment, capture_output=True, check=True
        )
        self.environment = dict(item.decode().split("=", 1) for item in told.stdout.split(b"\0") if item)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker that asks for it makes, for all workers of this test run."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"once-{name}"
    made = folder.with_suffix(".made")
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir()
            make(folder)  # in its place: an environment that is moved is built again
            made.touch()
    return folder


def copytree(folder: Path, copy: Path, without: Path) -> None:
    """Copy what is in a folder, but for one folder below it."""
    shutil.copytree(
        folder, copy, symlinks=True, dirs_exist_ok=True,
        ignore=lambda place, names: [name for name in names if Path(place, name) == without],
    )  # fmt: skip


def _run_quickstart(folder: Path) -> None:
    first = Plant(folder)
    shutil.copyfile(PROJECT / "edgepack.yaml", first.config)
    shutil.copyfile(PROJECT / "dagster.yaml", folder / "dagster.yaml")
    first.prepare()
    (folder / SAID).write_text(first.run("python", "-m", "edgepack_assets.quickstart", timeout=900).stdout)


SAID = "what the quickstart said"


@pytest.fixture(scope="session")
def first_plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the quickstart was run, for all workers: nothing is changed in it, but that environments
    are added. Other plants may take their models, data and environments from there."""
    return made_once(tmp_path_factory, "plant", _run_quickstart)


@pytest.fixture(scope="session")
def environments(first_plant: Path) -> Path:
    """The folder of kept environments of all workers' plants."""
    return load_settings(first_plant / "edgepack.yaml").runtime.environments


@pytest.fixture(scope="session")
def plant(first_plant: Path, environments: Path, tmp_path_factory: pytest.TempPathFactory) -> Plant:
    """A plant after its quickstart, for the tests of this worker. Its environments are those of all workers."""
    made = Plant(tmp_path_factory.mktemp("plant"))
    copytree(first_plant, made.folder, without=load_settings(first_plant / "edgepack.yaml").runtime.environments)
    with made.config.open("a") as config:
        config.write(f"\nruntime:\n  environments: {environments}\n")
    made.quickstart_said = (made.folder / SAID).read_text()
    made.prepare()
    return made


@pytest.fixture(scope="module")
def kept_helpers() -> Iterator[None]:
    """For modules whose tests run much in this process: the helpers of one run serve the next, as those of
    `edgepack package` do."""
    with keeping_helpers():
        yield


OF_VARIANTS = ["scikit-learn==1.5.2", "numpy==1.26.4", "pandas==2.2.3", "cloudpickle==3.1.1", "skops==0.11.0"]
"""What `variants` are trained with, and need."""


@pytest.fixture(scope="session")
def variants(plant: Plant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with state identifier models of many kinds (train_variants.py), fitted on the plant's recording. All
    workers have it: tests change copies."""
    raw = next(Path(data["location"]) for data in plant.listed("data") if data["name"] == "state_identifier_raw")
    recording = tmp_path_factory.mktemp("recording") / "recording.npy"
    np.save(recording, pd.read_parquet(raw)[["ph1", "ph2", "ph3"]].ffill().to_numpy())
    transformers = Path(__file__).parents[1] / "model_types/state_identifier/models.py"
    return made_once(
        tmp_path_factory, "variants",
        lambda out: run_with(OF_VARIANTS, "train_variants.py", transformers, recording, out),
    )  # fmt: skip


def run_with(packages: list[str], script: str, *arguments: Path | str) -> None:
    """Run a script of this folder in an environment of its own, on a Python that the edge runs."""
    _, interpreter = find_python(None)
    options = [part for package in packages for part in ("--with", package)]
    done = subprocess.run(
        uv_command("run", "--no-project", "--no-python-downloads", "--quiet", f"--python={interpreter}", *options,
                   str(Path(__file__).with_name(script)), *map(str, arguments)),
        env=uv_environment(), capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
