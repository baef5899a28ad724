"""How a Keras or TensorFlow model that classifies images becomes the component's .tflite file.

What can be read without running anything is read first, so that most models that cannot be converted are refused
before TensorFlow is installed. The rest is done by keras_models/child_tasks.py, as side jobs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from packaging.version import InvalidVersion, Version
from pydantic import Field

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.errors import ModelError
from edgepack_assets.model_types import keras_models
from edgepack_assets.model_types.interface import Conversion, Converted, ModelSource, Payload, SideJob, SideJobs
from edgepack_assets.model_types.keras_models.keras_config import LEARNED, Described, means_tell
from edgepack_assets.model_types.keras_models.original import Original, read_keras, read_texts
from edgepack_assets.model_types.keras_models.saved_model import read_signatures, refuse_call, shape_text
from edgepack_assets.model_types.keras_models.settings import ConversionSettings
from edgepack_assets.model_types.records import copy_records
from edgepack_assets.sandbox.untrusted_values import Text, UntrustedReport, parse_report

FILE = "model.tflite"
CHILD_TASKS = Path(keras_models.__file__).with_name("child_tasks.py")
_READS_HDF5 = ("h5py>=3.11,<4",)
_WITH = ("ai-edge-litert>=2.0,<3", "pillow>=10.4")
_TENSORFLOW = (">=2.18", "<2.22")
"""The versions that this was tried with. A lock takes one, and stays with it until it is refreshed."""
REQUIREMENTS: Mapping[int, tuple[str, ...]] = {
    3: (f"tensorflow-cpu{','.join(_TENSORFLOW)}", *_WITH),
    # tf-keras requires tensorflow itself: with tensorflow-cpu beside it, both would write the same files
    2: (f"tensorflow{','.join(_TENSORFLOW)}", f"tf-keras{','.join(_TENSORFLOW)}", *_WITH),
}
"""Generation of Keras -> what loads and converts its models. Either one takes SavedModels."""
_KERAS = {3: "keras", 2: "tf-keras"}
_TITLES = {"keras": ".keras file", "hdf5": "HDF5 file", "saved_model": "SavedModel"}
_PIXELS = {"range", "mean", "std"}
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Texts(UntrustedReport):
    keras_version: Annotated[str, Field(max_length=50)] | None
    configuration: Annotated[str, Field(max_length=4 << 20)] | None


class _Means(UntrustedReport):
    means: Annotated[list[_Number], Field(max_length=3)] | None


class _ConversionReport(UntrustedReport):
    versions: Annotated[dict[Text, Text], Field(max_length=5)]
    difference: Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class KerasConversion(Conversion):
    """The conversion of one model. `code`: path -> file of the model's own code, for custom layers."""

    original: Original
    code: Mapping[str, Path]
    entry: ModelTypeSettings

    def convert(self, source: ModelSource, component: Path, jobs: SideJobs, work: Path) -> Converted:
        """The .tflite file, with what is known of how an image enters it."""
        original, settings = self.original, _settings(self.entry)
        code = self._code_folder(work)
        described = self._described(component, settings, jobs, work)
        if described is not None:
            self._refuse(described, settings, has_code=code is not None)
        generation = 3 if described is None else described.keras
        requirements = REQUIREMENTS[generation]
        versions = jobs.versions(requirements)
        if described is not None:
            _refuse_newer(original.name, described.version, _KERAS[generation], versions)
        inputs = {"model": original.path, **({"code": code} if code else {})}
        loading = {
            "kind": original.kind, "keras": generation, "signature": settings.signature,
            "allow_lambda": settings.allow_lambda,
        }  # fmt: skip
        job = side_job(component, work, requirements, inputs)
        known = self._known_pixels(described, job, loading, jobs)
        arguments = {**loading, "to": settings.to, "input": _entered(known, self.entry)}
        calibration: dict[str, Any] = {}
        if settings.to == "full_integer":
            records, count = _representative(jobs.payload(), settings.records, work)
            job = replace(job, inputs={**inputs, "records": records})
            calibration = {"representative_records": count}
        subject = f"converting {original.name} to TensorFlow Lite"
        result = jobs.run(subject, replace(job, function="convert", arguments=arguments, outputs=("converted",)))
        report = parse_report(subject, _ConversionReport, result.returned)
        file = work / FILE
        shutil.copyfile(result.outputs["converted"], file)
        title = f"{_TITLES[original.kind]}, {_saved_by(described)}"
        by = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
        row = CheckRow(
            "converted to TensorFlow Lite", True,
            f"{original.name} ({title}) to {settings.to} by {by}; scores of test images differ by at most "
            f"{report.difference:.2g}",
            "a file that answers; validation_results compares its answers with the original's",
        )  # fmt: skip
        return Converted(
            source=replace(
                source, files={FILE: file}, model={**source.model, "metadata": known}, parts=(*source.parts, row)
            ),
            record={"requirements": list(requirements), "arguments": loading, "to": settings.to, **calibration},
            original=inputs,
            metadata={
                "converted_from": f"{original.name} ({title})", "converted_to": settings.to, "converted_by": by,
                "conversion_reused": result.kept, **calibration,
            },
        )  # fmt: skip

    def _code_folder(self, work: Path) -> Path | None:
        if not self.code:
            return None
        folder = work / "code"
        for name, file in self.code.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return folder

    def _described(self, component: Path, settings: ConversionSettings, jobs: SideJobs, work: Path) -> Described | None:
        if self.original.kind == "keras":
            return read_keras(self.original)
        if self.original.kind == "saved_model":
            signatures = read_signatures(self.original.path, self.original.name)
            refuse_call(self.original.name, signatures, settings.signature)
            [entered] = signatures[settings.signature].inputs.values()
            _refuse_shape(self.original.name, entered.shape)
            return None
        subject = f"reading {self.original.name}"
        job = side_job(component, work, _READS_HDF5, {"model": self.original.path})
        texts = parse_report(subject, _Texts, jobs.run(subject, replace(job, function="read_hdf5")).returned)
        return read_texts(self.original, texts.keras_version, texts.configuration)

    def _refuse(self, described: Described, settings: ConversionSettings, *, has_code: bool) -> None:
        name = self.original.name
        if described.lambdas and not settings.allow_lambda:
            raise ModelError(
                f"{name}: its Lambda layers ({_listed(described.lambdas)}) hold Python code of whoever saved it. "
                "Replace them by layers, or, to let that code run in the sandbox, set conversion.allow_lambda: true"
            )
        if described.custom and not has_code:
            raise ModelError(
                f"{name}: it needs classes or functions that are not Keras' own ({_listed(described.custom)}): name "
                "the Python files that define them under code_paths"
            )
        _refuse_shape(name, described.shape)

    def _known_pixels(
        self, described: Described | None, job: SideJob, loading: Mapping[str, Any], jobs: SideJobs
    ) -> dict[str, Any]:
        """What the model's own layers tell of its input, as metadata (child_tasks.read_metadata)."""
        pixels = described.pixels if described is not None else None
        if pixels is None:
            return {"source": None, "input": {}, "labels": None, "notes": []}
        pixel_range = pixels.range
        if pixel_range is None and pixels.by == LEARNED:
            subject = f"reading the normalization of {self.original.name}"
            returned = jobs.run(subject, replace(job, function="learned_means", arguments=loading)).returned
            pixel_range = means_tell(parse_report(subject, _Means, returned).means or [])
        given = {} if pixel_range is None else {"range": pixel_range}
        return {"source": f"the model's own {pixels.by}", "input": given, "labels": None, "notes": []}


def _refuse_shape(name: str, shape: tuple[int | None, ...] | None) -> None:
    if shape is None:
        return  # TensorFlow must tell
    if len(shape) != 4:
        raise ModelError(
            f"{name}: its input is {shape_text(shape)}, not batch, height, width and channels: it takes no images, so "
            "it is no image classifier"
        )
    if None in shape[1:]:
        raise ModelError(
            f"{name}: its input is {shape_text(shape)}: height, width and channels are not all fixed, and a "
            "TensorFlow Lite file is for one size; save the model with a fixed one, as Input(shape=(224, 224, 3))"
        )


def _representative(payload: Payload, most: int, work: Path) -> tuple[Path, int]:
    """Records of the payload, evenly from all of it, as a file; and how many."""
    records, count = work / "representative.gz", min(most, payload.count)
    copy_records(payload.records, {(2 * i + 1) * payload.count // (2 * count) for i in range(count)}, records)
    return records, count


def _entered(known: Mapping[str, Any], entry: ModelTypeSettings) -> dict[str, Any]:
    """How an image enters the model, as the component will do it (child_tasks.inspect_model)."""
    configured: dict[str, Any] = entry.settings.given
    return configured if _PIXELS & configured.keys() else {**known["input"], **configured}


def _settings(entry: ModelTypeSettings) -> ConversionSettings:
    return entry.settings.conversion or ConversionSettings()


def side_job(component: Path, work: Path, requirements: tuple[str, ...], inputs: Mapping[str, Path]) -> SideJob:
    """A side job whose function and arguments are still to be named, beside the code of the folder `component`."""
    folder = work / "component-code"
    if not folder.is_dir():
        folder.mkdir()
        for file in sorted(component.glob("*.py")):
            shutil.copyfile(file, folder / file.name)
    return SideJob(requirements, folder, CHILD_TASKS, "", {}, inputs)


def _refuse_newer(name: str, saved: str, package: str, versions: Mapping[str, str]) -> None:
    """A newer Keras may have saved what an older one does not know, or knows as something else."""
    ours = versions.get(package)
    try:
        # TensorFlow's own Keras was called 2.2.4-tf once
        is_newer = ours is not None and Version(saved.removesuffix("-tf")).release[:2] > Version(ours).release[:2]
    except InvalidVersion:
        raise ModelError(f"{name}: was saved by Keras {saved!r:.50}, which is no version") from None
    if is_newer:
        raise ModelError(
            f"{name}: was saved by Keras {saved}, and the environment that converts has {package} {ours}, which is "
            "older. Refresh its lock (edgepack lock list shows it), or save the model with that version"
        )


def _saved_by(described: Described | None) -> str:
    return "of TensorFlow" if described is None else f"of Keras {described.version}"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (" and others" if len(names) > 10 else "")
