"""What the quickstart prints at its end."""

import sys
from pathlib import Path

import pytest

from edgepack_assets.config.loader import load_settings
from edgepack_assets.partitions import ModelKey
from edgepack_assets.quickstart.add_samples import SampleModel
from edgepack_assets.quickstart.next_steps import next_steps
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
    assert "edgepack package state_identifier:2" in told

    monkeypatch.setenv("PATH", str(binaries))
    (tmp_path / "Makefile").write_text("")
    told = next_steps(sample, registry)
    assert "activate" not in told
    assert "make ui" in told
