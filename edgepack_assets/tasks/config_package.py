"""From a registered model to a pipeline configuration package: lock, environment, inspection, package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow
from edgepack_assets.environments.environment import Environment
from edgepack_assets.environments.lock import Generation, Lock, generation_for
from edgepack_assets.errors import (
    ComponentRefusedError,
    EnvironmentBuildError,
    ModelError,
    PackageError,
    PluginError,
)
from edgepack_assets.filesystem.atomic_files import link_or_copy
from edgepack_assets.model_types import Plugin, envelope
from edgepack_assets.model_types.interface import ComponentSpec, ModelSource
from edgepack_assets.model_types.model_folder.bounded_files import model_errors
from edgepack_assets.model_types.model_folder.model_failures import Loading, explained, origin_of
from edgepack_assets.model_types.model_folder.saved_versions import saved_version_rows
from edgepack_assets.model_types.renumbering import KEY, put_in_front
from edgepack_assets.model_types.renumbering import settings as renumbering_settings
from edgepack_assets.packaging.stamp import COMPONENT
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.approval import check_still_approved
from edgepack_assets.registry.base import Kind
from edgepack_assets.sandbox.child_death import ChildDiedError
from edgepack_assets.sandbox.jobs import CallJob
from edgepack_assets.sandbox.sandbox import TaskFailedError
from edgepack_assets.sandbox.untrusted_values import parse_report
from edgepack_assets.tasks import background_imports
from edgepack_assets.tasks.context import CONTENTS, SERVER_LOCK, TaskContext
from edgepack_assets.tasks.conversion import convert_model
from edgepack_assets.tasks.envelope import envelope_folders, learn_envelope, suggested_alerts
from edgepack_assets.tasks.environment_ahead import lock_of_source
from edgepack_assets.tasks.failed_checks import failed_rows
from edgepack_assets.tasks.package_tags import NUMBERS_OF
from edgepack_assets.tasks.plugin_faults import naming_plugin
from edgepack_assets.tasks.renumbering import NUMBERED_LIKE, Renumbering, plan_renumbering

ZIP = "application/zip"
_MODULE_SUFFIXES = (".py", ".pyc", ".so")
"""Files with these are importable; those of .so may have the interpreter's name before it."""


@dataclass(frozen=True)
class ConfigPackageReport:
    """What a person sees of a config package. `conversion`: where the model was converted, how. `alerts`: suggested
    rules for its metrics, as Markdown. `server`: the lock that stands for the server's GPU runtime."""

    rows: list[CheckRow]
    files: list[dict[str, Any]]
    generation: Generation
    lock_was_kept: bool
    environment_was_kept: bool
    inspection: dict[str, Any]
    renumbering: Renumbering
    conversion: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    alerts: str = ""
    server: Lock | None = None

    @property
    def lock(self) -> Lock:
        """The lock that the package was made with."""
        return self.generation.lock


def make_config_package(  # noqa: PLR0915 - one step after the other
    key: ModelKey, context: TaskContext, was_approved: bool = False
) -> tuple[Artefact, ConfigPackageReport]:
    """Package the key's model version. `was_approved`: an approval is why it is packaged, so it must still stand.

    Raises ModelError, EnvironmentBuildError, ComponentError, NotFoundError, CorruptError, ApprovalError.
    """
    entry, implementation = context.entry(key), context.model_type(key)
    model = context.registry.get(Kind.MODEL, entry.model_name, key.version)
    if was_approved:
        check_still_approved(model)
    context.packaging.start()
    with context.work_folder() as work:
        path, digest = context.registry.view(model, work / "model"), model.resolve().digest
        source = implementation.read_model(path, entry, f"reading {model}")
        tagged, _ = implementation.tag_settings(model.tags, entry, {}, str(model))
        shipping = convert_model(key, source, context, work)
        source = replace(shipping.source, model={**shipping.source.model, **tagged})
        if not context.environments:  # no child has been started ahead: there is most likely an environment to build
            background_imports.start(implementation.host_imports)
        ahead = context.environment_ahead.take(key, context.log)
        generation, lock_was_kept = lock_of_source(source, entry, context)
        lock = inspected = generation.lock
        if source.packaged_requirements is not None:
            inspected = server_lock(source, lock.python, context)
        environment = context.environment(inspected)
        if ahead is not None and ahead.lock == lock.digest:  # this run has made them
            lock_was_kept = lock_was_kept and ahead.lock_was_kept
            environment = replace(environment, kept=environment.kept and ahead.environment_was_kept)
        # The child first: it is what this step waits for. What this process imports would slow down its start.
        context.sandbox.prepare(environment, context.child_imports(key, inspected))
        background_imports.start(implementation.host_imports)
        component = work / "component"
        laid_over = envelope_folders(key, context)
        folders = (*implementation.component_folders(entry, None), *laid_over)
        with model_errors(f"reading {model}"):
            _assemble(component, folders, source, work)
            implementation.finish_component(component, source)
        inspection = _inspect(key, context, environment, component, source)
        with model_errors(f"reading {model}"):
            shipped = (*implementation.component_folders(entry, inspection), *laid_over)
            if shipped != folders:
                shutil.rmtree(component)
                _assemble(component, shipped, source, work)
                implementation.finish_component(component, source)
            model_json = {**source.model, **implementation.component_settings(inspection)}
            _finish(component, model_json)
            several = implementation.pipeline(component, source, inspection, work / "pipeline")
        inspection = learn_envelope(key, component, inspection, environment, context)
        model_json |= {envelope.KEY: inspection[envelope.KEY]} if envelope.is_in(inspection) else {}
        spec = implementation.component_spec(inspection)
        if not several:
            _check_parameters(implementation, spec, component / "entrypoint.py")
        alerts = suggested_alerts(key, spec, inspection, context)
        _finish(component, model_json, alerts)

        def build(component: Path, spec: ComponentSpec, folder: Path) -> Path:
            try:
                if several:
                    return context.packaging.build_pipeline_package(
                        several, lock, entry.package_name, entry.description, folder
                    )
                return context.packaging.build_config_package(
                    component, spec, lock, entry.package_name, entry.description, folder
                )
            except ComponentRefusedError as error:
                raise PackageError(
                    f"{implementation}: component_spec declares what cannot be packaged, or the model ships a file "
                    f"that cannot: {error}"
                ) from None

        package = build(component, spec, work)
        renumbering = plan_renumbering(key, package, inspection, environment, work, context)
        tagged, tag_rows = implementation.tag_settings(model.tags, entry, renumbering.numbers, str(model))
        if renumbering.numbers:
            inspection = {**inspection, **tagged, KEY: list(map(list, renumbering.numbers.items()))}
            assert implementation.category_output is not None
            component, folder = work / "renumbered" / component.name, work / "renumbered"
            folder.mkdir()
            with model_errors(f"reading {model}"):
                _assemble(component, shipped, source, work)
                implementation.finish_component(component, source)
                put_in_front(component)
                numbers = renumbering_settings(implementation.category_output, renumbering.numbers)
                _finish(component, {**model_json, **tagged, **numbers}, alerts)
            package = build(component, implementation.component_spec(inspection), folder)
        if renumbering.is_compared:
            inspection = {**inspection, NUMBERED_LIKE: renumbering.predecessor}
        rows = [
            *context.packaging.config_package_rows(package, lock, [each.name for each in several] or [COMPONENT]),
            *saved_version_rows(source.saved_versions, inspected, entry), *source.parts,
            *implementation.inspection_rows(inspection, entry), *tag_rows, *renumbering.rows,
        ]  # fmt: skip
        contents = context.packaging.expected_contents(package, lock)
        artefact = Artefact(
            asset="config_package",
            partition=str(key),
            parts={
                "package": context.store.put_file(package, ZIP, move=True),
                "lock": context.store.put_json(lock.model_dump(mode="json")),
                "inspection": context.store.put_json(inspection),
                **({SERVER_LOCK: context.store.put_json(inspected.model_dump(mode="json"))} if several else {}),
                **shipping.parts,
            },
            facts={
                "model": {"name": model.name, "version": model.version, "digest": digest},
                **({NUMBERS_OF: renumbering.predecessor} if renumbering.numbers else {}),
                **shipping.facts,
                **failed_rows(rows),
            },
            made_from={"registered_model": digest},
            observations={CONTENTS: context.store.put_json(contents)},
        )
        if renumbering.compared is not None and not renumbering.numbers:  # else another package is what ships
            context.kept_run.keep(artefact, renumbering.compared, context.log)
        files = _listed({each.name: each.folder for each in several} or {"": component})
    kept = lock_was_kept, environment.kept
    server = inspected if several else None
    report = ConfigPackageReport(
        rows, files, generation, *kept, inspection, renumbering, shipping.metadata, alerts, server
    )
    return artefact, report


def _listed(components: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The files of components, by name -> folder, with their sizes."""
    return [
        {"file": (Path(name) / file.relative_to(folder)).as_posix(), "bytes": file.stat().st_size}
        for name, folder in components.items() for file in sorted(folder.rglob("*")) if file.is_file()
    ]  # fmt: skip


def server_lock(source: ModelSource, python: str, context: TaskContext) -> Lock:
    """The lock that stands for the server's GPU runtime. Raises EnvironmentBuildError saying that it is that one."""
    pinned = {canonicalize_name(Requirement(line).name) for line in source.requirements if "==" in line}
    # what the model was saved with says nothing of the server's own runtime
    bounds = tuple(line for line in source.constraints if canonicalize_name(Requirement(line).name) not in pinned)
    try:
        generation, _ = generation_for(
            source.requirements, python, context.store, context.settings.runtime, bounds, tell=context.log.info
        )
    except EnvironmentBuildError as error:
        raise EnvironmentBuildError(f"what stands for the server's GPU runtime cannot be locked: {error}") from error
    return generation.lock


def _assemble(component: Path, folders: Sequence[Path], source: ModelSource, work: Path) -> None:
    """Lay out the component's files. Of those of one name the last folder's ships, then the source's, then the first
    folder's. Files of the model in the folder `work`, which is this run's alone, are linked."""
    component.mkdir()
    first, *further = ({file.name: file for file in folder.glob("*.py")} for folder in folders)
    own_files = first | dict(source.component_files)
    for files in further:
        own_files |= files
    for name, file in sorted(own_files.items()):
        shutil.copyfile(file, component / name)
    ours = {"model.json", *own_files}
    for name, file in source.files.items():
        top = name.split("/")[0]
        hidden = top if top in ours else f"{_module(name)}.py"
        if hidden in ours:
            raise ModelError(
                f"the model ships {name}, which would hide the component's own {hidden}; rename the module or move it "
                "into a package"
            )
        target = component / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.is_relative_to(work):
            link_or_copy(file, target)
        else:
            shutil.copyfile(file, target)
    _finish(component, source.model)


def _finish(component: Path, model_json: Any, alerts: str = "") -> None:
    """Write what the packaging adds to the component's files."""
    text = json.dumps(model_json, indent=1, sort_keys=True) + "\n"
    (component / "model.json").write_text(text, encoding="utf-8")
    if alerts:
        (component / envelope.ALERTS_FILE).write_text(alerts, encoding="utf-8")


def _module(name: str) -> str | None:
    """The module or package that Python would import from a file of this name at the top of the component."""
    top, _, below = name.partition("/")
    if below:
        return top
    suffix = next((suffix for suffix in _MODULE_SUFFIXES if top.endswith(suffix)), None)
    return top.split(".")[0] if suffix else None


def _check_parameters(implementation: Plugin, spec: ComponentSpec, entrypoint: Path) -> None:
    """Raise a PluginError if parameters are declared that the component never gets: no run of it would show that."""
    text = entrypoint.read_text(encoding="utf-8", errors="replace")
    if spec.parameters and "update_parameters" not in text and "import *" not in text:
        names = ", ".join(parameter.name for parameter in spec.parameters)
        raise PluginError(
            f"{implementation}: component_spec declares the parameters {names}, but {entrypoint.name}, which ships, "
            "has no function update_parameters(params), which gets their values"
        )


def _inspect(
    key: ModelKey, context: TaskContext, environment: Environment, component: Path, source: ModelSource
) -> dict[str, Any]:
    """Let the component's own environment tell what the packaging must know of the model."""
    implementation, child_imports = context.model_type(key), context.child_imports(key, environment.lock)
    subject = f"inspecting the model of {key}"
    job = CallJob(component, implementation.folder / "child_tasks.py", "inspect_model", dict(source.arguments))
    try:
        with naming_plugin(implementation):
            answer = context.sandbox.run(subject, environment, child_imports, job)
    except (TaskFailedError, ChildDiedError) as error:
        python = {"python": source.python_version} if source.python_version else {}
        loading = Loading(environment, {**python, **source.saved_versions})
        origin = origin_of(
            component / str(source.model.get("file", "")), component, environment, child_imports, context.sandbox
        )
        raise explained(error, subject, f"inspect_model of {implementation}", loading, origin) from None
    with model_errors(subject):
        report = parse_report(f"{implementation}: inspect_model", implementation.inspection, answer)
        return report.model_dump(exclude_unset=True)
