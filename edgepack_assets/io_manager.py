"""The IO manager: an asset's value is a manifest in the artefact store; no bytes pass through Dagster."""

import dagster as dg

from edgepack_assets.artefacts import Artefact
from edgepack_assets.resources import EdgepackResource


class ArtefactIOManager(dg.ConfigurableIOManager):
    """Stores and loads one `Artefact` per asset and partition."""

    edgepack: dg.ResourceDependency[EdgepackResource]

    def handle_output(self, context: dg.OutputContext, obj: Artefact) -> None:
        """Make the artefact the value of its asset and partition."""
        assert obj.asset == context.asset_key.to_user_string()
        assert obj.partition == context.partition_key
        self.edgepack.store.save(obj)

    def load_input(self, context: dg.InputContext) -> Artefact:
        """The value of the upstream asset's partition."""
        return self.edgepack.store.load(context.asset_key.to_user_string(), context.partition_key)
