"""The tags of a registered deployment package: every name, what it holds, who writes it and who reads it.

The tag of a metric has the name of the metric and is written by deployment_package.py; history.py and the
quickstart's summary read it. Tags of raw data and models are not here (approval: registry/approval.py), nor are those
that a registry keeps for itself (registry/azure_ml/contents.py), nor tags of Dagster runs (defs/sensors/).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgepack_assets.errors import EdgepackError
from edgepack_assets.registry.base import IDENTITY

LONGEST_TAG = 1000
"""Characters of a value. Azure ML documents no more."""

# What the package is --------------------------------------------------------------------------------------

CONTENT_DIGEST = "content_digest"
"""sha256 over the digests of all files, without the stamped fields. Written by deployment_package.py, read by
registration.py and by `edgepack model download`, which writes a .sha256 file beside a deployment package."""
MODEL_NAME = "model_name"
"""Name of the model in the registry. Written by deployment_package.py, read by history.py, registration.py,
the hand-over and the quickstart's summary."""
MODEL_VERSION = "model_version"
"""Version of that model. Written and read with MODEL_NAME."""
PACKAGE_ID = "packageid"
"""The id that all versions of one package name share. Written by registration.py, read there for the next version and
by deployment_package.py."""
MODEL_TYPE = "model_type"
"""The entry of edgepack.yaml. Written by deployment_package.py, for people."""
OLDER_THAN = "older_than_model_version"
"""The highest model version that was packaged before, where that is a higher one. Written by registration.py, for
people."""

# What a delta is, a version of its own name -----------------------------------------------------------------

DELTA_OF = "delta_of"
"""`name:version` of the full package. These are written by delta.py, for people unless it says otherwise."""
DELTA_FROM = "delta_from"
"""`name:version` of the package that a server must have. Read by delta.py."""
DELTA_OF_DIGEST = "delta_of_digest"
"""Digest of the full package. Read by delta.py: a delta that stands is of this very package."""
DELTA_FROM_DIGEST = "delta_from_digest"
"""Digest of the package that a server must have."""
FULL_SIZE = "full_size"
"""Bytes of the full package. Read by delta.py."""
DELTA_SIZE = "delta_size"
"""Bytes of the delta. Read by delta.py."""

# What it was made from ------------------------------------------------------------------------------------

LOCK_KEY = "lock_key"
"""Key of the lock. Written by deployment_package.py, read by operations/lock_usage.py."""
LOCK_DIGEST = "lock_digest"
"""Digest of the lock, which tells the generations of one key apart. Written and read with LOCK_KEY."""
SERVER_LOCK_KEY = "server_lock_key"
"""Key of the lock that stands for the server's GPU runtime, of a package with a GPU component. Written and read with
LOCK_KEY."""
SERVER_LOCK_DIGEST = "server_lock_digest"
"""Digest of that lock. Written and read with LOCK_KEY."""
RAW_DATA = "raw_data"
"""`name:version` of the raw data. Written by deployment_package.py, read by history.py for gates and for the
raw data sensor."""
RAW_DATA_DIGEST = "raw_data_digest"
"""Digest of that raw data. Written by deployment_package.py, for people."""
PAYLOAD_DIGEST = "payload_digest"
"""Digest of the payload artefact. Written by deployment_package.py, read by history.py and registration.py: two
metrics on one payload can be compared."""

# Which run made it ----------------------------------------------------------------------------------------

EDGEPACK_VERSION = "edgepack_version"
"""Version of this project. Written by deployment_package.py, for people."""
CONFIG_DIGEST = "config_digest"
"""Digest of the configuration (config/digest.py). Written by deployment_package.py, read by registration.py, which
copies it into dated metrics."""
RUN_ID = "run_id"
"""Dagster's run. Written by defs/assets/deployment_package.py as are the four below it, read like CONFIG_DIGEST."""
ENVIRONMENT = "environment"
BUILD_REFERENCE = "build_reference"
EXPERIMENT_NAME = "experiment_name"
DISPLAY_NAME = "display_name"
"""This one and the three above: settings of the section `run`, for people. Left out where they are empty."""

# Gates ----------------------------------------------------------------------------------------------------

GATES_OVERRIDDEN = "gates_overridden"
"""A person's reason to register although gates do not hold. Written by deployment_package.py, for people."""
GATES_OVERRIDDEN_FAILED = "gates_overridden_failed"
"""The gates that did not hold, in words. Written with GATES_OVERRIDDEN."""

# What the line relies on ----------------------------------------------------------------------------------

INTERFACE_CHANGE = "interface_change"
"""A person's reason why the interface differs from that of the package before. A tag of the model version, which
deployment_package.py copies where the reason was needed; for people."""
NUMBERS_OF = "numbers_of"
"""The package whose numbers the states have got (renumbering.py). Written by deployment_package.py, for people.
Left out where the model has its own."""

# Whether it is offered ------------------------------------------------------------------------------------

ARCHIVED = "archived"
"""Who archived the package, when and why, as JSON. Written and read by archive.py."""

# Metrics on later raw data --------------------------------------------------------------------------------

DATED_METRICS = "metrics_%Y%m%dT%H%M%SZ"
"""Name (for strftime, in UTC) of a tag with the metrics of an unchanged package on later raw data, as JSON. Written by
registration.py, read by history.py."""
_DATED = re.compile(r"metrics_[0-9]{8}T[0-9]{6}Z")

PACKAGE_TAGS = frozenset(
    {
        *IDENTITY, PACKAGE_ID, MODEL_TYPE, OLDER_THAN, LOCK_KEY, LOCK_DIGEST, RAW_DATA, RAW_DATA_DIGEST, PAYLOAD_DIGEST,
        EDGEPACK_VERSION, CONFIG_DIGEST, RUN_ID, ENVIRONMENT, BUILD_REFERENCE, EXPERIMENT_NAME, DISPLAY_NAME,
        GATES_OVERRIDDEN, GATES_OVERRIDDEN_FAILED, INTERFACE_CHANGE, NUMBERS_OF, ARCHIVED, SERVER_LOCK_KEY,
        SERVER_LOCK_DIGEST,
    }
)  # fmt: skip
"""Every name but those of metrics."""


def is_dated_metrics(tag: str) -> bool:
    """Whether a tag has the form of DATED_METRICS. Its digits may still be no date."""
    return _DATED.fullmatch(tag) is not None


def check_metric_names(metrics: Iterable[str]) -> None:
    """Refuse metrics whose tag would replace another one. Raises EdgepackError."""
    for name in sorted(metrics):
        if name in PACKAGE_TAGS or is_dated_metrics(name):
            raise EdgepackError(
                f"the metric {name!r} has the name of a tag that every package has: give it another name in its model "
                "type"
            )
