"""Locks: resolved on an index of our own, kept, verified; the wheel is the one the server would install."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import packaging._manylinux
import pytest

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments import resolver, wheels
from edgepack_assets.environments.lock import LOCKS, Lock, generation_for, lock_for, lock_key, refresh_lock
from edgepack_assets.environments.resolver import _choose
from edgepack_assets.environments.wheels import edge_tags
from edgepack_assets.errors import CorruptError, EnvironmentBuildError
from edgepack_assets_tests.environments.locks import locked
from edgepack_assets_tests.environments.plain import NOWHERE
from edgepack_assets_tests.environments.wheels import Index, wheel


def settings(index: Index | str, **values: object) -> RuntimeSettings:
    url = index if isinstance(index, str) else index.url
    return RuntimeSettings.model_validate({"index_url": url, "time_limit": 60.0, **values})


def files_of(lock: Lock) -> list[str]:
    return [package.file for package in lock.packages]


def everything_stored(store: ArtefactStore) -> str:
    root = Path(store.root_url)
    return "".join(path.read_text(errors="replace") for path in root.rglob("*") if path.is_file())


def test_a_lock_holds_all_that_is_needed_with_its_bytes(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "1.0", requires=["base>=2", 'other; python_version < "3"', "base[extra]"]))
    index.add(wheel("base", "1.0"), wheel("base", "2.5", requires=['more; extra == "extra"']), wheel("more", "1"))
    lock, kept = lock_for(["App"], "3.11", store, settings(index))
    assert not kept
    assert files_of(lock) == ["app-1.0-py3-none-any.whl", "base-2.5-py3-none-any.whl", "more-1-py3-none-any.whl"]
    for package in lock.packages:
        assert store.fetch(package.blob).read_bytes() == index.wheels[package.file]
        assert package.size == len(index.wheels[package.file])
    assert lock.as_requirements() == "app==1.0\nbase==2.5\nmore==1\n"
    assert lock.names == {"app", "base", "more"}


def test_a_lock_is_kept_and_needs_no_index(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "1.0"))
    first, _ = lock_for(["app"], "3.11", store, settings(index))
    index.add(wheel("app", "2.0"))
    elsewhere = settings(index)
    index.stop()
    again, kept = lock_for([" App "], "3.11", store, elsewhere)
    assert (again, kept) == (first, True)


def test_a_kept_lock_fetches_a_wheel_that_the_store_lost(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "1.0"))
    lock, _ = lock_for(["app"], "3.11", store, settings(index))
    blob = Path(store.root_url) / "blobs" / lock.packages[0].digest[:2] / lock.packages[0].digest
    blob.unlink()
    index.add(wheel("app", "2.0"))
    again, kept = lock_for(["app"], "3.11", store, settings(index))
    assert (again, kept) == (lock, True)
    assert blob.is_file()
    blob.unlink()
    del index.wheels["app-1.0-py3-none-any.whl"]
    with pytest.raises(EnvironmentBuildError, match=r"locked wheels cannot be downloaded \(app-1.0-py3-none-any.whl\)"):
        lock_for(["app"], "3.11", store, settings(index))


def test_no_requirements_make_an_empty_lock_without_an_index(store: ArtefactStore) -> None:
    lock, _ = lock_for([], "3.12", store, settings(NOWHERE))
    assert lock.packages == ()


# Which wheel -------------------------------------------------------------------------------------------

GENERIC = "cp311-cp311"


CHOICES: list[tuple[str, list[str], int]] = [
    ("3.11", [f"{GENERIC}-manylinux_2_28_x86_64", f"{GENERIC}-manylinux_2_34_x86_64"], 0),
    ("3.11", [f"{GENERIC}-manylinux_2_17_x86_64.manylinux2014_x86_64", f"{GENERIC}-manylinux_2_28_x86_64"], 1),
    ("3.11", [f"{GENERIC}-musllinux_1_2_x86_64", f"{GENERIC}-manylinux2014_x86_64"], 1),
    ("3.11", [f"{GENERIC}-manylinux_2_28_aarch64", "py3-none-any"], 1),
    ("3.11", ["cp312-cp312-manylinux_2_28_x86_64", f"{GENERIC}-manylinux_2_28_x86_64"], 1),
    ("3.12", ["cp312-cp312-manylinux_2_28_x86_64", f"{GENERIC}-manylinux_2_28_x86_64"], 0),
    ("3.12", ["cp38-abi3-manylinux_2_28_x86_64", "py3-none-any"], 0),
    ("3.11", ["cp38-abi3-manylinux_2_28_x86_64", f"{GENERIC}-manylinux1_x86_64"], 1),
    ("3.11", ["cp311-cp311d-manylinux_2_28_x86_64", "py2.py3-none-any"], 1),
    ("3.11", [f"{GENERIC}-win_amd64", f"{GENERIC}-macosx_11_0_arm64", f"{GENERIC}-linux_x86_64"], 2),
    ("3.11", ["py3-none-any", "2-py3-none-any", "10-py3-none-any", "1-py3-none-any"], 2),
    ("3.11", ["py3-none-any", f"1-{GENERIC}-manylinux1_x86_64", f"{GENERIC}-manylinux2014_x86_64"], 2),
]
"""Python, tags of the wheels that an index has of one version, and the place of the one that the server takes."""


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_wheels_are_those_the_server_takes(index: Index, store: ArtefactStore, python: str) -> None:
    made = {
        f"app{number}": [wheel(f"app{number}", "1.0", tag) for tag in tags]
        for number, (its_python, tags, _) in enumerate(CHOICES)
        if its_python == python
    }
    for wheels_of_app in made.values():
        index.add(*wheels_of_app)
    lock, _ = lock_for(list(made), python, store, settings(index))
    chosen = {name: wheels_of_app[CHOICES[int(name[3:])][2]] for name, wheels_of_app in made.items()}
    assert {package.name: package.file for package in lock.packages} == {
        name: file for name, (file, _) in chosen.items()
    }
    for package in lock.packages:
        assert store.fetch(package.blob).read_bytes() == chosen[package.name][1]


def test_a_lock_that_tests_publish_themselves_is_the_one_that_an_index_gives(
    index: Index, store: ArtefactStore
) -> None:
    """Tests that need a lock, and not its resolution, have it from `locked`."""
    wheels_of_app = wheel("app", "1.0", requires=["base"]), wheel("base", "2.0")
    index.add(*wheels_of_app)
    ours = locked("app", *wheels_of_app, store=store, settings=settings(index), python="3.11")
    other = ArtefactStore(f"{store.root_url}-other", Path(f"{store.root_url}-cache"))
    assert lock_for(["app"], "3.11", other, settings(index)) == (ours, False)
    assert lock_for(["app"], "3.11", store, settings(index)) == (ours, True)
    assert all(store.fetch(each.blob).read_bytes() == other.fetch(each.blob).read_bytes() for each in ours.packages)


def test_platforms_are_ranked_as_the_reference_ranks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against `packaging`, from which pip has its tags, on a machine like the server: x86_64, glibc 2.31."""
    monkeypatch.setattr("packaging._manylinux._get_glibc_version", lambda: (2, 31))
    monkeypatch.setattr("packaging._manylinux._have_compatible_abi", lambda *_: True)
    ours = list(dict.fromkeys(tag.platform for tag in wheels.edge_tags("3.11")))
    assert ours == [*packaging._manylinux.platform_tags(["x86_64"]), "linux_x86_64", "any"]


def test_a_version_without_a_wheel_for_the_edge_is_passed_over_or_told(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "2.0", f"{GENERIC}-manylinux_2_34_x86_64"), wheel("app", "1.0"))
    assert files_of(lock_for(["app"], "3.11", store, settings(index))[0]) == ["app-1.0-py3-none-any.whl"]
    with pytest.raises(EnvironmentBuildError, match=r"\(app==2.0\) cannot be resolved for Python 3.11 on x86_64-many"):
        lock_for(["app==2.0"], "3.11", store, settings(index))


def test_a_version_that_the_server_s_pip_would_refuse_is_passed_over(index: Index, store: ArtefactStore) -> None:
    """uv ignores the upper bound of Requires-Python; pip on the server would not install the wheel."""
    index.add(wheel("strenum", "1.2", python=">=3.8,<4"))
    index.add(wheel("strenum", "1.3", python=">=3.8,<3.11"))
    index.add(wheel("litert", "2.0", requires=["strenum"]))
    lock, _ = lock_for(["litert"], "3.11", store, settings(index))
    assert [(p.name, p.version) for p in lock.packages] == [("litert", "2.0"), ("strenum", "1.2")]
    with pytest.raises(EnvironmentBuildError, match="cannot be resolved"):
        lock_for(["litert", "strenum==1.3"], "3.11", store, settings(index))


def test_a_local_version_is_pinned_whole(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "1.0+cpu"), wheel("other_thing", "1.0"))
    lock, _ = lock_for(["app", "Other.Thing"], "3.11", store, settings(index))
    assert lock.as_requirements() == "app==1.0+cpu\nother-thing==1.0\n"
    assert [package.file for package in lock.packages] == sorted(index.wheels)


# Indexes that fail or lie ------------------------------------------------------------------------------


def test_a_wheel_other_than_the_index_claims_is_refused(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "1.0"))
    index.claims["app-1.0-py3-none-any.whl"] = "sha256=" + "0" * 64
    with pytest.raises(EnvironmentBuildError, match=r"(?s)app-1.0-py3-none-any.whl.*DO NOT MATCH THE HASHES"):
        lock_for(["app"], "3.11", store, settings(index))
    assert store.named(LOCKS) == {}
    assert not store.has("0" * 64)


def test_an_index_must_tell_sha256_or_nothing(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "1.0"), wheel("base", "1.0"))
    index.claims = {"app-1.0-py3-none-any.whl": "", "base-1.0-py3-none-any.whl": "md5=" + "0" * 32}
    lock, _ = lock_for(["app"], "3.11", store, settings(index))
    assert store.fetch(lock.packages[0].blob).read_bytes() == index.wheels["app-1.0-py3-none-any.whl"]
    with pytest.raises(EnvironmentBuildError, match=r"does not tell the sha256 of base-1.0-py3-none-any.whl"):
        lock_for(["base"], "3.11", store, settings(index))


@pytest.mark.parametrize(
    ("requirements", "told"),
    [
        (["nosuch"], r"\(nosuch\) cannot be resolved.*(?s:.)*nosuch was not found in the package registry"),
        (["app>=2"], r"\(app>=2\) cannot be resolved"),
        (["app==1.0", "base>=2"], r"\(app==1.0, base>=2\) cannot be resolved"),
        (["app => 1"], "'app => 1' is not a requirement such as scikit-learn==1.5.2"),
        (["--index-url http://evil"], "'--index-url http://evil' is not a requirement"),
        (["-r /etc/passwd"], "'-r /etc/passwd' is not a requirement"),
        (["app @ http://u:hush@evil/app-1.0-py3-none-any.whl"], "names a URL, but a component is made of wheels"),
    ],
)
def test_what_cannot_be_resolved_is_told(
    index: Index, store: ArtefactStore, requirements: list[str], told: str
) -> None:
    index.add(wheel("app", "1.0", requires=["base<2"]), wheel("base", "1.0"), wheel("base", "2.0"))
    with pytest.raises(EnvironmentBuildError, match=told) as error:
        lock_for(requirements, "3.11", store, settings(index))
    assert "hush" not in str(error.value)
    assert store.named(LOCKS) == {}


def test_an_index_that_cannot_be_reached_is_told_apart(store: ArtefactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "RETRIES", 0)
    with pytest.raises(
        EnvironmentBuildError, match=r"index cannot be asked .*\(app\): check the network, and index_url"
    ):
        lock_for(["app"], "3.11", store, settings(NOWHERE))


def test_credentials_reach_the_index_and_nothing_else(index: Index, store: ArtefactStore) -> None:
    index.credentials = "operator:p%40ss-hush"
    index.add(wheel("app", "1.0"), wheel("base", "1.0"))
    lock, _ = lock_for(["app"], "3.11", store, settings(index))
    assert lock.key == lock_key(["app"], "3.11", settings(index.url_with("other:secret")))
    assert lock.key != lock_key(["app"], "3.11", settings("http://127.0.0.1:1/simple"))
    for requirements in (["app", "nosuch"], ["app>3"]):
        with pytest.raises(EnvironmentBuildError) as error:
            lock_for(requirements, "3.11", store, settings(index))
        assert "hush" not in str(error.value)
    with pytest.raises(EnvironmentBuildError) as error:
        lock_for(["base"], "3.11", store, settings(index.url_with("operator:wrong-hush")))
    assert "hush" not in str(error.value)
    assert "hush" not in everything_stored(store)
    assert str(index.url).rpartition("@")[2] not in everything_stored(store)


@pytest.mark.parametrize(
    ("url", "text", "redacted"),
    [
        ("https://u:pass@host/simple", "get https://u:pass@host/simple: pass", "get https://host/simple: ****"),
        ("https://token@host/", "token at https://host/", "**** at https://host/"),
        ("https://u:p%40s@host/", "p@s p%40s u", "**** **** u"),
        ("https://host/", "https://x:y@other/ failed", "https://other/ failed"),
        (
            "https://u:p@ss@host/",
            "https://u:p@ss@host/ and //a@b@other/x@y: p@ss",
            "https://host/ and //other/x@y: ****",
        ),
    ],
)
def test_secrets_are_taken_out_of_errors(url: str, text: str, redacted: str) -> None:
    assert resolver.redact(text, settings(url)) == redacted


def test_an_extra_index_is_looked_at_as_pip_does(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "1.0", requires=["base"]))
    with Index() as second:
        second.add(wheel("app", "2.0", requires=["base"]), wheel("base", "1.0"))
        lock, _ = lock_for(["app"], "3.11", store, settings(index, extra_index_urls=(second.url,)))
    assert files_of(lock) == ["app-2.0-py3-none-any.whl", "base-1.0-py3-none-any.whl"]


def test_the_shell_s_own_settings_change_nothing(
    index: Index, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "UV_FIND_LINKS", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, NOWHERE if "INDEX" in name else str(tmp_path))
    monkeypatch.setenv("UV_CONSTRAINT", "/nowhere")
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    (tmp_path / "uv.toml").write_text("offline = true\n")
    monkeypatch.chdir(tmp_path)
    index.add(wheel("app", "1.0"))
    assert files_of(lock_for(["app"], "3.11", store, settings(index))[0]) == ["app-1.0-py3-none-any.whl"]


# Locks from elsewhere ----------------------------------------------------------------------------------


def _lock_in_a_process(store: ArtefactStore, runtime: RuntimeSettings, results: multiprocessing.Queue[str]) -> None:
    results.put(lock_for(["app"], "3.11", store, runtime)[0].model_dump_json())


def test_two_processes_agree_on_one_lock(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "1.0"))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_lock_in_a_process, args=(store, settings(index), results)) for _ in range(2)]
    for process in processes:
        process.start()
    told = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(told) == 1
    assert [json.loads(told.pop())["key"]] == list(store.named(LOCKS))


def test_the_lock_that_stands_wins(
    index: Index, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another process publishes between our look and our writing."""
    index.add(wheel("app", "1.0"))
    first, _ = lock_for(["app"], "3.11", store, settings(index))
    index.add(wheel("app", "2.0"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "another"))
    look, looks = store.names, iter([[]])
    monkeypatch.setattr(store, "names", lambda kind, key: next(looks, look(kind, key)))
    second, kept = lock_for(["app"], "3.11", store, settings(index))
    assert (second, kept) == (first, False)
    assert "/files/app-2.0-py3-none-any.whl" in index.asked


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"file": "../../evil-1.0-py3-none-any.whl"}, "is not valid, delete it"),
        ({"file": "other-1.0-py3-none-any.whl"}, "is not a wheel of app 1.0"),
        ({"version": "1.0 --index-url=http://evil"}, "is not a wheel of app 1.0 --index-url"),
        ({"digest": "xyz"}, "is not valid, delete it"),
        ({"size": -1}, "is not valid, delete it"),
    ],
)
def test_a_lock_that_was_tampered_with_is_refused(store: ArtefactStore, change: dict[str, object], told: str) -> None:
    lock = locked("app", wheel("app", "1.0"), store=store, settings=settings(NOWHERE), python="3.11")
    document = lock.model_dump(mode="json")
    document["packages"][0] |= change
    path = Path(store.root_url) / LOCKS / f"{lock.key}.json"
    path.write_text(json.dumps(document))
    with pytest.raises(CorruptError, match=told):
        lock_for(["app"], "3.11", store, settings(NOWHERE))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"python": "3.12"}, r"is for Python 3.12 on .*, not for Python 3.11"),
        ({"platform": "aarch64-manylinux_2_31"}, r"on aarch64-manylinux_2_31 .*, not for Python 3.11 on x86_64"),
    ],
)
def test_a_lock_for_another_python_or_platform_is_refused(
    store: ArtefactStore, change: dict[str, str], told: str
) -> None:
    lock, _ = lock_for([], "3.11", store, settings(NOWHERE))
    path = Path(store.root_url) / LOCKS / f"{lock.key}.json"
    path.write_text(json.dumps({**lock.model_dump(mode="json"), **change}))
    with pytest.raises(CorruptError, match=told):
        lock_for([], "3.11", store, settings(NOWHERE))


def test_constraints_bound_what_others_need_and_take_part_in_the_key(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "1.0", requires=["base"]), wheel("base", "1.0"), wheel("base", "2.0"), wheel("odd", "1.0"))
    free, _ = generation_for(["app"], "3.11", store, settings(index))
    bound, kept = generation_for(["app"], "3.11", store, settings(index), ["Base<2", "odd==1.0"])
    assert not kept
    assert files_of(free.lock) == ["app-1.0-py3-none-any.whl", "base-2.0-py3-none-any.whl"]
    assert files_of(bound.lock) == ["app-1.0-py3-none-any.whl", "base-1.0-py3-none-any.whl"]  # and no odd
    assert bound.lock.constraints == ("base<2", "odd==1.0")
    assert bound.lock.key != free.lock.key
    again, kept = generation_for(["app"], "3.11", store, settings(index), ["odd==1.0", "base <2"])
    assert (again, kept) == (bound, True)
    # a refresh keeps to them
    index.add(wheel("base", "1.5"), wheel("base", "2.5"))
    _, now = refresh_lock(bound.lock, store, settings(index))
    assert (files_of(now.lock)[1], now.lock.constraints, now.number) == (
        "base-1.5-py3-none-any.whl", bound.lock.constraints, 2,
    )  # fmt: skip


def test_constraints_that_nothing_fits_are_said(index: Index, store: ArtefactStore) -> None:
    index.add(wheel("app", "1.0", requires=["base"]), wheel("base", "2.0"))
    with pytest.raises(EnvironmentBuildError, match=r"(?s)cannot be resolved.*base<2"):
        generation_for(["app"], "3.11", store, settings(index), ["base<2"])


def test_a_lock_without_constraints_has_the_bytes_and_key_that_it_always_had() -> None:
    lock = Lock(key="k", python="3.11", platform="p", requirements=("a",), packages=())
    assert lock.model_dump(mode="json") == {
        "key": "k", "python": "3.11", "platform": "p", "requirements": ["a"], "packages": [],
    }  # fmt: skip
    plain = settings(NOWHERE)
    assert lock_key(["a"], "3.11", plain) == lock_key(["a"], "3.11", plain, [])


def test_wheels_are_fetched_from_where_the_resolution_found_them(index: Index, store: ArtefactStore) -> None:
    """The list of all files of a project is read once; for scipy that takes longer than the download."""
    index.add(wheel("app", "1.0", requires=["base"]), wheel("base", "2.0+local.1"))
    lock, _ = lock_for(["app"], "3.11", store, settings(index))
    assert [path for path in index.asked if path.startswith("/simple/")] == ["/simple/app/", "/simple/base/"]
    assert all(store.has(package.digest) for package in lock.packages)


@pytest.mark.parametrize(
    ("address", "is_taken"),
    [
        ("https://files.example/packages/ab/app-1.0-py3-none-any.whl", True),
        ("http://127.0.0.1:8080/a%20b/app-1.0-py3-none-any.whl", True),
        ("https://files.example/${PIP_INDEX_URL}/app-1.0-py3-none-any.whl", False),
        ("https://files.example/ --index-url https://evil.example/app-1.0-py3-none-any.whl", False),
        ("https://files.example/\nevil==6.6 #/app-1.0-py3-none-any.whl", False),
        ("https://files.example/x\\\n/app-1.0-py3-none-any.whl", False),
        ("https://me:secret@files.example/app-1.0-py3-none-any.whl", False),
        ("https://files.example/app-1.0-py3-none-any.whl?token=secret", False),
        ("https://files.example/app-1.0-py3-none-any.whl#egg=evil", False),
        ("https://files.example/download/17", False),
        ("file:///wheels/app-1.0-py3-none-any.whl", False),
        ("git+https://files.example/app-1.0-py3-none-any.whl", False),
    ],
)
def test_an_address_is_only_taken_if_it_is_safe_in_a_line_of_pip_s(address: str, is_taken: bool) -> None:
    file = "app-1.0-py3-none-any.whl"
    entry = {"name": "app", "version": "1.0",
             "wheels": [{"name": file, "url": address, "hashes": {"sha256": "a" * 64}}]}  # fmt: skip
    package, taken = _choose(entry, edge_tags("3.11"), "3.11")
    assert (package.file, taken) == (file, address if is_taken else "")
