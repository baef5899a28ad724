"""Package indexes that are down, flaky, slow or lie: a clear error, nothing in the store, and the next run works."""

from __future__ import annotations

import base64
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments import resolver
from edgepack_assets.environments.environment import environment_for
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import LOCKS, lock_for
from edgepack_assets.errors import (
    ConfigError,
    EdgepackError,
    EnvironmentBuildError,
    IndexUnreachableError,
    TransientError,
)
from edgepack_assets_tests.environments.plain import NOWHERE
from edgepack_assets_tests.environments.wheels import Answer, Index, wheel

APP = "app-1.0-py3-none-any.whl"


def settings(index: Index | str, folder: Path = Path("environments")) -> RuntimeSettings:
    url = index if isinstance(index, str) else index.url
    return RuntimeSettings(index_url=url, environments=folder, time_limit=60.0)


def stored(store: ArtefactStore) -> list[Path]:
    return sorted(path for path in Path(store.root_url).rglob("*") if path.is_file())


# Down, with a lock that is there -----------------------------------------------------------------------


def test_a_lock_and_its_wheels_in_the_store_need_no_index_at_all(
    index: Index, store: ArtefactStore, tmp_path: Path
) -> None:
    """On a machine that has nothing but the store: no cache of uv's, no environment, an index that is down."""
    index.add(wheel("app", "1.0", requires=["base"]), wheel("base", "2.0"))
    python, _ = find_python(None)
    first, _ = lock_for(["app"], python, store, settings(index))
    down = settings(index, tmp_path / "environments")
    index.stop()
    lock, kept = lock_for(["app"], python, store, down)
    assert (lock, kept) == (first, True)
    assert not environment_for(lock, store, down).kept


@pytest.mark.parametrize("removed", [True, False])
def test_a_wheel_that_the_store_lost_comes_from_the_index_even_if_it_is_yanked(
    index: Index, store: ArtefactStore, removed: bool
) -> None:
    index.add(wheel("app", "1.0"), wheel("app", "2.0"))
    lock, _ = lock_for(["app==1.0"], "3.11", store, settings(index))
    Path(store.fetch(lock.packages[0].blob)).unlink()
    if removed:
        del index.wheels[APP]
        with pytest.raises(EnvironmentBuildError, match=rf"locked wheels cannot be downloaded \({APP}\)"):
            lock_for(["app==1.0"], "3.11", store, settings(index))
        index.add(wheel("app", "1.0"))
    else:
        index.yanked.add(APP)
    assert lock_for(["app==1.0"], "3.11", store, settings(index)) == (lock, True)
    assert store.has(lock.packages[0].digest)


def test_a_new_lock_passes_over_what_is_yanked(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "1.0"), wheel("app", "2.0"))
    index.yanked.add("app-2.0-py3-none-any.whl")
    assert lock_for(["app"], "3.11", store, settings(index))[0].packages[0].version == "1.0"


# Lies --------------------------------------------------------------------------------------------------


def evil(index: Index) -> None:
    index.wheels[APP] = wheel("evil", "6.6")[1]


def another_version(index: Index) -> None:
    """The folder inside tells one version, METADATA another."""
    index.wheels[APP] = wheel("app", "1.0")[1].replace(b"Version: 1.0\n", b"Version: 1.1\n")


def another_project(index: Index) -> None:
    index.wheels[APP] = wheel("app", "1.0")[1].replace(b"Name: app\n", b"Name: ppa\n")


def aarch64(index: Index) -> None:
    index.wheels[APP] = wheel("app", "1.0", "cp311-cp311-manylinux_2_17_aarch64")[1]


def no_zip(index: Index) -> None:
    index.wheels[APP] = b"<html>Sign in</html>"


def two_names(index: Index) -> None:
    """A wheel with the METADATA of two projects."""
    index.wheels[APP] = wheel("app", "1.0", files={"evil-6.6.dist-info/METADATA": "Name: evil\nVersion: 6.6\n"})[1]


def wrong_hash(index: Index) -> None:
    index.claims[APP] = "sha256=" + "0" * 64


def no_hash(index: Index) -> None:
    index.claims[APP] = "md5=" + "0" * 32


def no_hash_at_all(index: Index) -> None:
    index.claims[APP] = "sha256=oops"


def on_files(answer: Callable[[Index, str], Answer]) -> Callable[[Index], None]:
    def set_up(index: Index) -> None:
        index.trouble = lambda path: answer(index, path) if path.startswith("/files/") else None

    return set_up


def on_pages(answer: Callable[[Index, str], Answer]) -> Callable[[Index], None]:
    def set_up(index: Index) -> None:
        index.trouble = lambda path: answer(index, path) if path.startswith("/simple/") else None

    return set_up


TROUBLE = {
    "another wheel under its name": (evil, "gives what is no package"),
    "METADATA of another version": (another_version, f"{APP} is a wheel of 'app 1.1'|gives what is no package"),
    "METADATA of another project": (another_project, f"{APP} is a wheel of 'ppa 1.0'|gives what is no package"),
    "METADATA twice": (two_names, f"{APP} is no wheel, it has 2 METADATA|gives what is no package"),
    "another platform": (aarch64, f"{APP} was made for cp311-cp311-manylinux_2_17_aarch64 by what is in it, not for"),
    "no wheel at all": (no_zip, "gives what is no package"),
    "a hash that is wrong": (wrong_hash, f"(?s){APP}.*DO NOT MATCH THE HASHES"),
    "only a weak hash": (no_hash, f"does not tell the sha256 of {APP}"),
    "a hash that is none": (no_hash_at_all, "gives what is no package"),
    "a page in place of the wheel": (on_files(lambda *_: Answer(body=b"<html>Sign in</html>")), "what is no package"),
    "a page in place of the list": (on_pages(lambda *_: Answer(body=b"<html>Sign in</html>")), "look at what it answ"),
    "a wheel cut off": (
        on_files(lambda index, path: Answer(body=index.wheels[APP][:200], length=len(index.wheels[APP]))),
        rf"locked wheels cannot be downloaded \({APP}\)|gives what is no package",
    ),
    "a wheel cut off that says it is whole": (
        on_files(lambda index, path: Answer(body=index.wheels[APP][:200])),
        "DO NOT MATCH THE HASHES|gives what is no package",
    ),
    "a redirect loop": (
        on_pages(lambda _, path: Answer(302, headers={"Location": path})),
        "look at what it answers|cannot be asked",
    ),
    "the file is gone": (on_files(lambda *_: Answer(404)), "cannot be asked"),
    "no access": (on_pages(lambda *_: Answer(403)), "look at what it answers|cannot be asked"),
    "answers of 503": (on_pages(lambda *_: Answer(503)), "cannot be asked"),
    "connections broken off": (on_files(lambda *_: Answer(reset=True)), "cannot be asked"),
}


PASSES = {"answers of 503", "connections broken off", "a wheel cut off"}
"""What says nothing of the model: the same again may well succeed."""


@pytest.mark.parametrize("what", TROUBLE)
def test_trouble_is_told_keeps_nothing_and_is_over_when_the_index_is_mended(
    index: Index, store: ArtefactStore, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "RETRIES", 0)
    set_up, told = TROUBLE[what]
    index.add(wheel("app", "1.0"))
    set_up(index)
    with pytest.raises(EdgepackError, match=told) as error:
        lock_for(["app"], "3.11", store, settings(index))
    assert "app" in str(error.value)
    assert isinstance(error.value, TransientError) is (what in PASSES)
    assert stored(store) == []
    index.trouble, index.claims = lambda path: None, {}
    index.add(wheel("app", "1.0"))
    # uv may remember for ten minutes what it read of a wheel, as the index allows: not a bad one
    lock, kept = lock_for(["app"], "3.11", store, settings(index))
    assert not kept
    assert store.read_bytes(lock.packages[0].blob) == index.wheels[APP]


def test_a_blob_that_is_another_wheel_is_not_taken_because_the_store_has_it(index: Index, store: ArtefactStore) -> None:
    """The index announces the hash of something else that the store holds: nothing would be downloaded."""
    index.add(wheel("app", "1.0"))
    for blob in (store.put_bytes(wheel("evil", "6.6")[1], "x"), store.put_bytes(b"a recording", "x")):
        index.claims[APP] = f"sha256={blob.digest}"
        with pytest.raises(EnvironmentBuildError, match=f"{APP} is (a wheel of 'evil 6.6'|no wheel)"):
            lock_for(["app"], "3.11", store, settings(index))
    assert store.named(LOCKS) == {}


def test_metadata_that_differs_from_the_wheel_s_own_is_found_out(index: Index, store: ArtefactStore) -> None:
    """What uv was told, or remembers, of a wheel is not believed: the wheel's own requirements must be in the lock."""
    index.add(
        wheel("app", "1.0", requires=["base[fast]>=2; python_version >= '3.11'", "none; sys_platform == 'win32'"])
    )
    index.add(wheel("base", "2.0", requires=["quick; extra == 'fast'", "slow; extra == 'slow'"]), wheel("quick", "1"))
    lock, _ = lock_for(["app"], "3.11", store, settings(index))
    assert lock.names == {"app", "base", "quick"}

    index.add(wheel("late", "1.0", requires=["base<2"]))
    index.metadata["late-1.0-py3-none-any.whl"] = b"Metadata-Version: 2.1\nName: late\nVersion: 1.0\n"
    with pytest.raises(EnvironmentBuildError, match=r"did not name: base<2 \(asked for by late\)\. Its metadata"):
        lock_for(["late", "base"], "3.11", store, settings(index))
    assert list(store.named(LOCKS)) == [lock.key]


def test_what_uv_s_cache_holds_decides_nothing(
    index: Index, store: ArtefactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes another wheel's hash into the cache, then other requirements: the index's own decide."""
    monkeypatch.setattr(resolver, "RETRIES", 0)
    index.caching = True
    index.add(wheel("app", "1.0", requires=["base"]), wheel("base", "1.0"))
    lock, _ = lock_for(["app"], "3.11", store, settings(index))
    app, base = (bytes.fromhex(package.digest) for package in lock.packages)
    for number, (old, new) in enumerate([(app, base), (b"base", b"nose")]):
        changed = 0
        for file in (path for path in (tmp_path / "uv-cache").rglob("*") if path.is_file()):
            data = file.read_bytes()
            changed += data.count(old)
            file.write_bytes(data.replace(old, new))
        assert changed > 0
        elsewhere = ArtefactStore(str(tmp_path / f"elsewhere{number}"), tmp_path / "cache")
        assert lock_for(["app"], "3.11", elsewhere, settings(index)) == (lock, False)


def test_a_version_that_came_after_uv_looked_is_seen_if_it_is_needed(index: Index, store: ArtefactStore) -> None:
    index.caching = True
    index.add(wheel("app", "1.0"))
    lock_for(["app"], "3.11", store, settings(index))
    index.add(wheel("app", "2.0"))
    assert lock_for(["app==2.0"], "3.11", store, settings(index))[0].packages[0].version == "2.0"


# Flaky -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [Answer(503), Answer(reset=True)], ids=["503", "reset"])
def test_an_index_that_fails_twice_is_asked_again(index: Index, store: ArtefactStore, answer: Answer) -> None:
    index.add(wheel("app", "1.0"))
    failures: dict[str, int] = {}

    def flaky(path: str) -> Answer | None:
        failures[path] = failures.get(path, 0) + 1
        return answer if failures[path] <= 2 else None

    index.trouble = flaky
    lock, _ = lock_for(["app"], "3.11", store, settings(index))
    assert store.has(lock.packages[0].digest)
    assert all(count >= 3 for count in failures.values())


def test_an_index_that_stays_down_is_asked_a_bounded_number_of_times(
    index: Index, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "RETRIES", 1)
    index.trouble = lambda path: Answer(503)
    with pytest.raises(IndexUnreachableError, match=r"(?s)cannot be asked .*\(app\): check the network, and index_url"):
        lock_for(["app"], "3.11", store, settings(index))
    assert len(index.asked) == 2


def test_an_index_that_is_no_longer_there_is_told_with_what_to_check(
    store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "RETRIES", 0)
    # The second is no address of anything: the name cannot be looked up.
    for url in (NOWHERE, "http://index.invalid/simple"):
        with pytest.raises(IndexUnreachableError, match=r"under runtime in edgepack.yaml \(existing locks"):
            lock_for(["app"], "3.11", store, settings(url))
    assert stored(store) == []


def test_what_a_model_asks_for_and_nobody_has_is_no_trouble_of_the_index(
    index: Index, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and numbers in uv's words must not pass for words of its own."""
    monkeypatch.setattr(resolver, "RETRIES", 0)
    index.add(wheel("async_timeout", "503.429"))
    for wanted in ("connection-refused", "async-timeout>503.429", f"app @ {index.url}/503/app-1.0-py3-none-any.whl"):
        with pytest.raises(EnvironmentBuildError) as error:
            lock_for([wanted], "3.11", store, settings(index))
        assert not isinstance(error.value, TransientError), error.value


def test_locked_wheels_that_cannot_be_fetched_from_an_index_that_is_down_may_be_later(
    index: Index, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "RETRIES", 0)
    index.add(wheel("app", "1.0"))
    lock, _ = lock_for(["app"], "3.11", store, settings(index))
    Path(store.fetch(lock.packages[0].blob)).unlink()
    index.trouble = lambda path: Answer(503)
    with pytest.raises(IndexUnreachableError, match="locked wheels cannot be downloaded"):
        lock_for(["app"], "3.11", store, settings(index))
    index.stop()
    with pytest.raises(IndexUnreachableError, match="locked wheels cannot be downloaded"):
        lock_for(["app"], "3.11", store, settings(index))


# Credentials -------------------------------------------------------------------------------------------

CANARY = "canary-7f3a"


def spellings() -> list[bytes]:
    """The secret as it is, and as HTTP's basic authentication sends it."""
    sent = base64.b64encode(f"operator:{CANARY}".encode()).decode().rstrip("=")
    return [CANARY.encode(), sent.encode(), base64.b64encode(CANARY.encode()).rstrip(b"=")]


def command_lines() -> Iterator[bytes]:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                yield (process / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile


def test_a_secret_of_the_index_is_found_nowhere(
    index: Index, store: ArtefactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the store, the environment, uv's cache, temporary files, errors, nor on a command line in use."""
    monkeypatch.setattr(resolver, "RETRIES", 0)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    index.credentials = f"operator:{CANARY}"
    index.add(wheel("app", "1.0"))
    seen: list[bytes] = []
    texts: list[str] = []

    def watched(path: str) -> Answer | None:
        """The index is slow: while uv or pip waits for it, look at all command lines and at the temporary files."""
        seen.extend(line for line in command_lines() if b"uv" in line or b"pip" in line)
        texts.extend(file.read_text(errors="replace") for file in temporary.rglob("*") if file.is_file())
        return None

    index.trouble = watched
    python, _ = find_python(None)
    runtime = settings(index, tmp_path / "environments")
    lock, _ = lock_for(["app"], python, store, runtime)
    environment_for(lock, store, runtime)
    assert any(b"\0compile\0" in line for line in seen)
    assert any(b"\0download\0" in line for line in seen)
    for url in (index.url, index.url_with(f"operator:{CANARY}x"), index.url_with(CANARY)):
        for requirements in (["nosuch"], ["app>2"], ["app @@ " + url], ["app @ " + url]):
            with pytest.raises(EdgepackError) as error:
                lock_for(requirements, python, store, settings(url))
            texts += [str(error.value), repr(error.value)]
    index.trouble = lambda path: Answer(500)
    with pytest.raises(EdgepackError) as error:
        lock_for(["other"], python, store, runtime)
    texts.append(str(error.value))
    everything = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(everything) > 10
    texts += [line.decode(errors="replace") for line in seen]
    for secret in spellings():
        assert not any(secret in data for data in everything)
        assert not any(secret.decode() in text for text in texts)


def test_a_mistake_in_the_configuration_does_not_show_the_secret(tmp_path: Path) -> None:
    file = tmp_path / "edgepack.yaml"
    file.write_text(
        f"runtime: {{index_url: ['https://u:{CANARY}@host/'], extra_index_urls: 'https://u:{CANARY}@host/simple'}}\n"
        "model_types: {a: {implementation: state_identifier, model_name: a, package_name: A, raw_data: {name: r},\n"
        f"  requirements: ['x @@ https://u:{CANARY}@host/x.whl']}}}}\n"
    )
    with pytest.raises(ConfigError, match="extra_index_urls") as error:
        load_settings(file)
    assert CANARY not in str(error.value)


def test_an_index_that_hangs_is_given_up_after_the_time_limit(index: Index, store: ArtefactStore) -> None:
    over = threading.Event()
    index.trouble = lambda path: Answer(200) if over.wait(30) else None
    try:
        with pytest.raises(EnvironmentBuildError, match=r"resolving .*\(app\) took longer than 0.5 s and was stopped"):
            lock_for(["app"], "3.11", store, settings(index).model_copy(update={"time_limit": 0.5}))
    finally:
        over.set()
    assert stored(store) == []


def test_a_wheel_that_claims_gigabytes_of_metadata_is_not_read(tmp_path: Path) -> None:
    from edgepack_assets.environments.wheels import LockedPackage, admits

    package = LockedPackage(name="app", version="1.0", file=APP, digest="0" * 64, size=0)
    with zipfile.ZipFile(tmp_path / APP, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("app-1.0.dist-info/METADATA", b" " * (20 << 20))
    with pytest.raises(EnvironmentBuildError, match=f"{APP} is no wheel: its METADATA has 20971520 bytes"):
        admits(tmp_path / APP, package, "3.11")
