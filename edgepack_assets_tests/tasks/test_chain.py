"""The chain of digests: what a consumer takes must have been made from each other, and must say so."""

from __future__ import annotations

from typing import Any

import pytest

from edgepack_assets.artefacts.artefact import Artefact, canonical_json, read_manifest
from edgepack_assets.defs.assets import ALL_ASSETS
from edgepack_assets.errors import StaleError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.chain import REQUIRED, check_chain

KEY = ModelKey("press", 1)


def artefacts() -> dict[str, Artefact]:
    """Five artefacts that were made from each other."""

    def made(asset: str, facts: dict[str, Any] | None = None, **made_from: str) -> None:
        found[asset] = Artefact(
            asset=asset, partition=str(KEY), parts={}, facts=facts or {"of": asset}, made_from=made_from
        )

    found: dict[str, Artefact] = {}
    made("payload_data", {"raw_data": {"digest": "r" * 64}}, raw_data="r" * 64)
    made("config_package", {"model": {"digest": "m" * 64}}, registered_model="m" * 64)
    roots = {name: found[name].digest for name in ("payload_data", "config_package")}
    made("prepped_data", **roots)
    made("validation_results", **roots)
    made("metrics", **roots, prepped_data=found["prepped_data"].digest,
         validation_results=found["validation_results"].digest)  # fmt: skip
    return found


def check(consumer: str, changed: Artefact | None = None) -> None:
    taken = artefacts() | ({changed.asset: changed} if changed else {})
    check_chain(consumer, KEY, [taken[asset] for asset in REQUIRED[consumer]])


REQUIREMENTS = [
    (consumer, asset, name) for consumer, assets in REQUIRED.items() for asset in assets for name in assets[asset]
]


def test_every_asset_with_inputs_of_ours_has_its_requirements_named() -> None:
    taken = {}
    for asset in ALL_ASSETS:
        inputs = {key.to_user_string() for key in getattr(asset, "keys_by_input_name", {}).values()} - {"raw_data"}
        if inputs - {"registered_model"}:
            taken[asset.key.to_user_string()] = inputs
    assert {consumer: set(assets) for consumer, assets in REQUIRED.items()} == taken
    assert len(taken) == 4


@pytest.mark.parametrize("consumer", REQUIRED)
def test_what_was_made_from_each_other_is_taken(consumer: str) -> None:
    check(consumer)


@pytest.mark.parametrize(("consumer", "asset", "name"), REQUIREMENTS)
def test_another_input_or_none_is_refused(consumer: str, asset: str, name: str) -> None:
    made = artefacts()[asset]
    again = f"materialize {asset} of press:1 again$"
    for made_from in ({}, {n: digest for n, digest in made.made_from.items() if n != name}):
        with pytest.raises(StaleError, match=rf"{asset} of press:1 does not say which \w+ it was made from: {again}"):
            check(consumer, made.model_copy(update={"made_from": made_from}))
    other = made.model_copy(update={"made_from": {**made.made_from, name: "f" * 64}})
    with pytest.raises(StaleError, match="was made from another"):
        check(consumer, other)


@pytest.mark.parametrize("consumer", REQUIRED)
def test_an_input_that_was_made_again_or_is_of_another_partition_is_refused(consumer: str) -> None:
    for asset, needed_by in [
        (a, c) for c in REQUIRED[consumer] for a in REQUIRED[consumer] if a in REQUIRED[consumer][c]
    ]:
        made = artefacts()[asset]
        with pytest.raises(StaleError, match=rf"{needed_by} of press:1|was made from another"):
            check(consumer, made.model_copy(update={"facts": {**made.facts, "again": True}}))
    for asset in REQUIRED[consumer]:
        with pytest.raises(StaleError, match=rf"{asset} of press:2 was given to {consumer} of press:1"):
            check(consumer, artefacts()[asset].model_copy(update={"partition": "press:2"}))


def test_metrics_of_an_earlier_version_need_not_say_their_config_package_and_no_more_is_forgiven() -> None:
    made = artefacts()["metrics"]

    def earlier(*without: str) -> Artefact:
        kept = {name: digest for name, digest in made.made_from.items() if name not in without}
        old = made.model_copy(update={"made_from": kept})
        return read_manifest(canonical_json(old.model_dump()), "m.json", "metrics", "press:1")

    check("deployment_package", earlier("config_package"))
    for more in ("payload_data", "validation_results"):
        with pytest.raises(StaleError, match=f"does not say which {more}"):
            check("deployment_package", earlier("config_package", more))
