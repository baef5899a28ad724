"""What Dagster records of a materialization, for artefacts that a test saves itself."""

from __future__ import annotations

import dagster as dg

from edgepack_assets.artefacts.artefact import Artefact


def record(instance: dg.DagsterInstance, artefact: Artefact) -> None:
    """The materialization of an artefact, as its asset would have reported it."""
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            artefact.asset,
            partition=artefact.partition,
            metadata={"made_from": dg.MetadataValue.json(artefact.made_from)},
            tags={"dagster/data_version": artefact.digest},
        )
    )
