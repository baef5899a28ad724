"""Importing the SDK leaves this process's logging, and a user's word on telemetry, as they were."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ometa.runtime import ParseError

from edgepack_assets.packaging.sdk import quiet_import


def test_the_root_logger_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    with pytest.raises(ImportError), quiet_import():
        root.handlers = [logging.StreamHandler()]
        root.setLevel(logging.DEBUG)
        raise ImportError
    assert (root.handlers, root.level) == before


@pytest.mark.parametrize(("chosen", "in_force"), [(None, "deny"), ("allow", "allow"), ("deny", "deny")])
def test_telemetry_is_denied_unless_the_user_chose(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, in_force: str
) -> None:
    monkeypatch.setenv("SIMATICAI_TELEMETRY", chosen or "")
    if chosen is None:
        monkeypatch.delenv("SIMATICAI_TELEMETRY")
    with quiet_import():
        assert os.environ["SIMATICAI_TELEMETRY"] == in_force


WORDS = st.text("aZ9-_.", min_size=1, max_size=8)


@settings(max_examples=15, deadline=None)
@given(WORDS, st.text("aZ9-_.*+!", min_size=1, max_size=8))
@example("scikit-learn", "1.5.2")
@example("torch", "2.4.0+cpu")
@example("a", "1!2.*")
def test_a_pin_is_read_as_the_sdk_s_own_grammar_reads_it(name: str, version: str) -> None:
    with quiet_import():
        from simaticai.helpers import pep508

    def read(how: Callable[[str], object]) -> object:
        try:
            return how(f"{name}=={version}")
        except ParseError:
            return "refused"

    assert read(pep508.parse_line) == read(lambda line: pep508.Parse(line).specification())


def test_what_is_no_pin_is_read_by_the_grammar() -> None:
    with quiet_import():
        from simaticai.helpers import pep508

    for line in ("numpy", "numpy>=1,<3", "numpy[extra]==1", "a @ https://example.org/a.whl", "numpy==1; extra == 'x'"):
        assert pep508.parse_line(line) == pep508.Parse(line).specification()
    with pytest.raises(ParseError):
        pep508.parse_line("numpy==")


def test_the_sdk_is_imported_without_the_libraries_that_a_locked_package_does_not_need() -> None:
    """In a process of its own: others of this test run have imported them."""
    code = """
import sys
from edgepack_assets.packaging.sdk import import_sdk
import_sdk()
assert not {"onnx", "numpy", "requests"} & sys.modules.keys(), "imported at once"
from simaticai.helpers import model_config
from simaticai.packaging import python_dependencies
types = model_config.TensorProto
stand_in = python_dependencies.requests
import requests
assert stand_in is not requests and stand_in.get is requests.get
assert not hasattr(stand_in, "__nothing__")
try:
    model_config.load("no such model")
except FileNotFoundError:
    pass
import onnx
import onnx.checker
assert onnx.TensorProto is types and onnx.onnx_ml_pb2.TensorProto is types
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
