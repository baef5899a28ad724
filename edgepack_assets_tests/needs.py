"""Programs of the machine that some tests need: how each is found, and what to install where it is missing.

A test that lacks one is skipped, and the end of the test run says what to install. With EDGEPACK_TESTS_NEED_ALL set, as
in CI, it fails instead."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

NEEDS_ALL = "EDGEPACK_TESTS_NEED_ALL"


def find_chromium() -> str | None:
    """The browser that the UI's tests drive."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def find_postgres() -> Path | None:
    """The folder of initdb and pg_ctl, which Debian keeps out of PATH."""
    initdb = shutil.which("initdb")
    if initdb is not None:
        return Path(initdb).parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return installed[-1].parent if installed else None


def _has_node() -> bool:
    return shutil.which("node") is not None and shutil.which("npm") is not None


@dataclass(frozen=True)
class Need:
    """One such program. `packages` are Debian's."""

    program: str
    packages: str
    is_installed: Callable[[], bool]

    @property
    def missing(self) -> str:
        """Why a test that needs it is skipped, or fails."""
        return f"{self.program} is not installed"


NEEDS = {
    "bubblewrap": Need("bubblewrap", "bubblewrap", lambda: shutil.which("bwrap") is not None),
    "browser": Need("Chromium", "chromium fonts-dejavu-core", lambda: find_chromium() is not None),
    "postgres": Need("PostgreSQL", "postgresql", lambda: find_postgres() is not None),
    "azure": Need("Node.js with npm", "nodejs npm", _has_node),
}
"""By the marker of the tests that need the program."""


def first_missing(markers: Sequence[str]) -> Need | None:
    """The first program that a test with these markers needs and this machine lacks."""
    return next((need for name, need in NEEDS.items() if name in markers and not need.is_installed()), None)


def all_needed() -> bool:
    """Whether a missing program is an error."""
    return bool(os.environ.get(NEEDS_ALL))


def skipped_lines(reasons: Sequence[str]) -> list[str]:
    """A line for each program whose lack is among the reasons for which tests were skipped."""
    counts = [(need, sum(need.missing in reason for reason in reasons)) for need in NEEDS.values()]
    return [
        f"skipped {count} test{'s' if count > 1 else ''}: {need.missing} (Debian: apt-get install {need.packages})"
        for need, count in counts
        if count
    ]
