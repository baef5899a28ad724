"""The IO manager: an asset's value is a manifest in the artefact store; no bytes pass through Dagster."""

import dagster as dg

from edgepack_assets.artefacts import Artefact
from edgepack_assets.resources import EdgepackResource
from edgepack_assets.retries import failures


class ArtefactIOManager(dg.ConfigurableIOManager):
    """Stores and loads one `Artefact` per asset and partition."""

    edgepack: dg.ResourceDependency[EdgepackResource]

    def handle_output(self, context: dg.OutputContext, obj: Artefact) -> None:
        """Make the artefact the value of its asset and partition."""
        assert obj.asset == context.asset_key.to_user_string()
        assert obj.partition == context.partition_key
        with failures(f"{obj.asset} of {obj.partition}", context.step_context.previous_attempt_count):
            self.edgepack.store.save(obj)

    def load_input(self, context: dg.InputContext) -> Artefact:
        """The value of the upstream asset's partition."""
        asset, partition = context.asset_key.to_user_string(), context.partition_key
        attempt = context.step_context.previous_attempt_count
        with failures(f"reading {asset} of {partition}", attempt):
            return self.edgepack.store.load(asset, partition)
