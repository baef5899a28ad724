"""What a run starts at its beginning, and ends at its end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from edgepack_assets.defs import resources
from edgepack_assets.defs.asset_names import ASSETS
from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.partitions import PARTITION_TAG
from edgepack_assets.tasks.ahead.built_package import BuiltPackage


@pytest.fixture
def resource(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EdgepackResource]:
    """A resource whose run finds no environment to start a child in."""
    monkeypatch.setattr(resources, "start_child_ahead", lambda *_: None)
    config = tmp_path / "edgepack.yaml"
    entry = {"implementation": "state_identifier", "model_name": "m", "package_name": "p", "raw_data": {"name": "r"}}
    config.write_text(yaml.safe_dump({"model_types": {"press": entry}}))
    opened = EdgepackResource(config)
    yield opened
    opened.close()


def run_of(*steps: str, partition: str | None = "press:1") -> Any:
    return SimpleNamespace(step_keys_to_execute=steps, tags={PARTITION_TAG: partition} if partition else {})


def begun(resource: EdgepackResource, run: Any) -> tuple[bool, bool]:
    """Whether the packaging worker was started, and whether a package may be built ahead."""
    resource.begin(run)
    return resource._helpers.packaging._process is not None, resource._built_ahead.is_wanted


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (run_of(*ASSETS), (True, True)),
        (run_of("config_package"), (True, False)),
        (run_of("validation_results", "metrics", "deployment_package"), (False, True)),
        (run_of("payload_data"), (False, False)),
        (run_of(*ASSETS, partition=None), (False, True)),
        (run_of("config_package", partition="no key"), (False, False)),
        (run_of("config_package", partition="unknown:1"), (False, False)),
    ],
)
def test_what_a_run_needs_later_is_started_with_it(
    resource: EdgepackResource, run: Any, expected: tuple[bool, bool]
) -> None:
    assert begun(resource, run) == expected
    resource.close()
    assert resource._helpers.packaging._process is None


@pytest.mark.parametrize("error", [OSError(11, "no more processes"), EdgepackError("the disk is full")])
def test_a_worker_that_cannot_be_started_ahead_fails_no_run(
    resource: EdgepackResource, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refused() -> None:
        raise error

    monkeypatch.setattr(resource._helpers.packaging, "start", refused)
    assert begun(resource, run_of(*ASSETS)) == (False, True)


def test_a_run_that_ends_early_stops_the_package_that_is_built_ahead(
    resource: EdgepackResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, folders = threading.Event(), list[Path]()

    def building(folder: Path) -> BuiltPackage:
        folders.append(folder)
        assert killed.wait(60)
        raise TransientError("the packaging process ended with code -9")

    monkeypatch.setattr(resource._helpers.packaging, "interrupt", killed.set)
    resource._built_ahead.start("inputs", building)
    resource.close()
    assert killed.is_set() and not folders[0].exists()


@pytest.mark.parametrize("error", [EdgepackError("a folder cannot be removed"), OSError("unforeseen")])
@pytest.mark.parametrize("stuck", ["_drawn_ahead", "_built_ahead", "_kept_run"])
def test_what_cannot_be_ended_is_told_and_all_else_ends_all_the_same(
    stuck: str, error: Exception, resource: EdgepackResource, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    ended: list[str] = []
    is_for_user = isinstance(error, EdgepackError)

    def closing(name: str) -> Callable[..., None]:
        def close(**_: object) -> None:
            ended.append(name)
            if name == stuck:
                raise error

        return close

    with monkeypatch.context() as patched:
        for name in ("_drawn_ahead", "_built_ahead", "_kept_run"):
            patched.setattr(getattr(resource, name), "close", closing(name))
        patched.setattr(resource._helpers, "run_ended", lambda: ended.append("helpers"))
        with (
            contextlib.nullcontext() if isinstance(error, EdgepackError) else pytest.raises(OSError, match="unforeseen")
        ):
            resource.close()
    assert ended == ["_drawn_ahead", "_built_ahead", "_kept_run", "helpers"]
    assert ("a folder cannot be removed" in caplog.text) == is_for_user
