"""Blocking checks that failed, beyond the run in which they did.

Dagster stops the steps behind a failed blocking check in the same run only. So an artefact carries the names of its
check's rows that do not hold, and no package is registered from it. Sound artefacts carry nothing: their digests are
what they were before this was recorded. The gates are not here: deployment_package.py computes them again.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow, all_pass
from edgepack_assets.errors import EdgepackError
from edgepack_assets.partitions import ModelKey

_ROWS = "failed_rows"
"""Among an artefact's facts: the rows of its own blocking check that do not hold."""
_INPUTS = "failed_inputs"
"""Among the facts of metrics: asset -> failed rows, of what they were made from."""


def failed_rows(rows: Iterable[CheckRow]) -> dict[str, list[str]]:
    """What the facts of an artefact say of its blocking check; nothing if that passes."""
    rows = list(rows)
    if all_pass(rows):
        return {}
    return {_ROWS: [row.name for row in rows if not (row.passed or row.warns)] or ["it has no rows"]}


def failed_inputs(artefacts: Iterable[Artefact]) -> dict[str, dict[str, list[str]]]:
    """What the facts of metrics say of the artefacts that they were made from; nothing if the checks of all passed."""
    failed = {artefact.asset: artefact.facts[_ROWS] for artefact in artefacts if _ROWS in artefact.facts}
    return {_INPUTS: failed} if failed else {}


def refuse_failed_checks(key: ModelKey, artefacts: Iterable[Artefact]) -> None:
    """Raises EdgepackError, naming the rows, if the blocking check of an artefact, or of what it was made from,
    failed."""
    failed: dict[str, list[str]] = {}
    for artefact in artefacts:
        failed |= artefact.facts.get(_INPUTS, {})
        if _ROWS in artefact.facts:
            failed[artefact.asset] = artefact.facts[_ROWS]
    if failed:
        checks = "; ".join(f"the check of {asset} ({', '.join(rows)})" for asset, rows in sorted(failed.items()))
        raise EdgepackError(
            f"checks of {key} failed, nothing is registered: {checks}. Correct what they found, and materialize "
            f"{', '.join(sorted(failed))} of {key} again, and then what is made from it"
        )
