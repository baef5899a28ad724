"""What ships, what the component declares, and which settings there are; the rest is in modules of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from edgepack_anomaly_detector import payload as payloads
from edgepack_anomaly_detector import scoring
from edgepack_assets.model_types.interface import (
    CheckRow,
    ComponentSpec,
    ModelError,
    ModelSource,
    ModelType,
    ModelTypeSettings,
    Payload,
    PayloadWriter,
    Prepped,
    Results,
    Score,
    Section,
    Text,
    UntrustedReport,
    Variable,
)
from edgepack_assets.model_types.model_folder.model_file import (
    SavedEnvironment,
    configured_requirements,
    find_model_file,
    merge_requirements,
    model_code,
    saved_environment,
)


class AnomalySettings(Section):
    """What stands under `settings` in edgepack.yaml."""

    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=500)]
    event_column: str = "event"
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @field_validator("columns")
    @classmethod
    def _columns_differ(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(columns)) != len(columns):
            raise ValueError("names a column twice")
        return columns


class Inspection(UntrustedReport):
    """What inspect_model returns."""

    model: Text
    columns: list[str]
    threshold: Annotated[float, Field(allow_inf_nan=False)]


class AnomalyDetector(ModelType):
    """Several columns in, a score and an alarm out."""

    interface_version: ClassVar[int] = 1
    settings: ClassVar[type[Section]] = AnomalySettings
    metric_names: ClassVar[frozenset[str]] = frozenset(scoring.METRICS)
    inspection: ClassVar[type[UntrustedReport]] = Inspection
    host_imports: ClassVar[tuple[str, ...]] = ("pyarrow.parquet", "sklearn.metrics")
    child_imports: ClassVar[Mapping[str, tuple[str, ...]]] = {"scikit-learn": ("sklearn.ensemble",)}

    def write_payload(
        self, raw: Path, tags: Mapping[str, str], writer: PayloadWriter, entry: ModelTypeSettings
    ) -> dict[str, Any]:
        """One record per row."""
        return payloads.write_payload(raw, writer, entry.settings.columns, entry.settings.event_column)

    def payload_rows(self, facts: Mapping[str, Any]) -> list[CheckRow]:
        """There are records, and events among them: without one there is nothing to find."""
        records, events = facts["records"], facts["events"]
        return [
            CheckRow("records", records > 0, str(records), "at least 1"),
            CheckRow("events", 0 < events < records, f"{events} of {records} records", "some, but not all records"),
        ]

    def read_model(self, model: Path, entry: ModelTypeSettings) -> ModelSource:
        """The pickled model, its code, and the requirements it was saved with."""
        root, file = find_model_file(model, (".joblib", ".pkl"))
        in_folder = model.is_dir()
        saved = saved_environment(root, entry) if in_folder else SavedEnvironment()
        if not saved.requirements and not configured_requirements(entry):
            raise ModelError(
                f"{file.name} says nothing of the packages it needs: name them under `requirements` of its model type "
                "in edgepack.yaml, e.g. scikit-learn==1.5.2 as in training"
            )
        return ModelSource(
            files=model_code(root if in_folder else None, entry, {file.name: file}),
            model={
                "file": file.name,
                "columns": list(entry.settings.columns),
                "threshold": entry.settings.threshold,
            },
            requirements=merge_requirements(saved.requirements, entry, ["numpy", "scikit-learn", "joblib"]),
            python_version=saved.python_version,
            constraints=saved.constraints,
            saved_versions=saved.versions,
            parts=saved.parts,
        )

    def component_settings(self, inspection: Mapping[str, Any]) -> Mapping[str, Any]:
        """The threshold, which may be the model's own."""
        return {"threshold": inspection["threshold"]}

    def component_spec(self, inspection: Mapping[str, Any]) -> ComponentSpec:
        """An input for each column."""
        return ComponentSpec(
            description=f"Scores {', '.join(inspection['columns'])} with a {inspection['model']}",
            inputs=tuple(Variable(name, "Double", f"Column {name} of the model") for name in inspection["columns"]),
            outputs=(
                Variable("score", "Double", "How unusual the record is"),
                Variable("alarm", "Boolean", f"Whether the score is at least {inspection['threshold']:g}"),
            ),
        )

    def score(
        self, payload: Payload, results: Results, prepped: Prepped | None, inspection: Mapping[str, Any]
    ) -> Score:
        """Alarms and scores against the labelled events."""
        return scoring.score(payload, results)

    def results_picture(self, payload: Payload, results: Results, inspection: Mapping[str, Any]) -> bytes:
        """Scores over the records, with threshold and events."""
        return scoring.draw(payload, results, inspection["threshold"])
