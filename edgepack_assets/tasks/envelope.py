"""Letting a component learn what it is proven on, before it is packaged; and trying faults on the packaged one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack_assets.checks import CheckRow
from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import ComponentError, ModelError
from edgepack_assets.model_types import envelope
from edgepack_assets.model_types.interface import ComponentSpec, Payload, Results
from edgepack_assets.model_types.model_folder.bounded_files import model_errors
from edgepack_assets.partitions import ModelKey
from edgepack_assets.sandbox.jobs import CallJob
from edgepack_assets.sandbox.untrusted_values import parse_report
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.payload_data import make_payload, open_payload


def envelope_folders(key: ModelKey, context: TaskContext) -> tuple[Path, ...]:
    """What is laid over the component's folders; nothing without `envelope`. Raises ModelError."""
    if not context.entry(key).envelope:
        return ()
    implementation = context.model_type(key)
    if implementation.envelope_per is None:
        raise ModelError(
            f"{implementation.name} has no envelope: remove `envelope` of {key.model_type} in edgepack.yaml"
        )
    return (envelope.FOLDER, implementation.folder / "component_envelope")


def learn_envelope(
    key: ModelKey, component: Path, inspection: dict[str, Any], environment: Environment, context: TaskContext
) -> dict[str, Any]:
    """The inspection, with what the component in this folder learned from the payload; as it was, if there is no
    envelope to learn. Raises ModelError, ComponentError."""
    if not context.entry(key).envelope:
        return inspection
    implementation = context.model_type(key)
    # config_package has no edge to payload_data, so it reads the raw data itself, as a conversion does.
    payload = open_payload(make_payload(key, context)[0], context)
    what = f"learning the envelope of {key}"
    job = CallJob(
        component, implementation.folder / implementation.envelope_tasks, "learn_envelope", {"count": payload.count}
    )
    child_imports = context.child_imports(key, environment.lock)
    answer = context.sandbox.run(what, environment, child_imports, job, inputs={"records": payload.records})
    with model_errors(what):
        learned = parse_report(what, envelope.LearnedEnvelope, answer)
    return {**inspection, envelope.KEY: learned.model_dump(exclude_unset=True)}


def suggested_alerts(key: ModelKey, spec: ComponentSpec, inspection: Mapping[str, Any], context: TaskContext) -> str:
    """Rules for the package's metrics as Markdown; empty without an envelope."""
    per = context.model_type(key).envelope_per
    if per is None or not envelope.is_in(inspection):
        return ""
    return envelope.alert_rules(spec.metrics, inspection[envelope.KEY], per)


def try_faults(  # noqa: PLR0917 - what is tried, and where
    key: ModelKey, payload: Payload, results: Results, inspection: Mapping[str, Any], component: Path,
    environment: Environment, work: Path, context: TaskContext,
) -> tuple[list[CheckRow], list[dict[str, Any]]]:  # fmt: skip
    """Rows of validation_results.are_complete, and a table; nothing where no faults are to be tried."""
    entry, implementation = context.entry(key), context.model_type(key)
    if entry.fault_probes is None:
        return [], []
    warns, name = entry.fault_probes == "warn", "faults that change answers are noticed"
    probes = implementation.probes(payload, results, inspection, entry, work)
    if probes is None:
        row = CheckRow(name, False, f"{implementation.name} has none to try", "a model type with faults", warns=warns)
        return [row], []
    job = CallJob(component, implementation.folder / implementation.envelope_tasks, probes.function, probes.arguments)
    child_imports = context.child_imports(key, environment.lock)
    try:
        answer = context.sandbox.run(f"trying faults on {key}", environment, child_imports, job, inputs=probes.inputs)
        return implementation.trial_rows(probes, answer)
    except ComponentError as error:  # the package itself was validated
        return [CheckRow(name, False, f"cannot be tried: {error}", "faults that can be tried", warns=warns)], []
