"""The state identifier behind the model type interface: what ships, what is declared; the rest is delegated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.errors import ModelError
from edgepack_assets.model_types import envelope
from edgepack_assets.model_types.envelope.fault_probes import FaultProbes
from edgepack_assets.model_types.interface import (
    Answered,
    ComponentSpec,
    ModelSource,
    ModelType,
    Parameter,
    Payload,
    PayloadWriter,
    Prepped,
    Results,
    Score,
    Trial,
    Variable,
)
from edgepack_assets.model_types.model_folder.model_file import (
    SavedEnvironment,
    configured_requirements,
    find_model_file,
    merge_requirements,
    model_code,
    read_mlmodel,
    saved_environment,
)
from edgepack_assets.model_types.model_folder.saved_versions import is_lz4, versions_in_file
from edgepack_assets.model_types.renumbering import shipped
from edgepack_assets.model_types.state_identifier import (
    comparison_figure,
    figures,
    payload,
    scoring,
    state_names,
    state_tags,
)
from edgepack_assets.model_types.state_identifier.inspection import (
    Inspection,
    channels_of,
    component_settings,
    inspection_rows,
    period_of,
    seconds_of,
)
from edgepack_assets.model_types.state_identifier.preparation import WindowFeatures
from edgepack_assets.model_types.state_identifier.settings import PERIOD_MS, PHASES, StateIdentifierSettings

_FORMATS = {".pkl": "joblib", ".pickle": "joblib", ".joblib": "joblib", ".skops": "skops"}
# joblib reads plain pickles too, and a .pkl may well have been written by joblib
_ENVELOPE_METRICS = (
    envelope.DISTANCE,
    Variable("envelope_outside", "String", "Share of the window's values beyond the range that it was proven on"),
    Variable("envelope_missing", "String", "Share of the window's values that are missing"),
)
_ENVIRONMENT_FILES = ("requirements.txt", "conda.yaml", "python_env.yaml")


class StateIdentifier(ModelType):
    """Windows of a recording's channels in, by default three phases of power; the number of the machine state out."""

    interface_version = 1
    settings = StateIdentifierSettings
    keys_beside_settings = frozenset(StateIdentifierSettings.model_fields)
    metric_names = scoring.ALWAYS | scoring.OPTIONAL
    optional_metrics = scoring.OPTIONAL
    metric_settings = dict.fromkeys(scoring.LABELLED, "label_column")
    lower_is_better = frozenset({"inertia", "bic"})
    no_intervals: ClassVar[Mapping[str, str]] = {
        "inertia": "it is of the data that the model was trained on, and the same on every recording",
        "dunn_index": "it is a ratio of two extremes, of which resampling says nothing",
    }
    slices = frozenset({"hour", "label"})
    sliced_metrics = frozenset({"silhouette", "mean_log_likelihood", "accuracy"})
    category_output = "prediction"
    envelope_per = "window"
    inspection = Inspection
    preparation = WindowFeatures()
    host_imports: ClassVar[tuple[str, ...]] = ("pyarrow.parquet",)
    child_imports: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "numpy": ("numpy",),
        "joblib": ("joblib",),
        "scikit-learn": ("sklearn.cluster", "sklearn.pipeline", "sklearn.preprocessing", "sklearn.impute"),
        "pandas": ("pandas",),
        "skops": ("skops.io",),
    }

    def component_folders(self, entry: ModelTypeSettings, inspection: Mapping[str, Any] | None) -> tuple[Path, ...]:
        """component/, and where the model needs it component_general/."""
        base = self.folder / "component"
        if inspection is not None and "estimator" not in inspection["component"]:
            return (base,)
        return (base, self.folder / "component_general")

    def write_payload(
        self, raw: Path, tags: Mapping[str, str], writer: PayloadWriter, entry: ModelTypeSettings
    ) -> dict[str, Any]:
        """One record per row of the Parquet file, holding exactly the channels."""
        return payload.write_payload(raw, writer, entry.settings)

    def payload_rows(self, facts: Mapping[str, Any]) -> list[CheckRow]:
        """The columns, and that each holds values."""
        return payload.payload_rows(facts)

    def read_model(self, model: Path, entry: ModelTypeSettings) -> ModelSource:
        """The pickle or skops file, its own code, and the requirements it was saved with."""
        root, file = find_model_file(model, tuple(_FORMATS))
        in_folder = model.is_dir()
        saved = saved_environment(root, entry) if in_folder else SavedEnvironment()
        if not saved.requirements and not configured_requirements(entry):
            silent = [name for name in _ENVIRONMENT_FILES if in_folder and (root / name).is_file()]
            found = f"{' and '.join(silent)} name{'s' * (len(silent) == 1)} none" if silent else (
                "there is no MLflow requirements.txt beside it"
            )  # fmt: skip
            raise ModelError(
                f"{file.name} says nothing of the packages it needs ({found}): "
                "name them under `requirements` or `requirements_file` of its model type in edgepack.yaml, "
                "e.g. scikit-learn==1.5.2 as in training"
            )
        kind = _FORMATS[file.suffix.lower()]
        needed = ["numpy", "scikit-learn", "skops" if kind == "skops" else "joblib", *["lz4"] * is_lz4(file)]
        return ModelSource(
            files=model_code(root if in_folder else None, entry, {file.name: file}),
            model={
                "file": file.name,
                "format": kind,
                **_signature(root, in_folder),
                **_columns(entry.settings.columns),
                **_recorded(entry.settings),
            },
            requirements=merge_requirements(saved.requirements, entry, needed),
            python_version=saved.python_version,
            constraints=saved.constraints,
            saved_versions={**saved.versions, **versions_in_file(file)},
            parts=saved.parts,
        )

    def tag_settings(
        self, tags: Mapping[str, str], entry: ModelTypeSettings, numbers: Mapping[Any, Any]
    ) -> tuple[Mapping[str, Any], list[CheckRow]]:
        """Names of states, of the configuration too."""
        names, rows = state_tags.merged(entry.settings.state_names, tags, numbers)
        return state_names.as_json(names), rows

    def component_spec(self, inspection: Mapping[str, Any]) -> ComponentSpec:
        """The channels as inputs, the state and what the model tells with it, three metrics of the window, the
        parameter step_size."""
        channels, period = channels_of(inspection), period_of(inspection)
        every = f"one value every {period} ms"
        size, is_default = inspection["window_size"], channels == PHASES and period == PERIOD_MS
        length = "" if is_default else f", {seconds_of(size, period)},"
        kind = "Class" if "classes" in inspection else "Cluster"
        outputs = [Variable("prediction", "Integer", f"{kind} of the window: the machine's state")]
        if inspection.get("inertia") is not None:
            outputs.append(Variable("inertia", "Double", "Inertia of the fitted clustering"))
        if "classes" in inspection["component"]:
            outputs.append(Variable("state_name", "String", "Name of the class"))
        return ComponentSpec(
            description=state_names.with_names(
                f"Answers windows of {size} records{length} with the machine's state", inspection
            ),
            inputs=tuple(
                Variable(
                    name,
                    "Double",
                    f"Power on phase {PHASES.index(name) + 1}, {every}" if channels == PHASES else f"{name}, {every}",
                )
                for name in channels
            ),
            outputs=tuple(outputs),
            metrics=(
                Variable("model_input_min", "String", "Smallest value in the window"),
                Variable("model_input_max", "String", "Largest value in the window"),
                Variable("model_input_mean", "String", "Mean of the window"),
                *(_ENVELOPE_METRICS if envelope.is_in(inspection) else ()),
            ),
            parameters=(
                Parameter("step_size", "Integer", inspection["window_step"], "Records from one answer to the next"),
            ),
            periodicity=period,
        )

    def component_settings(self, inspection: Mapping[str, Any]) -> Mapping[str, Any]:
        """How the component gives a window to the model."""
        return component_settings(inspection)

    def numbers_are_free(self, inspection: Mapping[str, Any]) -> bool:
        """Those of clusters are; classes, and the 1 and -1 of a detector of outliers, mean something."""
        return inspection.get("classes") is None and inspection.get("states") is None

    def categories(self, inspection: Mapping[str, Any]) -> Sequence[int] | None:
        """The clusters from 0 up, a classifier's classes, or what else the model tells."""
        return scoring.states_of(inspection)

    def category_names(self, payload: Payload, inspection: Mapping[str, Any]) -> Mapping[str, str]:
        """State of a classifier -> its class; of others -> its name, of those that have one."""
        names = scoring.class_names(inspection) or state_names.names_of(inspection)
        return {str(state): name for state, name in names.items()}

    def inspection_rows(self, inspection: Mapping[str, Any], entry: ModelTypeSettings) -> list[CheckRow]:
        """Whether the model is as configured, has the metrics that the gates name, and the states that have names."""
        states = shipped(self.categories(inspection), inspection)
        return [*inspection_rows(inspection, entry), *state_names.names_rows(inspection, states)]

    def probes(
        self, payload: Payload, results: Results, inspection: Mapping[str, Any], entry: ModelTypeSettings, work: Path
    ) -> Trial | None:
        """Faults of the channels, on stretches of the recording."""
        return FaultProbes(payload.records, payload.count, warns=entry.fault_probes == "warn")

    def score(
        self, payload: Payload, results: Results, prepped: Prepped | None, inspection: Mapping[str, Any]
    ) -> Score:
        """How well the answers separate the prepped data, how well the model fits them, and where the recording has
        labels, how well the answers agree with these."""
        assert prepped is not None
        return scoring.score(results, prepped, inspection, payload)

    def results_picture(self, payload: Payload, results: Results, inspection: Mapping[str, Any]) -> bytes:
        """The channels over time with the answered states behind them."""
        return figures.states(payload, results, inspection, channels_of(inspection), period_of(inspection))

    def comparison_picture(self, payload: Payload, before: Answered, now: Answered) -> bytes | None:
        """The states that both answered, above each other over the same time."""
        known = now.inspection or before.inspection
        if known is None:
            return None
        return comparison_figure.states_of_both(payload, before, now, channels_of(known), period_of(known))

    def write_recording(
        self, recording: Path, writer: PayloadWriter, entry: ModelTypeSettings, work: Path
    ) -> dict[str, Any]:
        """A recording of the channels; it needs no labels."""
        settings = entry.settings.model_copy(update={"label_column": None})
        return payload.write_payload(recording, writer, settings)


def _signature(root: Path, in_folder: bool) -> dict[str, Any]:
    """The columns that MLmodel's signature names. Numbers from 0 up are an array's."""
    names = read_mlmodel(root).signature.columns if in_folder else []
    return {"signature": names} if names != [str(number) for number in range(len(names))] else {}


def _columns(configured: Mapping[str, str] | tuple[str, ...] | None) -> dict[str, Any]:
    """`columns` of the configuration as model.json has it until the inspection has looked at the model."""
    if configured is None:
        return {}
    if isinstance(configured, Mapping):
        return {"columns": list(configured.values()), "names": list(configured)}
    return {"columns": list(configured)}


def _recorded(settings: StateIdentifierSettings) -> dict[str, Any]:
    """What model.json has of channels, period and windows: only what is not the default, so that other packages stay
    as they are."""
    windows = settings.windows
    return {
        **({"channels": list(settings.channels)} if settings.channels != PHASES else {}),
        **({"period_ms": settings.sampling_period_ms} if settings.sampling_period_ms != PERIOD_MS else {}),
        **({"windows_setting": windows.model_dump(exclude_none=True)} if windows is not None else {}),
    }
