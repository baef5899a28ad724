"""Giving a package its version: one version per content of a model version, whoever else registers at the same time.

The registry's own conflict detection decides who gets a version; whoever loses looks again and stamps the next one.
Nothing here runs or reads a package: building and proving one is the caller's.
"""

from __future__ import annotations

import contextlib
import json
import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from edgepack_assets.errors import EdgepackError, TransientError, VersionTakenError
from edgepack_assets.packaging.stamp import Stamp, package_id_for
from edgepack_assets.partitions import is_version
from edgepack_assets.registry.base import (
    IDENTITY,
    DamagedVersion,
    Kind,
    RegisteredVersion,
    Registry,
    damaged_in_words,
    refuse_unread,
)
from edgepack_assets.tasks.packages.history import dated_metrics, model_version_of
from edgepack_assets.tasks.packages.tags import (
    CONFIG_DIGEST,
    DATED_METRICS,
    MODEL_NAME,
    MODEL_VERSION,
    OLDER_THAN,
    PACKAGE_ID,
    PAYLOAD_DIGEST,
    RAW_DATA,
    RUN_ID,
)

DATED_KEPT = 12
"""Dated metrics that a package keeps, the newest: Azure ML documents 50 tags of up to 1000 characters for what it
keeps, and a package has some 29 others."""

_MOST_RACES = 50
_SAME = 1e-9
"""Relative difference between two computations of one metric."""


@dataclass(frozen=True)
class Registration:
    """A registered package. `built` is the zip that was registered here, None if the version stood before."""

    registered: RegisteredVersion
    built: Path | None


def register_package(
    registry: Registry, name: str, tags: Mapping[str, str], build: Callable[[Stamp], Path], log: Any
) -> Registration:
    """Register what `build` makes for a stamp under the next version of `name`, or find the version that stands.

    `build` must prove that but for the stamp it makes the same each time. Raises TransientError if other processes
    took one version after the other.
    """
    identity = {tag: tags[tag] for tag in IDENTITY}
    learned: dict[int, RegisteredVersion] = {}
    taken = 0
    for _ in range(_MOST_RACES):
        look = registry.look_up(Kind.MODEL, name, identity)
        refuse_unread(look.damaged)  # one of them may be this very package
        if look.damaged:
            log.warning(damaged_in_words(look.damaged))
        same = [*look.same, *(each for each in learned.values() if identity.items() <= each.tags.items())]
        if same:
            return Registration(max(same, key=lambda each: each.number), None)
        number = max(taken, look.highest) + 1
        latest_learned = sorted(learned.values(), key=lambda each: each.number, reverse=True)
        stamp = Stamp(number, _shared_id(chain(latest_learned, look.newest_first())) or package_id_for(name))
        built = build(stamp)
        stamped = {
            **tags,
            **_older_tag(chain(latest_learned, look.newest_first()), tags),
            PACKAGE_ID: str(stamp.package_id),
        }
        try:
            registered = registry.register(Kind.MODEL, name, built, stamped, number, checksum=True, is_final=True)
            return Registration(registered, built)
        except VersionTakenError:
            log.info(f"{name}:{number} was taken by another run; stamping the next version")
        built.unlink()
        taken = number
        try:  # a listing may not show it yet
            learned[number] = registry.get(Kind.MODEL, name, number)
        except TransientError:
            raise
        except EdgepackError as error:
            log.info(f"{name}:{number} cannot be read, its number is passed over: {error}")
    raise TransientError(f"{name}: {_MOST_RACES} versions in a row were taken by other runs; run this again")


def next_stamp(registry: Registry, name: str, identity: Mapping[str, str]) -> Stamp | None:
    """The stamp that `register_package` gives, without an origin, unless another process takes it before; None if a
    package with this identity is registered already."""
    look = registry.look_up(Kind.MODEL, name, identity)
    if look.same or look.damaged:
        return None
    return Stamp(look.highest + 1, _shared_id(look.newest_first()) or package_id_for(name))


def _shared_id(newest_first: Iterable[RegisteredVersion | DamagedVersion]) -> uuid.UUID | None:
    """The package id that all versions of the name share: the newest one's that has any."""
    for version in newest_first:
        with contextlib.suppress(ValueError):
            return uuid.UUID(version.tags.get(PACKAGE_ID, ""))
    return None


def _older_tag(newest_first: Iterable[RegisteredVersion | DamagedVersion], tags: Mapping[str, str]) -> dict[str, str]:
    """The tag of a package whose model is older than that of one before. The newest package of that model says for all
    before it."""
    for package in newest_first:
        before = model_version_of(package, tags[MODEL_NAME])
        if before is not None:
            older = package.tags.get(OLDER_THAN, "")
            newest = max(before, int(older) if is_version(older) else 0)
            return {OLDER_THAN: str(newest)} if newest > int(tags[MODEL_VERSION]) else {}
    return {}


def metrics_tag(
    package: RegisteredVersion, metrics: Mapping[str, float | None], tags: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """(the dated tag that a package validated again needs, the oldest ones that make room for it): none if it holds
    these metrics on this payload already."""
    entry = {
        "metrics": {name: value for name, value in metrics.items() if value is not None},
        "raw_data": tags[RAW_DATA],
        "payload_digest": tags[PAYLOAD_DIGEST],
        "run_id": tags.get(RUN_ID, ""),
        "config_digest": tags.get(CONFIG_DIGEST, ""),
    }
    first = {
        "metrics": {name: _number_or_text(package.tags[name]) for name in metrics if name in package.tags},
        "payload_digest": package.tags.get(PAYLOAD_DIGEST),
    }
    dated = dated_metrics(package)
    if any(_same_metrics(entry, held) for held in (first, *dated.values())):
        return {}, []
    # Later than the others by name too, whatever the clocks say: the oldest are known by their names.
    now = datetime.now(UTC)
    if dated:
        now = max(now, datetime.strptime(max(dated), DATED_METRICS).replace(tzinfo=UTC) + timedelta(seconds=1))
    while (key := now.strftime(DATED_METRICS)) in package.tags:
        now += timedelta(seconds=1)
    return {key: json.dumps(entry, sort_keys=True)}, list(dated)[: max(0, len(dated) + 1 - DATED_KEPT)]


def _same_metrics(ours: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    left, right = ours["metrics"], held["metrics"]
    return (
        ours["payload_digest"] == held.get("payload_digest")
        and left.keys() == right.keys()
        and all(
            isinstance(right[name], (int, float)) and math.isclose(value, right[name], rel_tol=_SAME)
            for name, value in left.items()
        )
    )


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
