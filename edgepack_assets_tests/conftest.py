"""What tests all over the project share: the loopback Azure, started once, empty for every test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from edgepack_assets_tests.azure.loopback import LoopbackAzure, running
from edgepack_assets_tests.azure.storage import missing


def pytest_report_header() -> str:
    """A disk that fills up on the way makes hundreds of errors that do not say so."""
    folder = tempfile.gettempdir()
    return f"free in {folder}: {shutil.disk_usage(folder).free / 2**30:.1f} GiB"


@pytest.fixture(scope="session")
def loopback_azure() -> Iterator[LoopbackAzure]:
    """Runs, but no process is pointed at it: take `azure`."""
    if reason := missing():
        (pytest.fail if os.environ.get("EDGEPACK_TESTS_NEED_AZURE") else pytest.skip)(reason)
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
