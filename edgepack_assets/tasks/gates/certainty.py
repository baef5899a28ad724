"""How sure the metrics of a run are: from the records that it kept, and for a reference from those of that package.

What follows for a gate is in compare.py, the statistics are in intervals.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import CorruptError, EdgepackError, TransientError
from edgepack_assets.model_types.interface import read_lines
from edgepack_assets.model_types.samples import Samples, StoredSamples
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import DamagedVersion, RegisteredVersion
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.gates.compare import Certainty, Reference
from edgepack_assets.tasks.gates.intervals import differences, intervals, worst_slices
from edgepack_assets.tasks.gates.references import references
from edgepack_assets.tasks.gates.resampling import Difference, Interval
from edgepack_assets.tasks.packages.history import model_version_of
from edgepack_assets.tasks.payload_data import open_payload
from edgepack_assets.tasks.predecessor.answers import answers_to
from edgepack_assets.tasks.predecessor.find import Predecessor, Recorded, recorded

SAMPLES = "samples"
"""The part of a metrics artefact that holds them."""
_LEVEL = 0.95
_NO_RECORDS = "there is no interval: nothing is known of single records"
_SHOWN = 20
_Package = RegisteredVersion | DamagedVersion


def samples_of(metrics: Artefact, context: TaskContext) -> Samples | None:
    """The records of a metrics artefact; None if it has none. Raises CorruptError."""
    if SAMPLES not in metrics.parts:
        return None
    try:
        return StoredSamples.model_validate(context.store.read_json(metrics.parts[SAMPLES])).samples()
    except (ValidationError, IndexError) as error:
        raise CorruptError(
            f"metrics of {metrics.partition}: its samples cannot be read; materialize it again: {error}"
        ) from None


def find_certainties(
    metrics: Artefact, compared: Mapping[str, Reference], key: ModelKey, context: TaskContext
) -> dict[str, Certainty]:
    """Metric -> how sure it is, of each gate with a confidence. Nothing is read where no gate has one."""
    gates = {name: gate for name, gate in context.entry(key).gates.items() if gate.confidence is not None}
    if not gates:
        return {}
    now = samples_of(metrics, context)
    if now is None:
        why = f"no interval: metrics of {key} kept no records; materialize it again"
        return dict.fromkeys(gates, Certainty(why, why))
    lower_is_better = context.model_type(key).lower_is_better
    before: dict[str, Samples | str] = {}
    found = {}
    for name, gate in gates.items():
        assert gate.confidence is not None
        package = compared[name].package if name in compared else None
        difference: Difference | str | None = None
        if package is not None:
            if str(package) not in before:
                before[str(package)] = samples_of_package(package, metrics, key, context)
            theirs = before[str(package)]
            if isinstance(theirs, str):
                difference = theirs
            else:
                changes = differences(theirs, _only(now, name), gate.confidence, lower_is_better)
                difference = changes.get(name, _why_none(name, key, context))
        interval = intervals(_only(now, name), gate.confidence).get(name, _why_none(name, key, context))
        found[name] = Certainty(interval, difference)
    return found


def _why_none(metric: str, key: ModelKey, context: TaskContext) -> str:
    why = context.model_type(key).no_intervals.get(metric)
    return f"there is no interval: {why}" if why else _NO_RECORDS


def _only(samples: Samples, metric: str) -> Samples:
    scaled = {name: each for name, each in samples.scaled.items() if name == metric}
    wanted = {metric, *(of for of, _, _ in scaled.values())}
    values = {name: values for name, values in samples.values.items() if name in wanted}
    macro = {name: kind for name, kind in samples.macro.items() if name == metric}
    return replace(samples, values=values, macro=macro, scaled=scaled)


def samples_of_package(package: _Package, metrics: Artefact, key: ModelKey, context: TaskContext) -> Samples | str:
    """The records of a registered package on the payload of these metrics, or why there are none. Raises
    TransientError."""
    version = model_version_of(package, context.entry(key).model_name)
    if isinstance(package, DamagedVersion) or version is None:
        return f"{package} cannot be compared record by record"
    try:
        return _paired(Predecessor(package, version), metrics, key, context)
    except TransientError:
        raise
    except EdgepackError as error:
        return f"cannot be compared record by record: {error}"


def _paired(predecessor: Predecessor, metrics: Artefact, key: ModelKey, context: TaskContext) -> Samples | str:
    known = recorded(predecessor, context)
    if known is None:
        return f"the run that made {predecessor} is not in the artefact store, so records cannot be compared"
    payload_data = context.store.load("payload_data", str(key))
    if payload_data.digest != metrics.made_from["payload_data"]:
        return f"payload_data of {key} was made anew since its metrics"
    if known.payload_data.parts == payload_data.parts and (samples := _kept(known, context)) is not None:
        return samples
    implementation = context.model_type(key)
    if implementation.preparation is not None:
        return f"{predecessor} was validated on another payload, or by an earlier release: package it once more"
    inspection = context.store.read_json(known.config_package.parts["inspection"])
    with answers_to(payload_data, predecessor, key, context) as results:
        score = implementation.score(open_payload(payload_data, context), results, None, inspection)
    return score.samples or _NO_RECORDS


def _kept(known: Recorded, context: TaskContext) -> Samples | None:
    """The records that the run of a package kept."""
    metrics = context.store.load("metrics", known.validation_results.partition)
    if metrics.made_from.get("validation_results") != known.validation_results.digest:
        return None
    return samples_of(metrics, context)


@dataclass(frozen=True)
class CertaintyReport:
    """What a person sees of how sure metrics are: `texts` by metric, tables by title, rows that only warn."""

    texts: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    rows: tuple[CheckRow, ...] = ()


def certainty_report(metrics: Artefact, payload_data: Artefact, key: ModelKey, context: TaskContext) -> CertaintyReport:
    """Intervals, the worst parts and the records that got worse. Empty where the configuration asks for none."""
    entry = context.entry(key)
    levels = [gate.confidence for gate in entry.gates.values() if gate.confidence is not None]
    if not levels and not entry.intervals:
        return CertaintyReport()
    samples, level = samples_of(metrics, context), max(levels, default=_LEVEL)
    numbers: Mapping[str, float | None] = metrics.facts["metrics"]
    found: dict[str, Interval | str] = {name: _why_none(name, key, context) for name in numbers}
    if samples is not None:
        found |= intervals(samples, level)
    tables = {"How sure metrics are": [_interval_row(name, numbers[name], found[name]) for name in sorted(numbers)]}
    rows: list[CheckRow] = []
    lower_is_better = context.model_type(key).lower_is_better
    if samples is not None and (worst := worst_slices(samples, level, lower_is_better)):
        tables["Where metrics are worst"] = worst
        rows += [_slice_row(row, level) for row in worst]
    if samples is not None:
        compared = references(metrics, key, context)
        packages = {str(each.package): each.package for each in compared.values() if each.package is not None}
        for package in packages.values() if levels else ():
            theirs = samples_of_package(package, metrics, key, context)
            if isinstance(theirs, Samples):
                changes = differences(theirs, samples, level, lower_is_better)
                tables[f"Against {package}"] = [_difference_row(name, changes[name]) for name in sorted(changes)]
                if changed := _changed_records(changes, payload_data, context):
                    tables[f"Records that differ from {package}"] = changed
    return CertaintyReport(
        {name: str(interval) for name, interval in found.items() if isinstance(interval, Interval)}, tables, tuple(rows)
    )


def _interval_row(name: str, value: float | None, found: Interval | str) -> dict[str, Any]:
    known = found if isinstance(found, Interval) else None
    return {
        "metric": name,
        "value": "not defined" if value is None else value,
        "low": known.low if known else "",
        "high": known.high if known else "",
        "confidence": f"{known.level * 100:g}%" if known else "",
        "records": known.samples if known else "",
        "how": known.method if known else str(found),
    }


def _difference_row(name: str, found: Difference | str) -> dict[str, Any]:
    known = found if isinstance(found, Difference) else None
    return {
        "metric": name,
        "difference": known.interval.value if known else "",
        "low": known.interval.low if known else "",
        "high": known.interval.high if known else "",
        "worse": len(known.worse) if known else "",
        "better": len(known.better) if known else "",
        "by chance": known.chance if known and known.chance is not None else "",
        "how": known.interval.method if known else str(found),
    }


def _changed_records(
    changes: Mapping[str, Difference | str], payload_data: Artefact, context: TaskContext
) -> list[dict[str, Any]]:
    """A few records that got worse, and a few that got better, with their files."""
    named: dict[tuple[int, str], list[str]] = {}
    for metric, found in changes.items():
        if isinstance(found, Difference):
            for change, records in (("worse", found.worse[:_SHOWN]), ("better", found.better[:_SHOWN])):
                for record in records:
                    named.setdefault((record, change), []).append(metric)
    if not named:
        return []
    wanted = {record for record, _ in named}
    sources = {
        source["record"]: source for source in read_lines(open_payload(payload_data, context).sources)
        if source["record"] in wanted
    }  # fmt: skip
    return [
        {
            "record": record,
            "change": change,
            "metrics": ", ".join(metrics),
            "file": sources.get(record, {}).get("file") or "",
        }
        for (record, change), metrics in sorted(named.items())[: 2 * _SHOWN]
    ]


def _slice_row(worst: Mapping[str, Any], level: float) -> CheckRow:
    found = f"{worst['slice']}: {worst['value']:.4g} of {worst['records']} records"
    if math.isfinite(worst["low"]):
        found += f" ({worst['low']:.4g} to {worst['high']:.4g})"
    return CheckRow(
        f"worst {worst['by']} by {worst['metric']}", not worst["clearly worse"], found,
        f"not worse than {worst['of all']:.4g}, that of all records, {level * 100:g}% sure", warns=True,
    )  # fmt: skip
