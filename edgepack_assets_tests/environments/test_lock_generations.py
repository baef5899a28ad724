"""Locks that are refreshed on purpose: generations under one key, the newest in force, whoever publishes it."""

from __future__ import annotations

import json
import multiprocessing
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.lock import (
    LOCKS,
    changes,
    generation_for,
    generations,
    lock_for,
    newest_generation,
    refresh_lock,
)
from edgepack_assets.errors import CorruptError, EnvironmentBuildError
from edgepack_assets_tests.environments.locks import locked
from edgepack_assets_tests.environments.wheels import Index, wheel


@pytest.fixture(params=["local", "memory"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtefactStore]:
    """A store in a folder, and one on object storage."""
    url = str(tmp_path / "artefacts") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    yield ArtefactStore(url, tmp_path / "cache")
    if request.param == "memory":
        file_system, root = fsspec.core.url_to_fs(url)
        file_system.rm(root, recursive=True)


def settings(index: Index, **values: object) -> RuntimeSettings:
    return RuntimeSettings.model_validate({"index_url": index.url, "time_limit": 60.0, **values})


def test_a_refresh_puts_the_next_generation_in_force_and_keeps_the_last(index: Index, anywhere: ArtefactStore) -> None:
    store = anywhere
    index.add(wheel("app", "1.0", requires=["base"]), wheel("base", "1.0"), wheel("gone", "1.0"))
    first, kept = generation_for(["app"], "3.11", store, settings(index))
    assert (first.number, kept) == (1, False)
    assert first.resolved is not None
    assert timedelta(0) <= datetime.now(UTC) - first.resolved < timedelta(minutes=5)
    index.add(wheel("app", "2.0", requires=["more"]), wheel("more", "3.0"))
    assert generation_for(["app"], "3.11", store, settings(index)) == (first, True)

    before, second = refresh_lock(first.lock, store, settings(index))
    assert (before, second.number) == (first, 2)
    assert generation_for(["app"], "3.11", store, settings(index)) == (second, True)
    assert generations(store) == [first, second]
    assert changes(first.lock, second.lock) == [
        {"package": "app", "before": "1.0", "after": "2.0"},
        {"package": "base", "before": "1.0", "after": ""},
        {"package": "more", "before": "", "after": "3.0"},
    ]
    for package in (*first.lock.packages, *second.lock.packages):
        assert store.fetch(package.blob).read_bytes() == index.wheels[package.file]

    # Nothing new: nothing is published, from whichever generation it is asked.
    assert refresh_lock(first.lock, store, settings(index)) == (second, second)
    # The index takes the version back: that is a generation of its own, with the content of the first.
    index.wheels = {name: data for name, data in index.wheels.items() if not name.startswith(("app-2", "more"))}
    _, third = refresh_lock(second.lock, store, settings(index))
    assert (third.number, third.lock) == (3, first.lock)
    assert third.lock.model_dump_json() == first.lock.model_dump_json()  # no moment, no number: equal bytes in packages
    assert newest_generation(first.lock.key, store) == third


def test_more_than_nine_generations_are_counted_as_numbers(index: Index, anywhere: ArtefactStore) -> None:
    lock = locked("app", wheel("app", "1.0"), store=anywhere, settings=settings(index), python="3.11")
    document = lock.model_dump(mode="json")
    for number in (2, 9, 10, 11):
        anywhere.put_named(LOCKS, f"{lock.key}.{number}", document)
    anywhere.put_named(LOCKS, f"{lock.key}.012", document)  # nobody's name of a generation
    anywhere.put_named(LOCKS, f"{lock.key[:-1]}.99", document)
    newest = newest_generation(lock.key, anywhere)
    assert newest is not None
    assert newest.number == 11


def test_a_failed_refresh_changes_nothing(index: Index, store: ArtefactStore) -> None:
    lock = locked("app", wheel("app", "1.0"), store=store, settings=settings(index), python="3.11")
    index.add(wheel("app", "1.0"), wheel("app", "2.0"))
    index.claims["app-2.0-py3-none-any.whl"] = "sha256=" + "0" * 64
    with pytest.raises(EnvironmentBuildError, match="DO NOT MATCH"):
        refresh_lock(lock, store, settings(index))
    assert lock_for(["app"], "3.11", store, settings(index)) == (lock, True)
    assert list(store.named(LOCKS)) == [lock.key]
    with pytest.raises(EnvironmentBuildError, match=r"made with other indexes than .* name today"):
        refresh_lock(lock, store, settings(index, extra_index_urls=("http://127.0.0.1:9/",)))


def _refresh_in_a_process(
    store: ArtefactStore, runtime: RuntimeSettings, start: Any, results: multiprocessing.Queue[str]
) -> None:
    lock, _ = lock_for(["app"], "3.11", store, runtime)
    start.wait()
    _, after = refresh_lock(lock, store, runtime)
    results.put(json.dumps([after.number, str(after.resolved), after.lock.model_dump(mode="json")]))


def test_refreshes_at_once_agree_on_one_generation(index: Index, store: ArtefactStore) -> None:
    """Each is answered otherwise, as by an index that changes: they publish one generation, and all return it."""
    index.add(wheel("app", "1.0"))
    lock = locked("app", wheel("app", "1.0"), store=store, settings=settings(index), python="3.11")
    served = iter(range(100))
    answer = index.answer

    def differently(path: str, authorization: str | None) -> tuple[int, bytes]:
        if path.startswith("/simple/"):
            index.add(wheel("app", f"2.{next(served)}"))
        return answer(path, authorization)

    index.answer = differently  # type: ignore[method-assign]
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=_refresh_in_a_process, args=(store, settings(index), start, results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    told = [json.loads(results.get(timeout=120)) for _ in processes]
    for process in processes:
        process.join()
    # One that began when another had published already makes the generation after it; a number is never two locks.
    locks: dict[int, set[str]] = {}
    for number, *rest in told:
        locks.setdefault(number, set()).add(json.dumps(rest))
    assert all(len(found) == 1 for found in locks.values())
    newest = newest_generation(lock.key, store)
    assert newest is not None
    assert newest.number == max(locks) == len(store.named(LOCKS))
    assert lock_for(["app"], "3.11", store, settings(index)) == (newest.lock, True)


def test_one_that_publishes_between_wins(index: Index, anywhere: ArtefactStore) -> None:
    index.add(wheel("app", "1.0"), wheel("app", "1.1"))
    store = anywhere
    locked("app<1.2", wheel("app", "1.0"), store=store, settings=settings(index), python="3.11")
    first, _ = generation_for(["app<1.2"], "3.11", store, settings(index))
    other = locked("app", wheel("app", "1.5"), store=store, settings=settings(index), python="3.11")
    theirs = {**first.lock.model_dump(mode="json"), "packages": [other.packages[0].model_dump(mode="json")]}
    put = store.put_named

    def late(kind: str, key: str, value: object) -> object:
        put(kind, key, theirs)
        return put(kind, key, value)

    store.put_named = late  # type: ignore[method-assign, assignment]
    _, after = refresh_lock(first.lock, store, settings(index))
    assert (after.number, after.lock.packages, after.resolved) == (2, other.packages, None)


@pytest.mark.parametrize("change", [{"key": "0" * 64}, {"resolved": "yesterday"}, {"python": 3}, {"extra": 1}])
def test_a_generation_that_is_not_one_is_refused(index: Index, store: ArtefactStore, change: dict[str, object]) -> None:
    lock = locked("app", wheel("app", "1.0"), store=store, settings=settings(index), python="3.11")
    store.put_named(LOCKS, f"{lock.key}.2", {**lock.model_dump(mode="json"), **change})
    with pytest.raises(CorruptError, match=re.escape(f"the lock {lock.key}.2 is ")):
        lock_for(["app"], "3.11", store, settings(index))
