"""A run that is done as a job is shown as one that is done here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgepack_assets_tests.defs.remote import cheap_assets as cheap
from edgepack_assets_tests.defs.remote.conftest import Place
from edgepack_assets_tests.defs.remote.told import told

pytestmark = pytest.mark.e2e  # whole runs, in processes of their own

DEFS = "edgepack_assets_tests.defs.remote.cheap_defs"
VERSIONS = (cheap.GOOD, cheap.BAD_MODEL, cheap.FAILS_CHECK, cheap.RETRIED)


def test_graphql_tells_the_same_of_runs_here_and_in_jobs(make_place: Callable[..., Place]) -> None:
    answers = []
    for runs_as_jobs in (False, True):
        place = make_place(f"jobs-{runs_as_jobs}", runs_as_jobs)
        for version in VERSIONS:
            place.run(version)
        place.run(cheap.GOOD, ["metrics", "deployment_package"])
        answers.append(told(place.instance, [f"press:{version}" for version in VERSIONS], DEFS))
        if runs_as_jobs:
            assert len(place.jobs.jobs) == len(VERSIONS) + 1
            assert place.left_messages() == []
    here, in_jobs = answers
    assert {run["status"] for run in here["runsOrError"]["results"]} == {"SUCCESS", "FAILURE"}
    for ours, theirs in zip(_lines(in_jobs), _lines(here), strict=False):
        assert ours == theirs
    assert len(_lines(in_jobs)) == len(_lines(here))


def _lines(value: object, where: str = "") -> list[str]:
    """A line for each value, for a message that can be read."""
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in _lines(item, f"{where}.{key}")]
    if isinstance(value, list):
        return [line for number, item in enumerate(value) for line in _lines(item, f"{where}[{number}]")]
    return [f"{where} = {value!r}"]
