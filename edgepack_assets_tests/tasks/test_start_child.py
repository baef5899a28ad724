"""A child that is started before it is known which environment the model needs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import EnvironmentBuildError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.start_child import start_child_ahead
from edgepack_assets_tests.environments.plain import environment, plain_settings, store

__all__ = ["environment", "plain_settings", "store"]

Context = Any


@pytest.fixture
def context(plain_settings: RuntimeSettings, store: ArtefactStore) -> Iterator[Context]:
    with Sandbox(plain_settings, backends=["unshare", "none"]) as sandbox:
        yield SimpleNamespace(
            store=store, sandbox=sandbox, environments={}, log=logging.getLogger(__name__),
            settings=SimpleNamespace(runtime=plain_settings), child_imports=lambda key, lock: ["json"],
        )  # fmt: skip


def packaged(context: Context, version: int, environment: Environment) -> None:
    """Save the config package of an earlier run, as far as it is looked at here."""
    lock = context.store.put_json(environment.lock.model_dump(mode="json"))
    context.store.save(
        Artefact(asset="config_package", partition=f"press:{version}", parts={"lock": lock}, facts={}, made_from={})
    )


@pytest.mark.parametrize("version", [7, 8])
def test_the_child_is_there_when_the_step_wants_it(context: Context, environment: Environment, version: int) -> None:
    packaged(context, 7, environment)
    start_child_ahead(ModelKey("press", version), context)
    child = context.sandbox._child
    assert child is not None
    assert context.environments == {environment.lock.digest: replace(environment, kept=True)}
    context.sandbox.prepare(environment, ["json"])
    assert context.sandbox._child is child
    context.sandbox.prepare(environment, ["wave"])  # another model type wants others
    assert context.sandbox._child is not child


def test_nothing_is_built_or_started_where_there_is_no_environment(context: Context, environment: Environment) -> None:
    start_child_ahead(ModelKey("press", 1), context)  # no version before
    start_child_ahead(ModelKey("press", 9), context)  # none of it is packaged
    packaged(context, 7, environment)
    (environment.folder / "edgepack-lock.json").rename(environment.folder.with_suffix(".aside"))
    try:
        start_child_ahead(ModelKey("press", 8), context)
    finally:
        environment.folder.with_suffix(".aside").rename(environment.folder / "edgepack-lock.json")
    assert context.sandbox._child is None
    assert context.environments == {}


def test_what_is_wrong_is_left_to_the_step(context: Context, environment: Environment) -> None:
    packaged(context, 7, environment)

    def refused(*_: object) -> None:
        raise EnvironmentBuildError("it cannot be started")

    context.sandbox.prepare = refused
    start_child_ahead(ModelKey("press", 8), context)


@pytest.mark.parametrize("written", [None, {"lock": "of another release"}])
def test_an_artefact_without_a_lock_that_can_be_read_fails_no_run(context: Context, written: object) -> None:
    parts = {} if written is None else {"lock": context.store.put_json(written)}
    context.store.save(Artefact(asset="config_package", partition="press:7", parts=parts, facts={}, made_from={}))
    start_child_ahead(ModelKey("press", 7), context)
    assert context.sandbox._child is None
