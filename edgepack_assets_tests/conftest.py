"""What all tests share: hypothesis' profile, markers by what a test uses, which tests stay on one worker and which go
first, what a test needs of the machine (needs.py), and the loopback Azure, started once, empty for every test."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, settings
from sqlalchemy import event
from sqlalchemy.engine import Engine

from edgepack_assets_tests import needs
from edgepack_assets_tests.azure.loopback import LoopbackAzure, running

# No test depends on how busy the machine is, and a failure comes again when one looks for it.
settings.register_profile("edgepack", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgepack")


# scikit-learn's threads look for work without a pause while one of them has none, and on a machine that others use that
# was two thirds of the time of fitting and asking small models. Set before OpenMP is loaded; for child processes too.
# How many threads there are, and so every result, stays as it is.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@event.listens_for(Engine, "connect")
def _leave_writing_to_the_kernel(connection: object, _record: object) -> None:
    """Dagster's instances in this process last as long as their test: no write waits for the disk. That waiting was
    more than half of the time of the tests that have one."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


# Each of the four databases of an instance asks what the newest of Dagster's migrations is, three times, and alembic
# loads all ninety of them for each answer: half of the time of making an instance. They are read once in this process;
# a process of the product asks without alembic (defs/lean_dagster.py).
setattr(ScriptDirectory, "from_config", functools.cache(ScriptDirectory.from_config))  # noqa: B010 - for mypy


# A quarter of a collection's processor time went into looking for garbage among what it makes and keeps.
gc.disable()


def pytest_collection_finish() -> None:
    """What has been imported and collected stays until the end: from now on garbage is looked for among the rest."""
    gc.collect()
    gc.freeze()
    gc.enable()


MARKERS = {
    "azure": {"loopback_azure"},
    "postgres": {"production"},
    "browser": {"page"},
    "daemon": {"daemon", "dev", "ui"},
    "sandbox": {"backend", "sandbox", "ordinary_python"},
    "environments": {"environment", "built", "index"},
}
"""A test that takes one of these fixtures, itself or through another one, gets the marker. All of the folder e2e get
`e2e`, those whose backend is bubblewrap `bubblewrap`, and those of a module that imports `Index`, which serves wheels
to lock and to install, `environments`. A test that does such a thing without a fixture bears the marker itself."""
ON_AZURE = {"abfs", "azure_workspace", "azure_registry"}
"""Fixtures that others, whose parameter is the name, ask for while the test runs."""
SLOW = {"e2e", "environments", "sandbox", "daemon", "azure", "postgres", "browser"}
"""What `make test-fast` leaves out. Most of it runs in processes of its own, which coverage does not see, and measuring
the rest would double the time of what runs here: with --cov, the other tests alone are measured."""
SECOND_PLANT = {
    "test_failed_checks", "test_hostile_models", "test_image_models", "test_kept_numbers", "test_keras_models",
    "test_packaging_models",
}  # fmt: skip
"""Modules of e2e/ whose tests share a plant of their own: with all of them on one worker, the others would be idle."""
LONG_FIRST = ("e2e", "daemon", "sandbox", "environments", "azure", "long")
"""Workers take the tests of these markers first: with a long test taken last, the other workers would be idle."""


def pytest_report_header() -> str:
    """A disk that fills up on the way makes hundreds of errors that do not say so."""
    folder = tempfile.gettempdir()
    return f"free in {folder}: {shutil.disk_usage(folder).free / 2**30:.1f} GiB"


def pytest_make_parametrize_id(val: object) -> str | None:
    """Of a long text its begin: every worker sends the names of all tests, and a test's children inherit its name."""
    return f"{val[:60]!a}..." if isinstance(val, str | bytes) and len(val) > 400 else None


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function):
            for marker in _markers(item):
                item.add_marker(marker)
            if any(item.get_closest_marker(marker) for marker in SLOW):
                item.add_marker(pytest.mark.no_cover)
            if group := _group(item):
                item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_turn)


def _markers(item: pytest.Function) -> Iterator[str]:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    fixtures = set(item.fixturenames)
    if any(isinstance(value, str) and value in ON_AZURE for value in parameters.values()):
        yield "azure"
    yield from (marker for marker, names in MARKERS.items() if fixtures & names)
    if hasattr(item.module, "Index"):
        yield "environments"
    if Path(__file__).with_name("e2e") in item.path.parents:
        yield "e2e"
    if parameters.get("backend") == "bubblewrap":
        yield "bubblewrap"


def _group(item: pytest.Function) -> str:
    """Tests that share a fixture which is dear to make run on one worker; empty for those that share none."""
    fixtures = {name: definitions[-1] for name, definitions in item._fixtureinfo.name2fixturedefs.items()}
    if "plant" in fixtures and fixtures["plant"].scope == "session":
        return "second-plant" if item.path.stem in SECOND_PLANT else "plant"
    is_shared = any(fixture.scope in ("module", "class") for fixture in fixtures.values())
    return item.nodeid.partition("::")[0] if is_shared else ""


def _turn(item: pytest.Item) -> tuple[int, int]:
    """Of the end-to-end tests, one worker makes the plant; those that would wait for it come last."""
    markers = {marker.name: marker for marker in item.iter_markers()}
    first = next((place for place, marker in enumerate(LONG_FIRST) if marker in markers), len(LONG_FIRST))
    if "xdist_group" in markers and markers["xdist_group"].args == ("plant",):
        return first, 0
    return first, 2 if "first_plant" in getattr(item, "fixturenames", ()) else 1


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    need = needs.first_missing([marker.name for marker in item.iter_markers()])
    if need is not None:
        (pytest.fail if needs.all_needed() else pytest.skip)(need.missing)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    yield  # pytest's own summary of single tests
    lines = needs.skipped_lines([_reason(report) for report in terminalreporter.getreports("skipped")])
    if lines:
        terminalreporter.section("not tested on this machine")
        for line in lines:
            terminalreporter.line(line)


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, Sequence) else str(report.longrepr)


@pytest.fixture(autouse=True)
def _environment_is_put_back() -> Iterator[None]:
    """Commands that run in this process prepare its environment for Dagster; the next test must not meet that."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def loopback_azure() -> Iterator[LoopbackAzure]:
    """Runs, but no process is pointed at it: take `azure`."""
    with running() as azure:
        yield azure


@pytest.fixture
def azure(loopback_azure: LoopbackAzure) -> Iterator[LoopbackAzure]:
    """An empty Azure that answers everything this process and its children ask of Azure."""
    loopback_azure.reset()
    with loopback_azure.in_force():
        yield loopback_azure
    assert loopback_azure.proxy.errors == []
    # onnxruntime, which other tests import into this process, tells its maker of that when it sees a proxy.
    assert set(loopback_azure.proxy.refused) <= {"mobile.events.data.microsoft.com"}
