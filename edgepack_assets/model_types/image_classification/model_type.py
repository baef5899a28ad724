"""The image classification model type: each of the interface's questions, answered by the module for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.config.section import Section
from edgepack_assets.model_types import envelope
from edgepack_assets.model_types.envelope.fault_probes import FaultProbes
from edgepack_assets.model_types.image_classification import (
    contact_sheet,
    gpu,
    image_input,
    input_trial,
    keras_comparison,
    model_files,
    onnx_model,
    scoring,
)
from edgepack_assets.model_types.image_classification import payload as payloads
from edgepack_assets.model_types.image_classification.inspection import Inspection
from edgepack_assets.model_types.image_classification.settings import ImageClassificationSettings
from edgepack_assets.model_types.interface import (
    Compared,
    Comparison,
    ComponentSpec,
    ModelSource,
    ModelType,
    Payload,
    PayloadWriter,
    PipelineComponent,
    Prepped,
    Results,
    Score,
    SideJobs,
    Trial,
    Variable,
)
from edgepack_assets.sandbox.untrusted_values import UntrustedReport

_ENVELOPE_METRICS = (
    envelope.DISTANCE,
    Variable("envelope_repeated", "String", "How many images in a row before this one were the same"),
)


class ImageClassification(ModelType):
    """Photos in class folders, a .tflite, .onnx, Keras or TensorFlow model, one class index per image."""

    interface_version: ClassVar[int] = 1
    settings: ClassVar[type[Section]] = ImageClassificationSettings
    keys_beside_settings: ClassVar[frozenset[str]] = frozenset(
        {"input", "output", "conversion", "payload", "image_format", "runtime", "gpu"}
    )
    metric_names: ClassVar[frozenset[str]] = frozenset(scoring.METRICS)
    slices: ClassVar[frozenset[str]] = frozenset({"class", "folder"})
    sliced_metrics: ClassVar[frozenset[str]] = frozenset({scoring.METRICS[0]})
    category_output: ClassVar[str | None] = "prediction"
    envelope_per: ClassVar[str | None] = "image"
    envelope_tasks: ClassVar[str] = "child_image_envelope.py"
    inspection: ClassVar[type[UntrustedReport]] = Inspection
    host_imports: ClassVar[tuple[str, ...]] = ("PIL.Image", "sklearn.metrics")
    child_imports: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "numpy": ("numpy",),
        "pillow": ("PIL.Image",),
        "ai-edge-litert": ("ai_edge_litert.interpreter",),
        "onnxruntime": ("onnxruntime",),
    }

    def write_payload(
        self, raw: Path, tags: Mapping[str, str], writer: PayloadWriter, entry: ModelTypeSettings
    ) -> dict[str, Any]:
        """One record per image."""
        return payloads.write_payload(raw, tags, writer, entry.settings)

    def write_recording(
        self, recording: Path, writer: PayloadWriter, entry: ModelTypeSettings, work: Path
    ) -> dict[str, Any]:
        """An image, a folder of images, or one of class folders."""
        return payloads.write_recording(recording, writer, entry.settings, work)

    def component_folders(self, entry: ModelTypeSettings, inspection: Mapping[str, Any] | None) -> tuple[Path, ...]:
        """component/, and for image sets what takes these."""
        base = self.folder / "component"
        return (base, self.folder / "component_image_set") if entry.settings.payload == "image_set" else (base,)

    def payload_rows(self, facts: Mapping[str, Any]) -> list[CheckRow]:
        """There are images, each is a record, every class has some."""
        return payloads.payload_rows(facts)

    def read_model(self, model: Path, entry: ModelTypeSettings) -> ModelSource:
        """The .tflite or .onnx file and what runs it, or what becomes a .tflite file."""
        return model_files.read_model(model, entry)

    def finish_component(self, component: Path, source: ModelSource) -> None:
        """The weights of a large .onnx file are put beside it."""
        onnx_model.split_large_weights(component, source.model)

    def component_spec(self, inspection: Mapping[str, Any]) -> ComponentSpec:
        """An image in, its class and the probability out."""
        entered = inspection["input"]
        return ComponentSpec(
            description=(
                f"Classifies an image into one of {inspection['output']['classes']} classes, "
                f"scaled to {entered['width']}x{entered['height']}"
            ),
            inputs=(
                Variable(payloads.INPUT, "ImageSet", "image set of a camera, in any format that the AI SDK converts")
                if inspection.get("payload") == "image_set"
                else Variable(payloads.INPUT, "String", "JSON with the image as a data URI of a PNG or JPEG"),
            ),
            outputs=(Variable("prediction", "String", "index of the most probable class"),),
            metrics=(
                Variable("ic_probability", "String", "probability of the prediction"),
                *(_ENVELOPE_METRICS if envelope.is_in(inspection) else ()),
            ),
        )

    def pipeline(
        self, component: Path, source: ModelSource, inspection: Mapping[str, Any], work: Path
    ) -> tuple[PipelineComponent, ...]:
        """Three where the model runs on the GPU runtime."""
        return gpu.pipeline(component, source, inspection, self.component_spec(inspection), work)

    def component_settings(self, inspection: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the component need not find out again of the model."""
        settings: Mapping[str, Any] = inspection["component"]
        return settings

    def inspection_rows(self, inspection: Mapping[str, Any], entry: ModelTypeSettings) -> list[CheckRow]:
        """How images enter the model, and whether scores come out."""
        rows = image_input.rows(inspection, entry)
        configured, found = entry.settings.payload, inspection.get("payload") or "json"
        if (configured, found) != ("json", "json"):
            rows.append(CheckRow("payload", configured == found, found, configured))
        return rows + gpu.rows(entry.settings)

    def category_names(self, payload: Payload, inspection: Mapping[str, Any]) -> Mapping[str, str]:
        """Index of a class -> its folder in the raw data."""
        return {str(label): name for label, name in payloads.class_folders(payload).items()}

    def trial(
        self, payload: Payload, results: Results, inspection: Mapping[str, Any], entry: ModelTypeSettings, work: Path
    ) -> Trial | None:
        """The usual ways in which images enter a model, where none is configured."""
        return None if entry.settings.given else input_trial.plan(payload, results, inspection, work)

    def probes(
        self, payload: Payload, results: Results, inspection: Mapping[str, Any], entry: ModelTypeSettings, work: Path
    ) -> Trial | None:
        """Faults of cameras, on a few images."""
        return FaultProbes(payload.records, payload.count, warns=entry.fault_probes == "warn")

    def compare(self, compared: Compared, entry: ModelTypeSettings, jobs: SideJobs, work: Path) -> Comparison:
        """The answers of a converted Keras or TensorFlow model, and the original's."""
        return keras_comparison.compare(compared, entry, jobs, work)

    def score(
        self, payload: Payload, results: Results, prepped: Prepped | None, inspection: Mapping[str, Any]
    ) -> Score:
        """Accuracy, and macro averages of precision, recall and F1."""
        return scoring.score(payload, results, inspection)

    def results_picture(self, payload: Payload, results: Results, inspection: Mapping[str, Any]) -> bytes:
        """A sheet of a few images with their answers."""
        return contact_sheet.draw(payload, results)
