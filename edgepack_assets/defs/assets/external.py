"""What the registry has: the two external assets that everything is made from."""

import dagster as dg

from edgepack_assets.defs.assets.declare import GROUP, OWNERS
from edgepack_assets.defs.model_partitions import MODELS

raw_data = dg.AssetSpec(
    "raw_data",
    description="The recorded raw data that a model type is validated on: a data asset of the registry, named and "
    "versioned in edgepack.yaml.",
    partitions_def=MODELS,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"file"},
)

registered_model = dg.AssetSpec(
    "registered_model",
    description="The trained model: a version of a model in the registry.",
    partitions_def=MODELS,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"mlflow"},
)
