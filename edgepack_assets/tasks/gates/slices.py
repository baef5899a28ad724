"""Gates on the worst part of the records: in each class, folder or hour a metric must hold.

Gates on a metric as a whole are in compare.py, how sure metrics are is in certainty.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow
from edgepack_assets.config.gate_settings import GateSettings, SliceSettings
from edgepack_assets.config.percentages import Tolerance
from edgepack_assets.model_types.samples import Samples
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.gates.certainty import samples_of, samples_of_package
from edgepack_assets.tasks.gates.compare import ROUNDING, TOO_FEW, Reference, bounds
from edgepack_assets.tasks.gates.intervals import differences, intervals, of_many, slices_of
from edgepack_assets.tasks.gates.resampling import Difference, Interval


@dataclass(frozen=True)
class _Part:
    """A part, what was found there, and by how much it holds at both ends of its interval (below 0: it does not).
    Where that is not known, anything may be."""

    name: str
    found: str
    least: float = -math.inf
    most: float = math.inf


def slice_rows(
    metrics: Artefact, compared: Mapping[str, Reference], key: ModelKey, context: TaskContext
) -> list[CheckRow]:
    """Rows for each `worst` of each gate, computed from the records that the metrics kept. Raises TransientError."""
    gates = {name: gate for name, gate in context.entry(key).gates.items() if gate.worst}
    if not gates:
        return []
    now, rows = samples_of(metrics, context), []
    before: dict[str, Samples | str] = {}
    for name, gate in sorted(gates.items()):
        lower_is_better = name in context.model_type(key).lower_is_better
        for kind, wanted in gate.worst.items():
            subject = f"gate on {name} in the worst {kind}"
            if now is None or (why := _why_no_parts(now, name, kind)):
                found = why if now is not None else f"metrics of {key} kept no records; materialize it again"
                rows.append(CheckRow(subject, False, found, f"a value of {name} in each {kind}"))
                continue
            parts = slices_of(now, kind, name)
            level = of_many(gate.confidence, len(parts)) if gate.confidence is not None else None
            if wanted.min is not None or wanted.max is not None:
                within = [_within(part, of, name, wanted, level) for part, of in parts.items()]
                rows.append(_row(subject, within, bounds(wanted), gate, wanted.too_few or "fail"))
            if wanted.tolerance is not None:
                reference = compared[name]
                package = reference.package
                if package is not None and str(package) not in before:
                    before[str(package)] = samples_of_package(package, metrics, key, context)
                theirs = before[str(package)] if package is not None else reference.source
                sign, against = -1 if lower_is_better else 1, f"{subject} against {gate.reference}"
                rows.append(_row_against(against, parts, theirs, name, gate, kind, reference, sign))
    return rows


def _why_no_parts(samples: Samples, metric: str, kind: str) -> str:
    if not samples.records:
        return "no record was scored"
    if metric not in samples.values:
        return f"{metric} has no value of each record here"
    if kind not in samples.slices:
        return f"the records are not divided by {kind}, but by: {', '.join(sorted(samples.slices)) or 'nothing'}"
    return ""


def _within(part: str, samples: Samples, metric: str, wanted: SliceSettings, level: float | None) -> _Part:
    low = -math.inf if wanted.min is None else wanted.min
    high = math.inf if wanted.max is None else wanted.max
    value = _mean(samples.values[metric])
    if level is None:
        slack = min(value - low, high - value)
        return _Part(part, f"{value:.4g} of {len(samples.records)} records", slack, slack)
    found = intervals(samples, level)[metric]
    if not isinstance(found, Interval):
        return _Part(part, f"{value:.4g}; {found}")
    most = min(found.high - low, high - found.low)
    return _Part(part, f"{value:.4g} ({found})", min(found.low - low, high - found.high), most)


def _row_against(  # noqa: PLR0917 - both packages, and what the gate wants
    subject: str, parts: Mapping[str, Samples], before: Samples | str, metric: str, gate: GateSettings, kind: str,
    reference: Reference, sign: int,
) -> CheckRow:  # fmt: skip
    tolerance = gate.worst[kind].tolerance
    assert tolerance is not None
    wanted = f"in no {kind} more than {tolerance} worse than there"
    if reference.nothing_yet:
        return CheckRow(subject, True, "nothing to compare with yet", wanted, reference.source)
    if reference.package is None:
        return CheckRow(subject, False, "not compared", wanted, reference.source)
    if not isinstance(before, str) and metric not in before.values:
        before = f"{reference.package} has no value of each record"
    too_few = gate.worst[kind].too_few or "warn"
    if isinstance(before, str):
        found = [_Part("", before)]
    else:
        level = of_many(gate.confidence, len(parts)) if gate.confidence is not None else None
        found = [_against(name, now, before, metric, tolerance, level, sign) for name, now in parts.items()]
    return replace(_row(subject, found, wanted, gate, too_few), reference=reference.source)


def _against(  # noqa: PLR0917 - both packages, and what the gate wants
    part: str, now: Samples, before: Samples, metric: str, tolerance: Tolerance, level: float | None, sign: int
) -> _Part:
    old, new = dict(zip(before.records, before.values[metric], strict=True)), now.values[metric]
    both = [(old[record], value) for record, value in zip(now.records, new, strict=True) if record in old]
    if 2 * len(both) < len(new):
        return _Part(part, f"only {len(both)} of {len(new)} records were scored in both")
    then = _mean([each for each, _ in both])
    change, allowed = _mean([value for _, value in both]) - then, tolerance.of(then)
    if level is None:
        slack = sign * change + allowed + ROUNDING * abs(then)
        return _Part(part, f"{change:+.4g} on {len(both)} records", slack, slack)
    records = set(now.records)
    theirs = [(record, value) for record, value in old.items() if record in records]
    same = replace(now, records=[record for record, _ in theirs], values={metric: [value for _, value in theirs]})
    found = differences(same, now, level)[metric]
    if not isinstance(found, Difference):
        return _Part(part, f"{change:+.4g}; {found}")
    ends = sorted(sign * end + allowed for end in (found.interval.low, found.interval.high))
    return _Part(part, str(found), ends[0], ends[1])


def _row(subject: str, parts: Sequence[_Part], wanted: str, gate: GateSettings, too_few: str) -> CheckRow:
    """Every part must hold: one that surely does not decides, else one of which that is not known."""
    if gate.confidence is not None:
        wanted = f"{wanted}, {gate.confidence * 100:g}% sure of all"
    worst = min(parts, key=lambda part: (part.most >= 0, part.least, part.name))
    margin = f"{worst.least + 0.0:+.6g}" if math.isfinite(worst.least) else ""
    found = f"{worst.name}: {worst.found}" if worst.name else worst.found
    if len(parts) > 1:
        held = sum(part.least >= 0 for part in parts)
        found += f"; {held} of {len(parts)} hold"
    if worst.most < 0 or worst.least >= 0:
        return CheckRow(subject, worst.least >= 0, found, wanted, margin=margin)
    found = f"{found}: {TOO_FEW}"
    return CheckRow(subject, too_few == "pass", found, wanted, margin=margin, warns=too_few == "warn")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
