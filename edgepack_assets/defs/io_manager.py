"""The IO manager: an asset's value is a manifest in the artefact store; no bytes pass through Dagster.

What is loaded is compared with what Dagster recorded when the asset was materialized: a manifest in the store may have
been damaged, replaced by another one, or put back from a backup.
"""

from typing import Any

import dagster as dg
from dagster import AssetRecordsFilter, DagsterInstance

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.config.digest import config_digest
from edgepack_assets.defs.failures import as_dagster_failure
from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.errors import StaleError

MADE_FROM = "made_from"
"""Metadata of a materialization: the digests of the artefact's inputs."""
_DATA_VERSION = "dagster/data_version"


class ArtefactIOManager(dg.IOManager):
    """Stores and loads one `Artefact` per asset and partition."""

    def __init__(self, edgepack: EdgepackResource) -> None:
        self._edgepack = edgepack

    def handle_output(self, context: dg.OutputContext, obj: Artefact) -> None:
        """Make the artefact the value of its asset and partition."""
        assert obj.asset == context.asset_key.to_user_string()
        assert obj.partition == context.partition_key
        with as_dagster_failure(f"{obj.asset} of {obj.partition}", context.step_context.previous_attempt_count):
            self._edgepack.store.save(obj)
        context.add_output_metadata({"config_digest": config_digest(self._edgepack.settings)})

    def load_input(self, context: dg.InputContext) -> Artefact:
        """The value of the upstream asset's partition."""
        asset, partition = context.asset_key.to_user_string(), context.partition_key
        step = context.step_context
        with as_dagster_failure(f"reading {asset} of {partition}", step.previous_attempt_count):
            artefact = self._edgepack.store.load(asset, partition)
            check_recorded(artefact, step.instance)
            return artefact


def check_recorded(artefact: Artefact, instance: DagsterInstance) -> None:
    """Refuse an artefact that is not the one of the newest materialization of its asset and partition.

    The data version binds parts and facts, the metadata what they were made from. Observations are bound by the
    manifest's own digest only: two materializations of equal content differ in them, and nothing depends on them.
    Raises StaleError."""
    of, again = (
        f"{artefact.asset} of {artefact.partition}",
        f"materialize {artefact.asset} of {artefact.partition} again",
    )
    wanted = AssetRecordsFilter(dg.AssetKey(artefact.asset), asset_partitions=[artefact.partition])
    records = instance.fetch_materializations(wanted, limit=1).records
    newest = records[0].asset_materialization if records else None
    if newest is None:
        raise StaleError(
            f"{of} is in the artefact store, but Dagster has no record of materializing it, so it cannot be verified: "
            f"{again}"
        )
    recorded: tuple[Any, Any] = (newest.tags or {}).get(_DATA_VERSION), _made_from(newest)
    if recorded != (artefact.digest, artefact.made_from):
        differs = f"({artefact.digest[:12]})"
        if recorded[0] == artefact.digest:
            differs = "says that it was made from other inputs, so it"
        raise StaleError(
            f"{of} in the artefact store {differs} is not the one that Dagster recorded last "
            f"({str(recorded[0])[:12]}): the manifest was changed or replaced, or another run is materializing it; "
            f"{again}"
        )


def _made_from(materialization: dg.AssetMaterialization) -> Any:
    value = materialization.metadata.get(MADE_FROM)
    return value.value if value is not None else None


@dg.io_manager(required_resource_keys={"edgepack"}, config_schema={}, input_config_schema={})
def artefact_io_manager(context: dg.InitResourceContext) -> ArtefactIOManager:
    """The IO manager of all assets. It takes no configuration from a run."""
    return ArtefactIOManager(context.resources.edgepack)
