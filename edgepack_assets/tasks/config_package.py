"""From a registered model to a pipeline configuration package: lock, environment, inspection, package."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgepack_assets.artefacts.artefact import Artefact, Blob
from edgepack_assets.checks import CheckRow
from edgepack_assets.environments.environment import Environment
from edgepack_assets.environments.lock import Generation, Lock
from edgepack_assets.errors import ComponentRefusedError, PackageError
from edgepack_assets.model_types import Plugin, envelope
from edgepack_assets.model_types.interface import ModelSource, PipelineComponent
from edgepack_assets.model_types.model_folder.bounded_files import model_errors
from edgepack_assets.model_types.model_folder.model_failures import Loading, explained, origin_of
from edgepack_assets.model_types.model_folder.saved_versions import saved_version_rows
from edgepack_assets.model_types.renumbering import KEY, put_in_front
from edgepack_assets.model_types.renumbering import settings as renumbering_settings
from edgepack_assets.packaging.stamp import COMPONENT
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.approval import check_still_approved
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.sandbox.child_death import ChildDiedError
from edgepack_assets.sandbox.jobs import CallJob
from edgepack_assets.sandbox.sandbox import TaskFailedError
from edgepack_assets.sandbox.untrusted_values import parse_report
from edgepack_assets.tasks.ahead import background_imports
from edgepack_assets.tasks.component_environment import ComponentEnvironment, component_environment
from edgepack_assets.tasks.component_files import assemble, check_parameters, write_settings
from edgepack_assets.tasks.context import CONTENTS, SERVER_LOCK, TaskContext
from edgepack_assets.tasks.conversion import Shipping, convert_model
from edgepack_assets.tasks.envelope import envelope_folders, learn_envelope, suggested_alerts
from edgepack_assets.tasks.failed_checks import failed_rows
from edgepack_assets.tasks.packages.tags import NUMBERS_OF
from edgepack_assets.tasks.plugin_faults import naming_plugin
from edgepack_assets.tasks.predecessor.renumbering import NUMBERED_LIKE, Renumbering, plan_renumbering

ZIP = "application/zip"
_RENUMBERED = "renumbered"
"""Folder of the component whose states get other numbers."""


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


def make_config_package(
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
    subject = f"reading {model}"
    with context.work_folder() as work:
        shipping = _read(key, model, subject, context, work)
        source, digest = shipping.source, model.resolve().digest
        if not context.environments:  # no child has been started ahead: there is most likely an environment to build
            background_imports.start(implementation.host_imports)
        made = component_environment(key, source, entry, context)
        # The child first: it is what this step waits for. What this process imports would slow down its start.
        context.sandbox.prepare(made.environment, context.child_imports(key, made.inspected))
        background_imports.start(implementation.host_imports)
        component = _inspected(key, source, made.environment, subject, context, work)
        package = _build(key, component, made.lock, context, work)
        renumbering = plan_renumbering(key, package, component.inspection, made.environment, work, context)
        tagged, tag_rows = implementation.tag_settings(model.tags, entry, renumbering.numbers, str(model))
        if renumbering.numbers:
            component = _renumbered(key, component, renumbering.numbers, tagged, subject, context, work)
            package = _build(key, component, made.lock, context, work / _RENUMBERED)
        if renumbering.is_compared:
            component = component.knowing({NUMBERED_LIKE: renumbering.predecessor})
        rows = [
            *context.packaging.config_package_rows(package, made.lock, list(component.folders)),
            *saved_version_rows(source.saved_versions, made.inspected, entry), *source.parts,
            *implementation.inspection_rows(component.inspection, entry), *tag_rows, *renumbering.rows,
        ]  # fmt: skip
        contents = context.packaging.expected_contents(package, made.lock)
        artefact = Artefact(
            asset="config_package",
            partition=str(key),
            parts={**_parts(component, package, made, context), **shipping.parts},
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
        files = _listed(component.folders if component.pipeline else {"": component.folder})
    server = made.inspected if component.pipeline else None
    report = ConfigPackageReport(
        rows, files, made.generation, made.lock_was_kept, made.environment.kept, component.inspection, renumbering,
        shipping.metadata, component.alerts, server,
    )  # fmt: skip
    return artefact, report


@dataclass(frozen=True)
class _Component:
    """A component that was inspected. `own_folders`: those of the model type whose files it ships; `pipeline`: the
    components that ship in its place, if there are several; `settings`: what model.json holds."""

    folder: Path
    source: ModelSource
    own_folders: tuple[Path, ...]
    pipeline: tuple[PipelineComponent, ...]
    inspection: dict[str, Any]
    settings: dict[str, Any]
    alerts: str

    @property
    def folders(self) -> dict[str, Path]:
        """Name -> folder, of each component that ships."""
        return {each.name: each.folder for each in self.pipeline} or {COMPONENT: self.folder}

    def knowing(self, found: Mapping[str, Any]) -> _Component:
        """The same with more in its inspection."""
        return replace(self, inspection={**self.inspection, **found})


def _read(key: ModelKey, model: RegisteredVersion, subject: str, context: TaskContext, work: Path) -> Shipping:
    """What ships of the registered model, converted if need be."""
    entry, implementation = context.entry(key), context.model_type(key)
    path = context.registry.view(model, work / "model")
    source = implementation.read_model(path, entry, subject)
    tagged, _ = implementation.tag_settings(model.tags, entry, {}, str(model))
    shipping = convert_model(key, source, context, work)
    return replace(shipping, source=replace(shipping.source, model={**shipping.source.model, **tagged}))


def _inspected(  # noqa: PLR0917 - what is inspected, and where
    key: ModelKey, source: ModelSource, environment: Environment, subject: str, context: TaskContext, work: Path
) -> _Component:
    """Lay out the component, inspect it, and lay it out anew if it turns out to need other files."""
    entry, implementation = context.entry(key), context.model_type(key)
    folder, laid_over = work / "component", envelope_folders(key, context)
    own_folders = (*implementation.component_folders(entry, None), *laid_over)
    with model_errors(subject):
        _lay_out(folder, own_folders, source, implementation, work)
    inspection = _inspect(key, context, environment, folder, source)
    with model_errors(subject):
        needed = (*implementation.component_folders(entry, inspection), *laid_over)
        if needed != own_folders:
            shutil.rmtree(folder)
            _lay_out(folder, needed, source, implementation, work)
        settings = {**source.model, **implementation.component_settings(inspection)}
        write_settings(folder, settings)
        pipeline = implementation.pipeline(folder, source, inspection, work / "pipeline")
    inspection = learn_envelope(key, folder, inspection, environment, context)
    settings |= {envelope.KEY: inspection[envelope.KEY]} if envelope.is_in(inspection) else {}
    alerts = suggested_alerts(key, implementation.component_spec(inspection), inspection, context)
    write_settings(folder, settings, alerts)
    return _Component(folder, source, needed, pipeline, inspection, settings, alerts)


def _lay_out(
    folder: Path, own_folders: Sequence[Path], source: ModelSource, implementation: Plugin, work: Path
) -> None:
    assemble(folder, own_folders, source, work)
    implementation.finish_component(folder, source)


def _build(key: ModelKey, component: _Component, lock: Lock, context: TaskContext, folder: Path) -> Path:
    entry, packaging, implementation = context.entry(key), context.packaging, context.model_type(key)
    names = entry.package_name, entry.description
    try:
        if component.pipeline:
            return packaging.build_pipeline_package(component.pipeline, lock, *names, folder)
        spec = implementation.component_spec(component.inspection)
        check_parameters(implementation, spec, component.folder / "entrypoint.py")
        return packaging.build_config_package(component.folder, spec, lock, *names, folder)
    except ComponentRefusedError as error:
        raise PackageError(
            f"{implementation}: component_spec declares what cannot be packaged, or the model ships a file that "
            f"cannot: {error}"
        ) from None


def _renumbered(  # noqa: PLR0917 - what is laid out, and where
    key: ModelKey, component: _Component, numbers: Mapping[Any, Any], tagged: Mapping[str, Any], subject: str,
    context: TaskContext, work: Path,
) -> _Component:  # fmt: skip
    """The component with what gives its states other numbers. `tagged`: what tags of the model say then."""
    implementation = context.model_type(key)
    assert implementation.category_output is not None
    folder = work / _RENUMBERED / component.folder.name
    folder.parent.mkdir()
    settings = {**component.settings, **tagged, **renumbering_settings(implementation.category_output, numbers)}
    with model_errors(subject):
        _lay_out(folder, component.own_folders, component.source, implementation, work)
        put_in_front(folder)
        write_settings(folder, settings, component.alerts)
    return replace(component, folder=folder, settings=settings).knowing(
        {**tagged, KEY: list(map(list, numbers.items()))}
    )


def _parts(component: _Component, package: Path, made: ComponentEnvironment, context: TaskContext) -> dict[str, Blob]:
    """Of the artefact. The package is moved into the store."""
    store = context.store
    parts = {
        "package": store.put_file(package, ZIP, move=True),
        "lock": store.put_json(made.lock.model_dump(mode="json")),
        "inspection": store.put_json(component.inspection),
    }
    if component.pipeline:
        parts[SERVER_LOCK] = store.put_json(made.inspected.model_dump(mode="json"))
    return parts


def _listed(components: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The files of components, by name -> folder, with their sizes."""
    return [
        {"file": (Path(name) / file.relative_to(folder)).as_posix(), "bytes": file.stat().st_size}
        for name, folder in components.items() for file in sorted(folder.rglob("*")) if file.is_file()
    ]  # fmt: skip


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
