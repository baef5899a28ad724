"""Histories of faults: whatever meets the requests of registering and listing, nothing is registered twice or lost, and
what does not succeed says so in a sentence.

The faults of a history are made from its number alone. They meet requests at random places, up to two at a time, while
two registrations run at once; waiting moves the clock and takes no time."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgepack_assets.errors import EdgepackError
from edgepack_assets.registry.azure_ml import AzureMLRegistry
from edgepack_assets.registry.base import Kind, ResolvedVersion, files_of
from edgepack_assets_tests.azure.faults import (
    Act,
    Exchange,
    cut,
    lost_answer,
    page,
    reset,
    status,
)
from edgepack_assets_tests.azure.http import Response
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.registry.conftest import Clock, azure_ml

FAULTS: dict[str, Act] = {
    "429": status(429, "TooManyRequests", Retry_After="3"),
    "409": status(409, "Conflict", "another operation is in progress"),
    "503": status(503, "ServiceUnavailable"),
    "500": status(500, "InternalServerError"),
    "reset": reset,
    "lost answer": lost_answer,
    "page": page(),
    "page of a gateway": page(502),
    "401": status(401, "InvalidAuthenticationToken", "the token expired just now"),
    "cut": cut(1),
}
PLACES = 40
"""Two registrations and a listing make about as many requests."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def slow(clock: Clock, seconds: float) -> Act:
    """The true answer, after a time that counts and is not waited."""

    def act(exchange: Exchange) -> Response:
        clock.pauses.append(seconds)
        return exchange.answer()

    return act


def plan(number: int, azure: LoopbackAzure, clock: Clock) -> list[str]:
    """Lay the faults of a history: which, and after how many requests each."""
    chance = random.Random(number)  # noqa: S311 - no secret
    acts = {**FAULTS, "slow": slow(clock, 4)}
    laid = []
    for _ in range(chance.randint(1, 6)):
        name, after, times = chance.choice(sorted(acts)), chance.randrange(PLACES), chance.randint(1, 2)
        azure.faults.add(r"\.azure\.com|azureml\.ms|azureml\.net|blob\.", acts[name], times=times, after=after)
        laid.append(f"{name} x{times} after {after}")
    return laid


def attempt(action: Callable[[], ResolvedVersion | list[int]], said: list[str]) -> ResolvedVersion | list[int] | None:
    """What an action returns; None if it fails in a sentence. Anything else that it raises is a traceback."""
    try:
        return action()
    except EdgepackError as error:
        said.append(str(error))
        return None


def numbers(registry: AzureMLRegistry) -> list[int]:
    return [version.number for version in registry.versions(Kind.MODEL, "press")]


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_registered_twice_or_lost(
    azure: LoopbackAzure, clock: Clock, model: Path, tmp_path: Path, seed: int
) -> None:
    kind = ("workspace", "registry")[seed % 2]
    history = plan(seed, azure, clock)
    registries = [azure_ml(azure, kind, time_limit=30) for _ in range(2)]
    shelf = azure.azure_ml.workspace if kind == "workspace" else azure.azure_ml.registry
    said: list[str] = []
    made: list[ResolvedVersion] = []

    def register(step: int) -> None:
        one = attempt(lambda: registries[step % 2].register(Kind.MODEL, "press", model, {"step": str(step)}), said)
        if isinstance(one, ResolvedVersion):
            made.append(one)

    for step in (0, 2):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(register, (step, step + 1)))
        listed = attempt(lambda: numbers(registries[0]), said)
        if isinstance(listed, list):
            assert {version.version for version in made} <= set(listed), history
    azure.faults.clear()
    there = {
        int(number): asset.properties["tags"]["step"]
        for number, asset in shelf.assets["models"].get("press", {}).items()
    }
    # Each step has one version at most; each that was told is there, under its number, whole.
    assert len(set(there.values())) == len(there), history
    assert {version.version: version.tags["step"] for version in made}.items() <= there.items(), history
    assert len({version.version for version in made}) == len(made) and len(made) + len(said) >= 4, history
    fresh = azure_ml(azure, kind)
    assert numbers(fresh) == sorted(there), history
    for version in fresh.versions(Kind.MODEL, "press"):
        copy = fresh.download(version, tmp_path / f"out-{version}")
        assert {name: file.read_bytes() for name, file in files_of(copy)} == {
            name: file.read_bytes() for name, file in files_of(model)
        }, history
    for words in said:
        assert re.match(r"[^\n]{20,900}$", words), (history, words)
        assert "Traceback" not in words and "<html" not in words, (history, words)
    assert fresh.register(Kind.MODEL, "press", model, {"step": "after"}).version == max(there, default=0) + 1
