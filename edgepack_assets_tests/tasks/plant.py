"""A plant whose model is the tiny component: everything that deployment_package takes, without a model to train."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow
from edgepack_assets.config.loader import load_settings
from edgepack_assets.filesystem.atomic_files import writing
from edgepack_assets.packaging.runner import PackageRunner
from edgepack_assets.packaging.worker import PackagingWorker, served_functions
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.deployment_package import DeploymentReport, Validated, deploy
from edgepack_assets.tasks.failed_checks import failed_inputs, failed_rows
from edgepack_assets_tests.packaging import tiny
from edgepack_assets_tests.packaging.conftest import Built

MODEL, PACKAGE = "press_model", tiny.REGISTERED
METRICS = {"silhouette": 0.5, "dunn_index": 0.25, "inertia": 100.0}
SOUND = ["answers", True, "4", "4"]


class PackagingHere(PackagingWorker):
    """The same calls in this process: eight of them need not import the SDK eight times."""

    def start(self) -> None:
        """There is no process to start ahead: it would import the SDK for nobody, and nobody would end it."""

    def _call(self, function: str, *arguments: Any) -> Any:
        return served_functions()[function](*arguments)


@dataclass
class Plant:
    """A folder with a registry; `gates` as in edgepack.yaml."""

    built: Built
    folder: Path
    gates: dict[str, Any] = field(default_factory=dict)
    run_whole_payload: bool = False
    delta: bool = False
    output_folders: tuple[str, ...] = ("outputs",)
    _results: dict[str, Path] = field(default_factory=dict)

    @property
    def registry(self) -> LocalRegistry:
        return LocalRegistry(self.folder / "registry")

    def packages(self) -> list[RegisteredVersion]:
        return self.registry.versions(Kind.MODEL, PACKAGE)

    def task_context(self, sandbox: Sandbox | None = None) -> TaskContext:
        file = self.folder / "edgepack.yaml"
        entry = {"implementation": "state_identifier", "model_name": MODEL, "package_name": tiny.NAME,
                 "raw_data": {"name": "press_raw"}, "gates": self.gates,
                 "run_whole_payload": self.run_whole_payload, "delta": self.delta}  # fmt: skip
        text = yaml.safe_dump({
            "registry": {"path": "registry"},
            "artefacts": {"root": self.built.store.root_url, "cache": str(self.folder / "cache")},
            "runtime": {"environments": str(self.built.settings.environments), "time_limit": 60},
            "run": {"output_folders": [str(self.folder / name) for name in self.output_folders]},
            "model_types": {"press": entry},
        })  # fmt: skip
        # Several processes of a test may do this at once, and each must read a whole file.
        with writing(file) as stream:
            stream.write(text.encode())
        settings = load_settings(file)
        log = logging.getLogger(__name__)
        sandbox = sandbox or Sandbox(settings.runtime)
        return TaskContext(settings, self.registry, self.built.store, sandbox, PackagingHere(), log)

    def validated(
        self,
        version: int,
        metrics: Mapping[str, float | None] = METRICS,
        raw: int = 1,
        sound: bool = True,
        failed: Collection[str] = (),
    ) -> Validated:
        """What was validated of a model version on a version of the raw data. The blocking checks of the assets
        `failed` have failed."""

        def check(asset: str) -> dict[str, list[str]]:
            return failed_rows(
                [CheckRow("a sound row", True, "", ""), CheckRow(f"a row of {asset}", asset not in failed, "", "")]
            )

        store, key = self.built.store, f"press:{version}"
        records = _gzipped(self.folder / f"records-{raw}", [*tiny.RECORDS, {"x": float(raw)}])
        if str(raw) not in self._results:
            with (
                Sandbox(self.built.settings) as sandbox,
                PackageRunner(self.built.config, self.folder, sandbox, self.built.environment) as runner,
            ):
                self._results[str(raw)] = runner.run("validating", records, []).results
        inspection, none = store.put_json({}), store.put_bytes(gzip.compress(b"", mtime=0), "x")
        payload = Artefact(
            asset="payload_data", partition=key,
            parts={"records": store.put_file(records, "x"), "sources": none},
            facts={**check("payload_data"), "records": len(tiny.RECORDS) + 1, "sourced": 0,
                   "raw_data": {"name": "press_raw", "version": raw, "digest": f"{raw:064x}"}},
            made_from={"raw_data": f"{raw:064x}"},
        )  # fmt: skip
        package = Artefact(
            asset="config_package", partition=key,
            parts={"package": store.put_file(self.built.config, "x"),
                   "lock": store.put_json(self.built.lock.model_dump(mode="json")), "inspection": inspection},
            facts={**check("config_package"),
                   "model": {"name": MODEL, "version": version, "digest": f"{version:064x}"}},
            made_from={"registered_model": f"{version:064x}"},
        )  # fmt: skip
        results = Artefact(
            asset="validation_results", partition=key,
            parts={"results": store.put_file(self._results[str(raw)], "x"), "inspection": inspection},
            facts=check("validation_results"),
            made_from={"payload_data": payload.digest, "config_package": package.digest},
        )  # fmt: skip
        prepped = Artefact(asset="prepped_data", partition=key, parts={}, facts=check("prepped_data"))
        facts = {
            "metrics": dict(metrics),
            "parts": [[SOUND[0], sound, *SOUND[2:]]],
            **failed_inputs([payload, prepped, results]),
        }
        scored = Artefact(
            asset="metrics", partition=key, parts={"metrics": store.put_json(facts)}, facts=facts,
            made_from={"payload_data": payload.digest, "prepped_data": prepped.digest,
                       "validation_results": results.digest, "config_package": package.digest},
        )  # fmt: skip
        return Validated(package, payload, results, scored)

    def deploy(
        self, version: int, metrics: Mapping[str, float | None] = METRICS, *, raw: int = 1, override: str = "",
        sound: bool = True, run_id: str = "run",
    ) -> DeploymentReport:  # fmt: skip
        """What deployment_package does, all of it."""
        validated = self.validated(version, metrics, raw, sound)
        with Sandbox(self.built.settings) as sandbox:
            _, report = deploy(
                ModelKey("press", version), validated, {"run_id": run_id}, override, self.task_context(sandbox)
            )
        assert all(part.passed for part in report.rows), report.rows
        return report


def _gzipped(path: Path, records: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records)
    with writing(path) as stream:  # others may read it at the same time
        stream.write(gzip.compress(text.encode(), mtime=0))
    return path
