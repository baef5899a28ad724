"""When a process that makes several runs has to end: what it has loaded has changed, or memory is short."""

from __future__ import annotations

import importlib.util
import os
import site
import sys
import time
from pathlib import Path

import pytest

from edgepack_assets.defs.run_processes.loaded_code import LoadedCode
from edgepack_assets.defs.run_processes.memory import memory_is_short

MACHINE = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  {} kB\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "some_plug_in.py"
    file.write_text("VALUE = 1\n")
    spec = importlib.util.spec_from_file_location("some_plug_in", file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    monkeypatch.setitem(sys.modules, "some_plug_in", loaded)
    return file


def loading(*others: Path) -> LoadedCode:
    """Of a process that starts after every change so far, as far as the file system can tell."""
    return LoadedCode(time.time_ns() + 10**9, others)


def loaded() -> LoadedCode:
    code = loading()
    code.note()
    return code


def test_a_module_that_is_loaded_later_counts_from_there_on(module: Path) -> None:
    plug_in = sys.modules.pop("some_plug_in")
    code = loading()
    module.write_text("VALUE = 22\n")
    assert not code.has_changed()
    sys.modules["some_plug_in"] = plug_in
    code.note()
    assert not code.has_changed()
    module.write_text("VALUE = 333\n")
    assert code.has_changed()


@pytest.mark.parametrize("keep_time", [False, True])
def test_what_was_changed_while_it_was_loaded_counts(module: Path, keep_time: bool) -> None:
    """As an editor saves it, or as `cp -p` and installers put it there. Nobody knows which of the two was loaded."""
    began, before = time.time_ns(), module.stat()
    module.write_text("VALUE = 4444\n")
    if keep_time:
        os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    code = LoadedCode(began)
    code.note()
    assert code.has_changed()


def test_what_a_run_loads_must_not_change_in_that_run(module: Path) -> None:
    plug_in = sys.modules.pop("some_plug_in")
    code = loaded()
    module.write_text("VALUE = 22\n")
    time.sleep(0.1)  # longer than a tick of the file system's clock
    code.note()
    sys.modules["some_plug_in"] = plug_in
    code.note()
    assert not code.has_changed(), "a process that begins a run loads what is there"
    del sys.modules["some_plug_in"]
    code = loaded()
    module.write_text("VALUE = 333\n")
    sys.modules["some_plug_in"] = plug_in
    code.note()
    assert code.has_changed()


def test_a_replaced_file_of_the_same_size_and_time_counts(module: Path) -> None:
    """As installers and `cp -p` replace one."""
    code, before = loaded(), module.stat()
    other = module.with_name("other")
    other.write_text("VALUE = 2\n")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(module)
    assert module.stat().st_size == before.st_size
    assert code.has_changed()


def test_a_removed_module_counts(module: Path) -> None:
    code = loaded()
    module.unlink()
    assert code.has_changed()


def test_a_file_that_appears_or_goes_counts(tmp_path: Path) -> None:
    variables = tmp_path / ".env"
    code = loading(variables)
    assert not code.has_changed()
    variables.write_text("A=1\n")
    assert code.has_changed()
    code = loading(variables)
    variables.unlink()
    assert code.has_changed()


def test_whatever_is_installed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path)])
    code = loaded()
    assert not code.has_changed()
    (tmp_path / "plug_in-1.0.dist-info").mkdir()
    assert code.has_changed()


@pytest.mark.parametrize(("left", "is_short"), [(99, True), (101, False)])
def test_memory_of_the_machine(tmp_path: Path, left: int, is_short: bool) -> None:
    file = tmp_path / "meminfo"
    file.write_text(MACHINE.format(left))
    assert memory_is_short(file, tmp_path, tmp_path) is is_short


OWN_GROUPS = {
    "a container": ("0::/", ".", 2),
    "a service": ("0::/system.slice/edge.service", "system.slice/edge.service", 2),
    "the slice of a service": ("0::/system.slice/edge.service", "system.slice", 2),
    "a container that sees its own group as the top": ("0::/docker/0123", ".", 2),
    "the first version": ("3:cpu:/other\n4:memory:/docker/0123\n0::/", "memory/docker/0123", 1),
    "the first version in a container": ("4:hugetlb,memory:/docker/0123\n0::/", "memory", 1),
}


@pytest.mark.parametrize("own", OWN_GROUPS)
@pytest.mark.parametrize(
    ("limit", "used", "cached", "is_short"),
    [("1000", 950, 0, True), ("1000", 950, 60, False), ("max", 950, 0, False), ("1000", 100, 0, False)],
)
def test_memory_of_a_control_group(  # noqa: PLR0917 - pytest's
    tmp_path: Path, own: str, limit: str, used: int, cached: int, is_short: bool
) -> None:
    text, folder, version = OWN_GROUPS[own]
    group = tmp_path / "groups" / folder
    group.mkdir(parents=True)
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"), 2: ("memory.max", "memory.current", "")}
    limits, usage, total = names[version]
    (group / limits).write_text(f"{limit if version == 2 else limit.replace('max', str(2**63 - 4096))}\n")
    (group / usage).write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 5\n{total}inactive_file {cached}\n")
    (tmp_path / "meminfo").write_text(MACHINE.format(900))
    (tmp_path / "own").write_text(f"{text}\n")
    assert memory_is_short(tmp_path / "meminfo", tmp_path / "groups", tmp_path / "own") is is_short


def test_memory_beyond_which_a_group_is_slowed_down(tmp_path: Path) -> None:
    for name, value in {"max": "9000", "high": "1000", "current": "950", "stat": "inactive_file 0"}.items():
        (tmp_path / f"memory.{name}").write_text(f"{value}\n")
    (tmp_path / "own").write_text("0::/\n")
    assert memory_is_short(tmp_path / "missing", tmp_path, tmp_path / "own")


@pytest.mark.parametrize("text", ["", "MemTotal: much\n", "MemTotal: 5 kB\n", "0::/\n4:memory:/\n"])
def test_what_cannot_be_read_limits_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "meminfo").write_text(text)
    assert not memory_is_short(tmp_path / "meminfo", tmp_path, tmp_path / "meminfo")
    assert not memory_is_short(tmp_path / "missing", tmp_path, tmp_path / "missing")
