"""Which artefacts must have been made from which others, per consumer: the check of the chain of digests.

A consumer gets several artefacts, each from its own manifest, and any of them may have been materialized again since.
What is required is named here. An artefact that does not say what it was made from is refused, like one that was made
from other bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.errors import StaleError
from edgepack_assets.partitions import ModelKey

_PAYLOAD, _PACKAGE, _PREPPED = "payload_data", "config_package", "prepped_data"
_RESULTS, _METRICS = "validation_results", "metrics"
_ROOTS = {_PAYLOAD: ("raw_data",), _PACKAGE: ("registered_model",)}
_VALIDATED = {_RESULTS: (_PAYLOAD, _PACKAGE)}

REQUIRED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    _PREPPED: _ROOTS,
    _RESULTS: _ROOTS,
    _METRICS: {_PAYLOAD: ("raw_data",), _PREPPED: (_PAYLOAD, _PACKAGE), **_VALIDATED},
    "deployment_package": {**_ROOTS, **_VALIDATED, _METRICS: (_PAYLOAD, _PACKAGE, _RESULTS)},
}
"""Consumer -> each artefact that it takes -> what that artefact must have been made from.

Where a required input is at hand, its digest must be the recorded one. Where it is not, all artefacts that require it
must have recorded the same one."""

_NEW = {(_METRICS, _PACKAGE)}
"""Entries that manifests without a digest of their own, of earlier versions, cannot have."""


def check_chain(consumer: str, key: ModelKey, taken: Iterable[Artefact]) -> None:
    """Refuse artefacts that were not made from each other. Raises StaleError naming what to materialize again."""
    by_asset = {artefact.asset: artefact for artefact in taken}
    required = REQUIRED[consumer]
    assert by_asset.keys() == required.keys(), f"{consumer} takes {sorted(required)}, not {sorted(by_asset)}"
    # input -> (its digest, who says so)
    known = {asset: (artefact.digest, "the one in the store") for asset, artefact in by_asset.items()}
    for asset, digest in _roots(by_asset):
        known[asset] = digest, "the one that its facts name"
    for asset, inputs in required.items():
        artefact = by_asset[asset]
        again = f"materialize {asset} of {key} again"
        if artefact.partition != str(key):
            raise StaleError(f"{asset} of {artefact.partition} was given to {consumer} of {key}: {again}")
        for name in inputs:
            recorded = artefact.made_from.get(name)
            if recorded is None and (asset, name) in _NEW and not artefact.has_own_digest:
                continue
            if recorded is None:
                raise StaleError(f"{asset} of {key} does not say which {name} it was made from: {again}")
            digest, who = known.setdefault(name, (recorded, f"the one that {asset} was made from"))
            if recorded != digest:
                raise StaleError(
                    f"{asset} of {key} was made from another {name} ({recorded[:12]}) than {who} "
                    f"({digest[:12]}): {again}"
                )


def _roots(by_asset: Mapping[str, Artefact]) -> Iterable[tuple[str, str]]:
    """What the registry gave: the digest is also among the facts, which end in a package's tags."""
    if _PAYLOAD in by_asset:
        yield "raw_data", by_asset[_PAYLOAD].facts["raw_data"]["digest"]
    if _PACKAGE in by_asset:
        yield "registered_model", by_asset[_PACKAGE].facts["model"]["digest"]
