"""What is about to be registered is looked at as the model types will that use it."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.operations.added_files import using_types, why_useless
from edgepack_assets.registry.base import Kind


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "edgepack.yaml"
    file.write_text("""
model_types:
  press:
    implementation: state_identifier
    model_name: press_model
    package_name: Press
    raw_data: {name: press_raw}
    requirements: [scikit-learn==1.5.2]
  parts:
    implementation: image_classification
    model_name: parts_model
    package_name: Parts
    raw_data: {name: parts_raw}
""")
    return load_settings(file)


def recording(folder: Path, rows: int = 400, **columns: object) -> Path:
    frame = pd.DataFrame({name: np.arange(rows, dtype=float) for name in ("ph1", "ph2", "ph3")} | columns)
    frame.to_parquet(folder / "recording.parquet")
    return folder / "recording.parquet"


def test_what_uses_a_name(settings: Settings) -> None:
    assert using_types(Kind.MODEL, "press_model", settings) == ["press"]
    assert using_types(Kind.DATA, "parts_raw", settings) == ["parts"]
    assert using_types(Kind.DATA, "press_model", settings) == []


def test_a_text_file_is_no_model(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("weights")
    for name, key in (("press_model", "press"), ("parts_model", "parts")):
        reason = why_useless(Kind.MODEL, name, tmp_path / "model.txt", {}, settings)
        assert reason is not None
        assert reason.startswith(f"model type {key}: ")
        assert "model.txt" in reason


def test_a_recording_is_no_images_and_images_are_no_recording(settings: Settings, tmp_path: Path) -> None:
    file = recording(tmp_path)
    assert why_useless(Kind.DATA, "press_raw", file, {}, settings) is None
    assert why_useless(Kind.DATA, "parts_raw", file, {}, settings) is not None
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "one.png").write_bytes(b"\x89PNG")
    assert why_useless(Kind.DATA, "press_raw", folder, {}, settings) is not None


def test_a_column_that_is_missing_is_named(settings: Settings, tmp_path: Path) -> None:
    file = recording(tmp_path)
    pd.read_parquet(file).drop(columns="ph2").to_parquet(file)
    reason = why_useless(Kind.DATA, "press_raw", file, {}, settings)
    assert reason is not None
    assert "ph2" in reason


def test_a_long_recording_is_not_read_whole(settings: Settings, tmp_path: Path) -> None:
    odd = np.arange(3_000_000, dtype=float)
    odd[-1] = np.inf
    file = recording(tmp_path, rows=3_000_000, ph2=odd)
    assert why_useless(Kind.DATA, "press_raw", file, {}, settings) is None


def test_a_name_that_nothing_uses_is_no_reason(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("weights")
    assert why_useless(Kind.MODEL, "other", tmp_path / "model.txt", {}, settings) is None


def test_a_model_that_was_not_copied_whole_is_refused_before_it_is_registered(
    settings: Settings, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", bytes(9_000))
    (tmp_path / "model.keras").write_bytes((tmp_path / "model.keras").read_bytes()[:5_000])
    (tmp_path / "model.joblib").write_bytes(pickle.dumps(list(range(1_000)))[:700])
    for name, file in (("parts_model", "model.keras"), ("press_model", "model.joblib")):
        reason = why_useless(Kind.MODEL, name, tmp_path / file, {}, settings)
        assert reason is not None
        assert reason.startswith(f"{file}: ")
        assert "was it copied whole?" in reason


def test_a_pointer_to_git_lfs_is_called_that(settings: Settings, tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n"
    for name, file in (("parts_model", "model.tflite"), ("press_model", "model.pkl")):
        (tmp_path / file).write_text(pointer)
        reason = why_useless(Kind.MODEL, name, tmp_path / file, {}, settings)
        assert reason is not None
        assert "is a Git LFS pointer" in reason
