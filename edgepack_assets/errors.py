"""The errors this project raises on purpose. Their text is for the user: what is wrong, where, what to do."""


class EdgepackError(Exception):
    """Base of every error whose message is meant to be read by the user. Deterministic: never retried."""


class ConfigError(EdgepackError):
    """edgepack.yaml, or a value in it, cannot be used."""


class PartitionKeyError(EdgepackError):
    """A partition key is not `<model_type>:<model_version>`, or names no configured model type."""


class NotFoundError(EdgepackError):
    """The registry has no such model, data asset or version."""


class VersionTakenError(EdgepackError):
    """Another registration took the version first; stamp the next one and try again."""


class TransientError(EdgepackError):
    """A registry or storage that cannot be reached at present: trying again later may help."""


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


class ComponentError(EdgepackError):
    """Code of the component failed in its child process, or broke what its package declares."""


class PackageError(EdgepackError):
    """A package is not what the server, or this project, requires of it."""
