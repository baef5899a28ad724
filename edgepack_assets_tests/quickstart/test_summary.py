"""What the quickstart prints at its end."""

import sys
from pathlib import Path

import pytest

from edgepack_assets.config.loader import load_settings
from edgepack_assets.partitions import ModelKey
from edgepack_assets.quickstart.add_samples import SampleModel
from edgepack_assets.quickstart.summary import Packaged, find_package, next_steps, summary
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry(tmp_path / "registry")


@pytest.fixture
def sample(registry: LocalRegistry, tmp_path: Path) -> SampleModel:
    model = tmp_path / "model.pkl"
    model.write_bytes(b"weights")
    entry = load_settings().model_type("state_identifier")
    registered = registry.register(Kind.MODEL, entry.model_name, model, {})
    return SampleModel(ModelKey("state_identifier", registered.version), entry, registered)


def test_the_package_is_found_by_its_models_name_and_version(
    registry: LocalRegistry, sample: SampleModel, tmp_path: Path
) -> None:
    assert find_package(sample, registry) is None
    package = tmp_path / "package.zip"
    package.write_bytes(b"zip")
    name = sample.entry.registered_package_name
    of_another = {"model_name": sample.model.name, "model_version": "7"}
    registry.register(Kind.MODEL, name, package, of_another)
    assert find_package(sample, registry) is None

    tags = {
        "model_name": sample.model.name,
        "model_version": "1",
        "silhouette": "0.7654321",
        "dunn_index": "0.25",
    }
    registered = registry.register(Kind.MODEL, name, package, {**tags, "packageid": "x"})
    assert find_package(sample, registry) == registered
    told = summary([Packaged(sample, registered)])
    lines = [line.split() for line in told.splitlines()]
    assert ["state_identifier:1", "State-Identifier-edge:2", "dunn_index", "0.25"] in lines
    assert ["silhouette", "0.7654"] in lines
    assert registered.location in told
    assert "packageid" not in told


def test_the_next_steps_work_in_the_shell_at_hand(
    registry: LocalRegistry, sample: SampleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "edgepack"):
        (binaries / name).write_text("")
        (binaries / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(binaries / "python"))
    monkeypatch.chdir(tmp_path)

    monkeypatch.setenv("PATH", "/nowhere")
    told = next_steps(sample, registry)
    assert told.count(". .venv/bin/activate") == 2
    assert "edgepack ui" in told
    assert "--partition state_identifier:2" in told

    monkeypatch.setenv("PATH", str(binaries))
    (tmp_path / "Makefile").write_text("")
    told = next_steps(sample, registry)
    assert "activate" not in told
    assert "make ui" in told
