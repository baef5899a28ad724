"""Running the config package over the payload, as the inference server would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow, all_pass
from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types.interface import Payload, Results, Trial
from edgepack_assets.packaging.component_runs import PackageRun, allowed_late, p99
from edgepack_assets.partitions import ModelKey
from edgepack_assets.sandbox.jobs import CallJob
from edgepack_assets.tasks.ahead import background_imports
from edgepack_assets.tasks.chain import check_chain
from edgepack_assets.tasks.context import SERVER_LOCK, TaskContext
from edgepack_assets.tasks.conversion import compare_answers
from edgepack_assets.tasks.envelope import try_faults
from edgepack_assets.tasks.failed_checks import failed_rows
from edgepack_assets.tasks.package_run import run_package
from edgepack_assets.tasks.packages.build import build_ahead
from edgepack_assets.tasks.payload_data import JSON_LINES, open_payload
from edgepack_assets.tasks.pictures import results_picture
from edgepack_assets.tasks.plugin_faults import naming_plugin

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ValidationReport:
    """What a person sees of validation results. `latency` is in seconds; `picture` is PNG bytes; `pace` says whether
    the component keeps up with the cycle that its package declares; `isolation` how it was isolated; `tried` what else
    was tried with the model; `changed` answers that the conversion of the model has changed; `faults` what faults of
    sensors change; `components` the latency of each component where there are several."""

    rows: list[CheckRow]
    preview: list[dict[str, Any]]
    latency: dict[str, float]
    picture: bytes
    pace: list[CheckRow]
    isolation: str
    tried: list[dict[str, Any]]
    changed: list[dict[str, Any]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    components: list[dict[str, Any]] = field(default_factory=list)


def validate(
    key: ModelKey, payload_data: Artefact, config_package: Artefact, context: TaskContext
) -> tuple[Artefact, ValidationReport]:
    """Feed every payload record to the package in its own environment.

    Raises TaskFailedError with the component's own traceback and the record, or ComponentError.
    """
    check_chain("validation_results", key, (payload_data, config_package))
    lock, payload = context.lock_of(config_package), open_payload(payload_data, context)
    implementation = context.model_type(key)
    with context.work_folder() as work:
        environment = context.environment(lock)
        context.sandbox.prepare(environment, context.child_imports(key, lock))
        package = context.store.fetch(config_package.parts["package"])
        server = context.server_of(config_package)
        known = context.kept_run.take(config_package, payload_data)
        if known is not None:
            context.log.info("this package was run over this payload to compare its numbers: that run is taken")
        with naming_plugin(implementation, "its component should answer each record with the declared outputs or None"):
            run, runner = run_package(
                f"validating {key}", package, environment, payload, key, work, context, server=server, known=known
            )
        parts = _rows_of_run(run, payload)
        if all_pass(parts):
            build_ahead(key, config_package, payload_data, context)
        results = Results(run.results)
        inspection = context.store.read_json(config_package.parts["inspection"])
        comparison = compare_answers(
            key, config_package, context, work,
            component=runner.component_folder, payload=payload, results=results, inspection=inspection,
        )  # fmt: skip
        parts += comparison.rows
        fault_rows, faults = try_faults(
            key, payload, results, inspection, runner.component_folder, environment, work, context
        )
        parts += fault_rows
        artefact = _artefact(key, payload_data, config_package, run, parts, context)
        background_imports.finish()
        picture = results_picture(key, payload_data, results, inspection, context)
        keeps_pace = pace(run, implementation.component_spec(inspection).periodicity)
        preview = [{"record": a.record, **a.outputs} for a in islice(results.answers(), 10)]
        trial = implementation.trial(payload, results, inspection, context.entry(key), work)
        warnings: list[CheckRow] = []
        tried: list[dict[str, Any]] = []
        if trial:
            folder = runner.whole_component(work) if server else runner.component_folder
            warnings, tried = try_out(key, trial, folder, server or environment, context)
    isolation = context.sandbox.isolation.words
    report = ValidationReport(
        [*parts, *warnings], preview, run.latency, picture, keeps_pace, isolation, tried, list(comparison.table),
        faults, [{"component": name, **_milliseconds(latency)} for name, latency in run.components.items()],
    )  # fmt: skip
    return artefact, report


def _rows_of_run(run: PackageRun, payload: Payload) -> list[CheckRow]:
    records = f"{payload.count}, as in the payload"
    return [
        CheckRow("records accounted for", run.records == payload.count, str(run.records), records),
        CheckRow("answers", run.answered > 0, str(run.answered), "at least 1"),
    ]


def _artefact(  # noqa: PLR0917 - what it is made from
    key: ModelKey, payload_data: Artefact, config_package: Artefact, run: PackageRun, rows: list[CheckRow],
    context: TaskContext,
) -> Artefact:  # fmt: skip
    """`rows`: those of the blocking check."""
    store, several = context.store, SERVER_LOCK in config_package.parts
    return Artefact(
        asset="validation_results",
        partition=str(key),
        parts={
            "results": store.put_file(run.results, JSON_LINES),
            "inspection": config_package.parts["inspection"],
        },
        facts={"records": run.records, "answered": run.answered, **failed_rows(rows)},
        observations={
            "times": store.put_file(run.times, "application/octet-stream"),
            "latency": store.put_json(run.latency | ({"components": run.components} if several else {})),
        },
        made_from={"payload_data": payload_data.digest, "config_package": config_package.digest},
    )


def _milliseconds(latency: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}_ms": round(latency[name] * 1000, 4) for name in ("p50", "p95", "p99", "max")}


def try_out(
    key: ModelKey, trial: Trial, component: Path, environment: Environment, context: TaskContext
) -> tuple[list[CheckRow], list[dict[str, Any]]]:
    """What trying it says: rows that only warn, and a table."""
    job = CallJob(component, context.model_type(key).folder / "child_tasks.py", trial.function, trial.arguments)
    child_imports = context.child_imports(key, environment.lock)
    try:
        answer = context.sandbox.run(f"{trial.function} of {key}", environment, child_imports, job, inputs=trial.inputs)
        return context.model_type(key).trial_rows(trial, answer)
    except ComponentError as error:  # the package itself was validated
        context.log.warning(f"{error}")
        return [], []


def pace(run: PackageRun, cycle: int | None) -> list[CheckRow]:
    """Seconds per record against the cycle (milliseconds): each record must be done before the next one comes.

    Judged by figures that one slow record does not decide, since this machine may be busy with other work. Records that
    give an answer are also judged by themselves: in a model that collects records they are few and take longest."""
    if cycle is None:
        return [CheckRow("cycle time", True, "the package declares none", "a cycle time, if records come in one")]
    seconds = run.seconds()
    figures = [("mean time for a record, without the slowest", _mean_without_slowest(seconds))]
    figures.append(("p99 time for a record", p99(seconds)))
    answers = seconds[list(run.answers)]
    if 0 < len(answers) < len(seconds):
        figures.append(("p99 time for a record with an answer", p99(answers)))
    late, allowed = int((seconds * 1000 > cycle).sum()), allowed_late(len(seconds))
    longest = f", the longest took {seconds.max() * 1000:.3f} ms" if late else ""
    return [
        *(
            CheckRow(name, value * 1000 <= cycle, f"{value * 1000:.3f} ms", f"at most {cycle} ms")
            for name, value in figures
        ),
        CheckRow(
            f"records that took longer than {cycle} ms",
            late <= allowed,
            f"{late} of {len(seconds)}{longest}",
            f"at most {allowed} (1 %, or one of several: this machine may be busy)",
        ),
    ]


def _mean_without_slowest(seconds: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    if len(seconds) < 2:
        return float(seconds.sum())
    return float((seconds.sum() - seconds.max()) / (len(seconds) - 1))
