"""What edgepack.yaml may hold: the shape of every section, its defaults and what is refused in it.

Reading the file, with its variables and line numbers, is loader.py's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from edgepack_assets.config.implementations import installed, installed_text, keys_beside_settings, settings_class
from edgepack_assets.config.registry_settings import LocalRegistrySettings, RegistrySettings
from edgepack_assets.config.section import Count, Number, OptionalPath, OptionalText, Section
from edgepack_assets.config.tolerance import Tolerance, read_tolerance
from edgepack_assets.config.versions import Version, is_version_text, read_version
from edgepack_assets.errors import ConfigError, PluginError, without_credentials
from edgepack_assets.partitions import is_model_type_name, is_version

EDGE_PYTHONS = ("3.11", "3.12")
"""The Python versions that the AI Inference Server runs (simaticai 2.9 python_version_validator)."""

EdgePython = Literal["3.11", "3.12"]


def _implementation(name: str) -> str:
    if name not in installed():
        raise ValueError(f"no such implementation; installed: {installed_text()}")
    return name


def is_asset_name(name: str) -> bool:
    """Whether a registry takes `name` for a model or data asset. Such a name is one safe path component."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}", name) is not None


def _asset_name(name: str) -> str:
    if not is_asset_name(name):
        raise ValueError("a registry name starts with a letter or digit and holds letters, digits, _, . and - only")
    return name


def _package_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,99}", name) or name != name.strip():
        raise ValueError("a package name starts with a letter or digit and holds letters, digits, spaces, _ and - only")
    return name


def _requirement(line: str) -> str:
    try:
        return str(Requirement(line))
    except InvalidRequirement as error:
        told = without_credentials(f"{line!r} is not a requirement such as scikit-learn==1.5.2 ({error})")
        raise ValueError(told) from None


def _replacement(line: str | None) -> str | None:
    return _requirement(line) if line else None


def _model_version(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    # A value from an environment variable is text.
    if isinstance(value, str) and is_version(value):
        return int(value)
    raise ValueError("a version is a whole number from 1 up")


def _data_version(value: object) -> Version:
    if isinstance(value, str) and is_version_text(value):
        return read_version(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError('a version is latest, a whole number from 1 up, or text, which is quoted: version: "2024-06-01"')


def _by_environment(value: object) -> object:
    return {"default": value} if isinstance(value, str) else value


def _reference(value: object) -> object:
    if value in ("previous", "training"):
        return value
    try:
        return _model_version(value)
    except ValueError:
        raise ValueError("a reference is previous, training or the number of a model version") from None


def _web_address(text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not text.isprintable() or " " in text:
        raise ValueError("must be the address of a web page, http://... or https://...")
    return text


def _secret_address(secret: SecretStr | None) -> SecretStr | None:
    if secret is None or not secret.get_secret_value().strip():
        return None
    return SecretStr(_web_address(secret.get_secret_value().strip()))


AssetName = Annotated[str, AfterValidator(_asset_name)]
_Folders = Annotated[
    tuple[Path, ...],
    BeforeValidator(lambda paths: [path for path in paths if path != ""] if isinstance(paths, list) else paths),
]
"""An empty path would be the folder of edgepack.yaml."""
_OptionalAddress = Annotated[str | None, AfterValidator(lambda text: _web_address(text.strip()) if text else None)]


class ArtefactSettings(Section):
    """Where artefacts lie: a folder, `abfs://` (Azure storage) or another fsspec URL; `cache` is the local copy of a
    remote root."""

    root: str = ".edgepack/artefacts"
    cache: Path = Path(".edgepack/cache")


class RuntimeSettings(Section):
    """How component environments are made, and how long model code may run."""

    environments: Path = Path(".edgepack/environments")
    pythons: dict[EdgePython, Path] = Field(default_factory=dict)
    index_url: OptionalText = None
    extra_index_urls: tuple[str, ...] = ()
    time_limit: Number = Field(default=900.0, gt=0, description="seconds for one job of model code")
    memory_limit: Number = Field(default=8.0, gt=0, description="GiB for each process of it, and for all together")
    disk_limit: Number = Field(default=8.0, gt=0, description="GiB that one job may write")
    isolation: Literal["required", "best_effort"] = "best_effort"
    readable_folders: tuple[Path, ...] = ()


class SensorSettings(Section):
    """How the sensors look for new model versions, one sensor for each model type. Times are in seconds."""

    interval: Count = Field(default=30, ge=1, description="from one look to the next")
    sweep_interval: Count = Field(default=900, ge=1, description="from one look at every version to the next")
    start: Literal["all", "none", "latest"] = Field(default="latest", description="what there is at the first start")
    batch: Count = Field(default=50, ge=1, le=500, description="runs requested by one tick")
    attempts: Count = Field(default=4, ge=1, le=20, description="runs of one version, where infrastructure fails them")
    failure_after: Count = Field(default=1800, ge=0, description="without an answer of the registry: a failed tick")
    webhook: Annotated[SecretStr | None, AfterValidator(_secret_address)] = None
    """Where a failed run is told of. Secret as a whole: many a webhook has its key in the path."""
    ui_url: _OptionalAddress = Field(default=None, description="address of Dagster's UI, for links to runs")


class DataAssetSettings(Section):
    """A data asset of the registry: its name and version. A version that is text is for registries that know such."""

    name: AssetName
    version: Annotated[Version, BeforeValidator(_data_version)] = "latest"


class GateSettings(Section):
    """What a metric must hold: bounds, both inclusive, and how much worse than a reference it may be.

    `reference` is `previous` (the package of the highest lower model version), `training` (the metrics in the model
    version's tags) or a model version, whose package is meant. Which direction is worse the metric's model type knows.
    """

    min: Number | None = None
    max: Number | None = None
    reference: Annotated[Literal["previous", "training"] | int | None, BeforeValidator(_reference)] = None
    tolerance: Annotated[Tolerance, BeforeValidator(read_tolerance)] = Tolerance(0.0)

    @model_validator(mode="after")
    def _can_pass_and_fail(self) -> GateSettings:
        if self.min is None and self.max is None and self.reference is None:
            raise ValueError("a gate needs min, max or reference")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing could pass")
        if self.reference is None and "tolerance" in self.model_fields_set:
            raise ValueError("a tolerance needs a reference: previous, training or the number of a model version")
        return self


class ModelTypeSettings(Section):
    """One entry of `model_types`: which models are packaged, how, from what raw data, behind which gates."""

    implementation: Annotated[str, AfterValidator(_implementation)]
    settings: Any = Field(default=None, validate_default=True)
    """The implementation's own settings: an instance of its `settings`."""
    model_name: AssetName
    package_name: Annotated[str, AfterValidator(_package_name)]
    raw_data: DataAssetSettings
    description: str = ""
    code_paths: tuple[Path, ...] = ()
    requirements: tuple[Annotated[str, AfterValidator(_requirement)], ...] = ()
    requirements_file: OptionalPath = None
    replace_requirements: dict[str, Annotated[str | None, AfterValidator(_replacement)]] = Field(default_factory=dict)
    """Line of the model's requirements.txt or conda.yaml, or name of a package in it -> what to install instead, None
    for nothing."""
    saved_versions: Literal["warn", "block"] = "warn"
    """What a library at another version than the model says it was saved with does to config_package.is_fit."""
    python_version: EdgePython | None = None
    keep_mlflow: bool = False
    run_whole_payload: bool = False
    gates: dict[str, GateSettings] = Field(default_factory=dict)
    revalidate: bool = Field(default=False, description="validate the latest package again on new raw data")
    approval: Annotated[dict[str, Literal["auto", "required"]], BeforeValidator(_by_environment)] = Field(
        default_factory=dict
    )
    """For each environment (`run.environment`) and, under `default`, for all others."""

    @model_validator(mode="before")
    @classmethod
    def _settings_stand_in_one_place(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("implementation"), str):
            return values
        beside = {key: values[key] for key in keys_beside_settings(values["implementation"]) if key in values}
        own = values.get("settings")
        if not beside or not (own is None or isinstance(own, dict)):
            return values
        if twice := sorted(beside.keys() & (own or {}).keys()):
            raise ValueError(f"{', '.join(twice)}: named both under settings and beside it; remove one of them")
        return {key: value for key, value in values.items() if key not in beside} | {
            "settings": {**(own or {}), **beside}
        }

    @field_validator("settings", mode="before")
    @classmethod
    def _settings_are_the_implementations_own(cls, value: object, info: ValidationInfo) -> object:
        if "implementation" not in info.data:
            return value  # refused already
        try:
            own = settings_class(info.data["implementation"])
        except PluginError:
            return value  # other model types go on working; whatever uses this one says what is wrong
        return own.model_validate({} if value is None else value)

    def needs_approval(self, environment: str) -> bool:
        """Whether a person approves a version before the sensor packages it in this environment."""
        return self.approval.get(environment, self.approval.get("default", "auto")) == "required"

    @property
    def registered_package_name(self) -> str:
        """The name under which the deployment package is registered: `<Package-Name>-edge`."""
        return self.package_name.replace(" ", "-") + "-edge"


class RunSettings(Section):
    """Where a run belongs; each ends in the run's and the package's tags. `output_folders`: the folders in which the
    configuration of a run may name files to write."""

    environment: str = "dev"
    build_reference: str = ""
    experiment_name: str = ""
    display_name: str = ""
    output_folders: _Folders = (Path(".edgepack/outputs"),)


class Settings(Section):
    """The whole configuration. `file` is where it was read from."""

    file: Path
    registry: RegistrySettings = LocalRegistrySettings()
    artefacts: ArtefactSettings = ArtefactSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    run: RunSettings = RunSettings()
    sensors: SensorSettings = SensorSettings()
    model_types: dict[str, ModelTypeSettings] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _isolation_is_required_where_identities_are_in_reach(cls, values: Any) -> Any:
        # A machine that signs in to Azure hands its identity to whoever asks at an address of its network.
        if isinstance(values, dict):
            registry, artefacts, runtime = (values.get(key) or {} for key in ("registry", "artefacts", "runtime"))
            azure_ml = isinstance(registry, dict) and registry.get("type") == "azure_ml"
            root = artefacts.get("root") if isinstance(artefacts, dict) else None
            storage = isinstance(root, str) and root.startswith(("abfs://", "abfss://"))
            if (azure_ml or storage) and isinstance(runtime, dict):
                return {**values, "runtime": {"isolation": "required", **runtime}}
        return values

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Settings:
        seen: dict[str, str] = {}
        for name, entry in self.model_types.items():
            if not is_model_type_name(name):
                raise ValueError(f"model type {name!r}: use letters, digits, _ and -, starting with a letter")
            package = entry.registered_package_name
            if package in seen:
                raise ValueError(
                    f"model types {seen[package]!r} and {name!r} both register {package!r}; "
                    "give each a package_name of its own"
                )
            seen[package] = name
        for name, entry in self.model_types.items():
            if entry.model_name in seen:
                raise ValueError(
                    f"model type {name!r}: its model_name {entry.model_name!r} is the name under which "
                    f"{seen[entry.model_name]!r} registers its packages"
                )
        return self

    def model_type(self, name: str) -> ModelTypeSettings:
        """The entry called `name`. Raises ConfigError naming those there are."""
        if name not in self.model_types:
            known = ", ".join(sorted(self.model_types))
            raise ConfigError(f"{self.file}: model_types has no entry {name!r}; it has: {known}")
        return self.model_types[name]
