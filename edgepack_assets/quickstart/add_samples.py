"""The samples of the quickstart. Adds those that a registry lacks.

Everything that the quickstart adds has the tag `quickstart` with a digest of how it is made. So a second run finds it
again, and a release with other samples adds them as new versions.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgepack_assets.config.schema import ModelTypeSettings, Settings
from edgepack_assets.errors import ConfigError, EdgepackError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.quickstart import samples
from edgepack_assets.quickstart.train import TRAINING, Trainer
from edgepack_assets.registry.base import Kind, RegisteredVersion, Registry

TAG = "quickstart"

Report = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """Sample data and the model that belongs to it, for model types of one implementation."""

    implementation: str
    data: str
    data_tags: Mapping[str, str]
    write_data: Callable[[Path], Path]
    train: Callable[[Trainer, Path], Path]


SAMPLES = (
    Sample(
        "state_identifier",
        f"a three-phase power recording of {samples.ROWS:,} rows",
        {},
        samples.write_recording,
        Trainer.state_identifier,
    ),
    Sample(
        "image_classification",
        f"{samples.IMAGES_PER_CLASS * len(samples.CLASS_NAMES)} images of handwritten digits",
        samples.image_tags(),
        samples.write_images,
        Trainer.digits_classifier,
    ),
)


@dataclass(frozen=True)
class SampleModel:
    """A sample model in the registry, and the configured model type that packages it."""

    key: ModelKey
    entry: ModelTypeSettings
    model: RegisteredVersion


def add_samples(settings: Settings, registry: Registry, report: Report) -> list[SampleModel]:
    """Make and add what the registry lacks: each sample for the first model type that can use it."""
    samples: list[SampleModel] = []
    for sample in SAMPLES:
        for name, entry in settings.model_types.items():
            if entry.implementation == sample.implementation:
                _add_data(sample, entry, registry, report)
                model = _add_model(sample, entry, registry, settings, report)
                samples.append(SampleModel(ModelKey(name, model.number), entry, model))
                break
    if not samples:
        wanted = " or ".join(sample.implementation for sample in SAMPLES)
        raise ConfigError(f"{settings.file}: the quickstart needs a model type with implementation {wanted}")
    return samples


def recipe() -> str:
    """A digest of how the samples are made: the modules, and the pinned versions of the training environment."""
    digest = hashlib.sha256()
    training = sorted(file for file in TRAINING.rglob("*") if file.suffix in {".py", ".txt"})
    for file in (Path(samples.__file__), *training):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _add_data(sample: Sample, entry: ModelTypeSettings, registry: Registry, report: Report) -> None:
    name = entry.raw_data.name
    versions = registry.versions(Kind.DATA, name)
    if (existing := _made_by_this_recipe(versions)) is not None:
        report(f"{existing!s:28} exists")
        return
    if others := [version for version in versions if TAG not in version.tags]:
        # A sample would become the latest version, and the user's own models would be validated on it.
        raise EdgepackError(
            f"the registry has {others[-1]}, which is not from the quickstart, and sample data would replace it as the "
            "latest version; run the quickstart with another configuration (EDGEPACK_CONFIG)"
        )
    with tempfile.TemporaryDirectory() as folder:
        tags = {**sample.data_tags, TAG: recipe()}
        added = registry.register(Kind.DATA, name, sample.write_data(Path(folder)), tags)
    report(f"{added!s:28} added: {sample.data}")


def _add_model(
    sample: Sample, entry: ModelTypeSettings, registry: Registry, settings: Settings, report: Report
) -> RegisteredVersion:
    existing = _made_by_this_recipe(registry.versions(Kind.MODEL, entry.model_name))
    if existing is not None:
        report(f"{existing!s:28} exists")
        return existing
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer.find(settings.runtime, entry.python_version)
        model = sample.train(trainer, Path(folder))
        added = registry.register(Kind.MODEL, entry.model_name, model, {TAG: recipe()})
    report(f"{added!s:28} trained and added in {time.monotonic() - began:.1f} s")
    return added


def _made_by_this_recipe(versions: list[RegisteredVersion]) -> RegisteredVersion | None:
    return next((version for version in reversed(versions) if version.tags.get(TAG) == recipe()), None)
