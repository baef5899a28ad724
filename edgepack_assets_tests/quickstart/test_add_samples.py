"""Adding the samples to a registry: once, and never in the place of what the user put there."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import ConfigError, EdgepackError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.quickstart import add_samples as register
from edgepack_assets.quickstart.add_samples import TAG, add_samples
from edgepack_assets.quickstart.train import Trainer
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry

CONFIG = """
registry: {type: local, path: registry}
model_types:
  press:
    implementation: state_identifier
    model_name: press_model
    package_name: Press
    raw_data: {name: press_raw}
  digits:
    implementation: image_classification
    model_name: digits_model
    package_name: Digits
    raw_data: {name: digits_raw}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "edgepack.yaml").write_text(CONFIG)
    return load_settings(tmp_path / "edgepack.yaml")


@pytest.fixture
def registry(settings: Settings) -> LocalRegistry:
    return LocalRegistry(settings.registry.path)


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that were trained; training itself is replaced, test_train.py runs it."""
    done: list[str] = []

    def quick(sample: register.Sample) -> register.Sample:
        def train(trainer: Trainer, destination: Path) -> Path:
            done.append(sample.implementation)
            (destination / "model.onnx").write_bytes(b"weights")
            return destination / "model.onnx"

        return replace(sample, train=train)

    monkeypatch.setattr(register, "SAMPLES", tuple(quick(sample) for sample in register.SAMPLES))
    return done


def test_samples_are_added_once(settings: Settings, registry: LocalRegistry, trained: list[str]) -> None:
    told: list[str] = []
    first = add_samples(settings, registry, told.append)
    assert [found.key for found in first] == [ModelKey("press", 1), ModelKey("digits", 1)]
    assert trained == ["state_identifier", "image_classification"]
    assert registry.get(Kind.DATA, "digits_raw", 1).tags["seven"] == "7"

    told.clear()
    assert add_samples(settings, registry, told.append) == first
    assert len(trained) == 2
    assert len(registry.versions(Kind.DATA, "press_raw")) == 1
    assert all(line.endswith("exists") for line in told)


def test_other_samples_become_new_versions(
    settings: Settings, registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_samples(settings, registry, print)
    monkeypatch.setattr(register, "recipe", lambda: "of the next release")
    found = add_samples(settings, registry, print)
    assert [one.key.version for one in found] == [2, 2]
    assert registry.get(Kind.DATA, "press_raw", 2).tags[TAG] == "of the next release"


def test_what_the_user_registered_stays_the_latest(
    settings: Settings, registry: LocalRegistry, tmp_path: Path, trained: list[str]
) -> None:
    own = tmp_path / "own.parquet"
    own.write_bytes(b"recorded at the press")
    registry.register(Kind.DATA, "press_raw", own, {})
    with pytest.raises(EdgepackError, match="press_raw:1, which is not from the quickstart"):
        add_samples(settings, registry, print)
    assert len(registry.versions(Kind.DATA, "press_raw")) == 1
    assert trained == []


def test_a_configuration_without_any_model_type_to_show(settings: Settings, registry: LocalRegistry) -> None:
    of_others = settings.model_types["press"].model_copy(update={"implementation": "another"})
    nothing = settings.model_copy(update={"model_types": {"press": of_others}})
    with pytest.raises(ConfigError, match="needs a model type with implementation state_id"):
        add_samples(nothing, registry, print)
