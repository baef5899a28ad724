"""The run that compared numbers, taken by validation_results in place of one of its own."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.errors import TransientError
from edgepack_assets.filesystem.temp_folders import Scratch
from edgepack_assets.model_types.plugin import Plugin
from edgepack_assets.packaging.component_runs import PackageRun
from edgepack_assets.packaging.runner import PackageRunner
from edgepack_assets.partitions import ModelKey
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.ahead import kept_run
from edgepack_assets.tasks.ahead.kept_run import ComparedRun, KeptRun
from edgepack_assets.tasks.validation_results import validate
from edgepack_assets_tests.tasks.plant import Plant

LOG = logging.getLogger(__name__)


def artefact(store: object, asset: str, **parts: str) -> Artefact:
    """Parts are told apart by their bytes alone."""
    return Artefact(
        asset=asset, partition="press:1", facts={},
        parts={name: store.put_bytes(text.encode(), "x") for name, text in parts.items()},  # type: ignore[attr-defined]
    )  # fmt: skip


def test_only_the_same_package_lock_and_payload_get_it_and_once(plant: Plant, tmp_path: Path) -> None:
    store, kept = plant.built.store, KeptRun()
    package = artefact(store, "config_package", package="p", lock="l")
    payload = artefact(store, "payload_data", records="r")
    others = [
        (artefact(store, "config_package", package="another", lock="l"), payload),
        (artefact(store, "config_package", package="p", lock="another"), payload),
        (package, artefact(store, "payload_data", records="another")),
    ]
    assert kept.take(package, payload) is None

    def keep() -> None:
        for name in ("results", "times"):
            (tmp_path / name).write_text(name)
        run = PackageRun(tmp_path / "results", tmp_path / "times", 3, 2, {})
        kept.keep(package, ComparedRun(payload.parts["records"].digest, run), LOG)

    for wrong in others:
        keep()
        assert kept.take(*wrong) is None
        assert kept.take(package, payload) is None  # it was of no use: what comes next is made anew
    keep()
    keep()  # a step that was tried again
    compared = kept.look(package, payload)
    assert compared is not None and kept.look(*others[0]) is None  # who looks leaves it there
    run = kept.take(package, payload)
    assert run is not None and (run.results.read_text(), run.times.read_text()) == ("results", "times")
    assert not (tmp_path / "results").exists()
    assert kept.take(package, payload) is None
    kept.close()
    kept.close()
    assert not run.results.exists()


@pytest.mark.parametrize("refused", ["folder", "first", "second", "removal"])
def test_a_disk_that_does_not_let_it_be_kept_fails_no_step(
    refused: str, plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, kept = plant.built.store, KeptRun()
    package = artefact(store, "config_package", package="p", lock="l")
    payload = artefact(store, "payload_data", records="r")
    for name in ("results", "times"):
        (tmp_path / name).write_text(name)
    run = PackageRun(tmp_path / "results", tmp_path / "times", 3, 2, {})
    compared = ComparedRun(payload.parts["records"].digest, run)
    rename = Path.rename

    def moved(file: Path, target: Path) -> Path:
        if file.name == {"first": "results", "second": "times"}.get(refused):
            raise OSError(errno.ENOSPC, "no space left on device", str(file))
        return rename(file, target)

    def full() -> None:
        raise TransientError("no space left")

    def stuck(_: object) -> None:
        raise OSError(errno.EBUSY, "busy")

    made: list[Scratch] = []
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(Path, "rename", moved)
        if refused == "folder":
            patched.setattr(kept_run, "Scratch", full)
        else:
            patched.setattr(kept_run, "Scratch", lambda: made.append(Scratch()) or made[-1])  # type: ignore[func-returns-value]
        if refused == "removal":  # of the files of a step that was tried before
            patched.setattr(Scratch, "remove", stuck)
            kept._scratch = Scratch()
        kept.keep(package, compared, LOG)
    assert "a run of the package is not kept" in caplog.text
    assert kept.look(package, payload) is None and kept.take(package, payload) is None
    kept.close()
    assert not any(scratch.path.exists() for scratch in made)


@pytest.mark.environments
def test_what_is_validated_is_the_same_with_it_and_the_package_is_not_run_again(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny component is no state identifier: what that shows of its answers is not asked.
    monkeypatch.setattr(Plugin, "results_picture", lambda *_: b"")
    monkeypatch.setattr(Plugin, "component_spec", lambda *_: SimpleNamespace(periodicity=None))
    monkeypatch.setattr(Plugin, "trial", lambda *_: None)
    validated, key = plant.validated(1), ModelKey("press", 1)
    inputs = validated.payload_data, validated.config_package
    with Sandbox(plant.built.settings) as sandbox:
        context = plant.task_context(sandbox)
        with PackageRunner(plant.built.config, plant.folder, sandbox, plant.built.environment) as runner:
            payload = plant.built.store.fetch(inputs[0].parts["records"])
            ran = runner.run("comparing", payload, [], count=inputs[0].facts["records"])
        context.kept_run.keep(inputs[1], ComparedRun(inputs[0].parts["records"].digest, ran), LOG)
        jobs: list[str] = []
        run = sandbox.run
        sandbox.run = lambda subject, *more, **named: jobs.append(subject) or run(subject, *more, **named)  # type: ignore[method-assign,func-returns-value]
        with_it, _ = validate(key, *inputs, context)
        assert f"validating {key}" not in jobs
        without, _ = validate(key, *inputs, replace(context, kept_run=KeptRun()))
        assert f"validating {key}" in jobs
        context.kept_run.close()
    assert with_it.digest == without.digest
