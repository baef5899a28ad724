"""From raw data to a payload: what no model type can read."""

from __future__ import annotations

import pytest

from edgepack_assets.errors import RawDataError
from edgepack_assets.filesystem.atomic_files import file_digest
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.tasks.payload_data import make_payload, open_payload
from edgepack_assets_tests.tasks.plant import Plant

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"


def test_a_git_lfs_pointer_is_named_as_one(plant: Plant) -> None:
    folder = plant.folder / "recording"
    (folder / "day").mkdir(parents=True)
    (folder / "day" / "part-0.parquet").write_text(POINTER)
    plant.registry.register(Kind.DATA, "press_raw", folder, {})
    message = r"press_raw:1: day/part-0.parquet is a Git LFS pointer, .*; run `git lfs pull`"
    with pytest.raises(RawDataError, match=message):
        make_payload(ModelKey("press", 1), plant.task_context())


def test_files_of_artefacts_come_with_their_digests(plant: Plant) -> None:
    validated, context = plant.validated(1), plant.task_context()
    payload, results = open_payload(validated.payload_data, context), context.results_of(validated.validation_results)
    assert payload.known_digest == file_digest(payload.records)
    assert results.known_digest == file_digest(results.path)
