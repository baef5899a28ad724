"""The errors this project raises on purpose. Their text is for the user: what is wrong, where, what to do."""

from edgepack_assets.masking import without_credentials as without_credentials  # noqa: PLC0414 - imported from here too


class EdgepackError(Exception):
    """Base of every error whose message is meant to be read by the user. Deterministic, so never retried, but for
    TransientError."""


class TransientError(EdgepackError):
    """A dependency is unreachable or busy (a registry, a storage, an index), or a disk is full. Nothing is wrong with
    the model, and retrying may succeed."""

    wait: float | None = None
    """Seconds after which to try again, where the answer says so."""


class InfrastructureError(EdgepackError):
    """Something that a command or a run needs, and that is no model and no configuration, cannot be used: Dagster's
    instance, a folder without permission. A person has to look after it."""


class RemoteJobError(TransientError):
    """A job on another machine ended before its run was done, or told less than all. Another attempt may succeed."""


class ConfigError(EdgepackError):
    """edgepack.yaml, or a value in it, cannot be used."""


class PluginError(EdgepackError):
    """An installed implementation of a model type cannot be used, or did something else than the interface says."""


class PartitionKeyError(EdgepackError):
    """A partition key is not `<model_type>:<model_version>`, or names no configured model type."""


class ApprovalError(EdgepackError):
    """A model version whose approval started a run is no longer approved."""


class OvertakenError(EdgepackError):
    """Another package was registered or promoted meanwhile, and this one has to be made like it: package it again."""


class NotFoundError(EdgepackError):
    """There is no such model, data asset or version in the registry, or no such file."""


class VersionTakenError(EdgepackError):
    """Another registration took the version first; stamp the next one and try again."""


class CorruptError(EdgepackError):
    """Stored bytes differ from the digest that was recorded for them."""


class StaleError(EdgepackError):
    """An artefact was made from other bytes than those at hand; materialize an upstream asset again."""


class ModelError(EdgepackError):
    """The registered model cannot be packaged."""


class RawDataError(EdgepackError):
    """The raw data cannot be turned into a payload."""


class EnvironmentBuildError(EdgepackError):
    """The component's Python environment cannot be locked or built."""


class IndexUnreachableError(EnvironmentBuildError, TransientError):
    """The package index does not answer, or says that it cannot at the moment."""


class IsolationError(EdgepackError):
    """Model code cannot be isolated on this machine as the configuration requires."""


class ComponentError(EdgepackError):
    """Code of the component failed in its child process, or broke what its package declares."""


class PackageError(EdgepackError):
    """A package is not what the server, or this project, requires of it."""


class ComponentRefusedError(PackageError):
    """The SDK refuses what a component declares, or a file that it holds."""


class CheckFailedError(EdgepackError):
    """A blocking check of an asset does not hold."""
