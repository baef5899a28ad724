"""Importing the SDK leaves this process's logging, and a user's word on telemetry, as they were."""

from __future__ import annotations

import logging
import os

import pytest

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
