"""The sections of edgepack.yaml: their keys, defaults and allowed values, and what each key means.

loader.py reads the file, fills in variables and finds line numbers. docs/configuration.md is for users.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from edgepack_assets.config.compute_settings import ComputeSettings, as_experiment_name, compute_workspace
from edgepack_assets.config.gate_settings import GateSettings
from edgepack_assets.config.implementations import (
    installed,
    installed_text,
    keys_beside_settings,
    plug_ins,
    settings_class,
)
from edgepack_assets.config.names import name_conflicts, registered_name
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings, LocalRegistrySettings, RegistrySettings
from edgepack_assets.config.section import Number, OptionalPath, OptionalText, Section
from edgepack_assets.config.sensor_settings import FEW_TYPES, INTERVAL, SHORT_INTERVAL, SensorSettings
from edgepack_assets.config.versions import Version, is_version_text, read_version
from edgepack_assets.errors import ConfigError, PluginError, without_credentials

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
        message = without_credentials(f"{line!r} is not a requirement such as scikit-learn==1.5.2 ({error})")
        raise ValueError(message) from None


def _replacement(line: str | None) -> str | None:
    return _requirement(line) if line else None


def _data_version(value: object) -> Version:
    if isinstance(value, str) and is_version_text(value):
        return read_version(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError('a version is latest, a whole number from 1 up, or text, which is quoted: version: "2024-06-01"')


def _by_environment(value: object) -> object:
    return {"default": value} if isinstance(value, str) else value


def _python_version_in_json(schema: dict[str, Any]) -> None:
    # Without quotes it is a number in YAML. The loader reads it as text.
    del schema["anyOf"]
    schema["enum"] = [*EDGE_PYTHONS, *map(float, EDGE_PYTHONS), None]


_Approval = Literal["auto", "required"]
_LineName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,39}$")]
AssetName = Annotated[str, AfterValidator(_asset_name)]
_Folders = Annotated[
    tuple[Path, ...],
    BeforeValidator(lambda paths: [path for path in paths if path != ""] if isinstance(paths, list) else paths),
]
"""An empty path would mean the folder of edgepack.yaml, so it is left out."""


class ArtefactSettings(Section):
    """Where artefacts are stored."""

    root: str = Field(
        default=".edgepack/artefacts",
        description="A folder, abfs://container@account.dfs.core.windows.net/path (Azure storage), or an fsspec URL.",
    )
    cache: Path = Field(default=Path(".edgepack/cache"), description="Local copies of a remote root's files.")


class RuntimeSettings(Section):
    """How component environments are built, and the limits of model code."""

    environments: Path = Field(
        default=Path(".edgepack/environments"), description="Folder of the environments, one for each lock."
    )
    pythons: dict[EdgePython, Path] = Field(
        default_factory=dict, description='Interpreters for components, e.g. {"3.11": /path/to/python}.'
    )
    index_url: OptionalText = Field(
        default=None, description="Package index, in place of PyPI. Take credentials from environment variables."
    )
    extra_index_urls: tuple[str, ...] = Field(default=(), description="Further package indexes.")
    time_limit: Number = Field(default=900.0, gt=0, description="Seconds for one job of model code.")
    memory_limit: Number = Field(
        default=8.0, gt=0, description="GiB for each process of a job, and for all of them together."
    )
    disk_limit: Number = Field(default=8.0, gt=0, description="GiB that one job may write.")
    isolation: Literal["required", "best_effort"] = Field(
        default="best_effort",
        description="required: run no model code unless it is fully isolated; the default if anything is in Azure. "
        "best_effort: run it, and report which protections are missing.",
    )
    readable_folders: tuple[Path, ...] = Field(
        default=(), description="Folders that model code may read besides system libraries, Python and its packages."
    )


class DataAssetSettings(Section):
    """A data asset of the registry."""

    name: AssetName = Field(description="Name of the data asset.")
    version: Annotated[Version, BeforeValidator(_data_version, json_schema_input_type=int | float | str)] = Field(
        default="latest", description="latest, a whole number, or in Azure ML any text, read as it is written."
    )


class ModelTypeSettings(Section):
    """One entry of `model_types`: which models are packaged, how, from what raw data, behind which gates."""

    implementation: Annotated[str, AfterValidator(_implementation)] = Field(
        description="The kind of model.", json_schema_extra=lambda schema: schema.update(enum=list(installed()))
    )
    settings: Any = Field(default=None, validate_default=True, description="The implementation's own settings.")
    model_name: AssetName = Field(description="Name of the model in the registry.")
    package_name: Annotated[str, AfterValidator(_package_name)] = Field(
        description="Name of the pipeline. The deployment package is registered as <Package-Name>-edge."
    )
    raw_data: DataAssetSettings = Field(description="The data asset that packages are validated on.")
    description: str = Field(default="", description="The package's description.")
    code_paths: tuple[Path, ...] = Field(
        default=(), description="Files or folders of the model's own code, shipped under their own names."
    )
    requirements: tuple[Annotated[str, AfterValidator(_requirement)], ...] = Field(
        default=(), description="Requirements added to those that the model was saved with."
    )
    requirements_file: OptionalPath = Field(
        default=None, description="A requirements file in place of the one that the model was saved with."
    )
    replace_requirements: dict[str, Annotated[str | None, AfterValidator(_replacement)]] = Field(
        default_factory=dict,
        description="A line of the model's requirements, or the name of a package in them, and what to install "
        "instead; null for nothing.",
    )
    saved_versions: Literal["warn", "block"] = Field(
        default="warn",
        description="What config_package.is_fit does if a library has another version than the model was saved with.",
    )
    python_version: EdgePython | None = Field(
        default=None,
        description="Python of the component. Default: the one that the model was saved with.",
        json_schema_extra=_python_version_in_json,
    )
    keep_mlflow: bool = Field(default=False, description="Ship mlflow too, if the model's requirements name it.")
    run_whole_payload: bool = Field(
        default=False, description="Run the stamped package over the whole payload before it is registered."
    )
    delta: bool = Field(
        default=False,
        description="Register also the delta from the version before, for servers that have that version.",
    )
    gates: dict[str, GateSettings] = Field(default_factory=dict, description="Metrics, and what each must hold.")
    intervals: bool = Field(
        default=False,
        description="Show how sure each metric is, and where it is worst. Gates with a confidence do so as well.",
    )
    envelope: bool = Field(
        default=False,
        description="The package learns from the payload what it is proven on, and tells with each answer how far from "
        "that its input is.",
    )
    fault_probes: Literal["warn", "fail"] | None = Field(
        default=None,
        description="Try faults of sensors and small changes on the package. warn: say what changes answers "
        "unnoticed. fail: the check validation_results.are_complete fails then.",
    )
    numbering: Literal["map", "fail", "warn"] = Field(
        default="map",
        description="If a new model version numbers its states otherwise than the package before. map: the package "
        "gets the numbers of the one before. fail: the check metrics.pass_gates fails. warn: it only says so.",
    )
    numbering_agreement: Annotated[Number, Field(gt=0.5, le=1)] = Field(
        default=0.9, description="Share of the records that must agree for states to be matched with those before."
    )
    revalidate: bool = Field(default=False, description="Validate the latest package again on new raw data.")
    sensor: bool | None = Field(
        default=None,
        description="Whether a sensor looks for new versions. Default: yes, unless the model type's own sensor was "
        "switched off in the UI.",
    )
    approval: Annotated[
        dict[str, _Approval],
        BeforeValidator(_by_environment, json_schema_input_type=_Approval | dict[str, _Approval]),
    ] = Field(
        default_factory=dict,
        description="Whether a person approves a version before the sensor packages it, or that by run.environment "
        "(default: all others).",
        json_schema_extra={"default": "auto"},
    )
    compute: ComputeSettings | None = Field(
        default=None, description="Keys of the section compute that are others for this model type."
    )

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
        try:
            return own.model_validate({} if value is None else value)
        except ValidationError:
            raise
        except Exception:  # noqa: BLE001 - of a plug-in's validator; Plugin.check_settings says it
            return value

    def needs_approval(self, environment: str) -> bool:
        """Whether a person approves a version before the sensor packages it in this environment."""
        return self.approval.get(environment, self.approval.get("default", "auto")) == "required"

    @property
    def registered_package_name(self) -> str:
        """The name under which the deployment package is registered: `<Package-Name>-edge`."""
        return registered_name(self.package_name)


class RunSettings(Section):
    """Where a run belongs, as tags of runs and packages, and where it may write files."""

    environment: str = Field(default="dev", description="The environment, e.g. dev, test or prod.")
    build_reference: str = Field(default="", description="The build that started the run.")
    experiment_name: str = Field(default="", description="The experiment that the model comes from.")
    display_name: str = Field(default="", description="A name for people.")
    output_folders: _Folders = Field(
        default=(Path(".edgepack/outputs"),),
        description="The only folders in which the configuration of a run may name files to write. Empty: none.",
    )


class Settings(Section):
    """The whole configuration. `file` is where it was read from."""

    file: Path
    registry: RegistrySettings = Field(
        default=LocalRegistrySettings(), description="Where models, data and packages are registered."
    )
    artefacts: ArtefactSettings = Field(default=ArtefactSettings(), description="Where artefacts are stored.")
    runtime: RuntimeSettings = Field(
        default=RuntimeSettings(), description="How environments are built, and the limits of model code."
    )
    run: RunSettings = Field(default=RunSettings(), description="Where a run belongs, and where it may write files.")
    compute: ComputeSettings = Field(
        default=ComputeSettings(), description="Where a run's work is done: here, or as a job of Azure ML."
    )
    sensors: SensorSettings = Field(
        default=SensorSettings(), description="How the sensors look for new model versions."
    )
    lines: tuple[_LineName, ...] = Field(
        default=(), description="The lines of the plant that have a package in each stage of their own."
    )
    model_types: dict[str, ModelTypeSettings] = Field(
        min_length=1, description="The kinds of models to package. Partition keys are <name>:<version>."
    )

    @model_validator(mode="before")
    @classmethod
    def _isolation_is_required_where_identities_are_in_reach(cls, values: Any) -> Any:
        # A machine with an identity in Azure gives it to any process that asks its metadata address.
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
        for _, message in name_conflicts({name: entry.model_dump() for name, entry in self.model_types.items()}):
            raise ValueError(message)
        return self

    @property
    def sensor_interval(self) -> int:
        """Seconds between two ticks of the sensors."""
        if self.sensors.interval is not None:
            return self.sensors.interval
        is_cheap = isinstance(self.registry, LocalRegistrySettings) and len(self.model_types) <= FEW_TYPES
        return SHORT_INTERVAL if is_cheap else INTERVAL

    @property
    def retry_interval(self) -> int:
        """Seconds: a run that failed because of infrastructure waits ten times as long, later a hundred times."""
        return self.sensors.interval or INTERVAL

    def model_type(self, name: str) -> ModelTypeSettings:
        """The entry called `name`. Raises ConfigError naming those there are."""
        if name not in self.model_types:
            known = ", ".join(sorted(self.model_types))
            raise ConfigError(f"{self.file}: model_types has no entry {name!r}; it has: {known}")
        return self.model_types[name]

    def compute_of(self, model_type: str) -> ComputeSettings:
        """The compute of a model type: its own keys, else those of the top level. Names and tags of the jobs come from
        the section run where neither has any."""
        compute = self.compute.with_keys_of(self.model_type(model_type).compute)
        named = {
            "experiment_name": compute.experiment_name or as_experiment_name(self.run.experiment_name),
            "display_name": compute.display_name or self.run.display_name or None,
            "build_reference": compute.build_reference or self.run.build_reference or None,
            "deploy_environment": compute.deploy_environment or self.run.environment or None,
        }
        return compute.model_copy(update=named)

    def plug_ins_of(self, model_type: str) -> tuple[str, ...]:
        """The distributions besides this project that implement a model type; they go along to its jobs."""
        names = {each.dist.name for each in plug_ins(self.model_type(model_type).implementation) if each.dist}
        return tuple(sorted(names))

    def compute_workspace_of(self, model_type: str) -> AzureMLRegistrySettings:
        """The workspace that runs the jobs of a model type. Raises ConfigError if none is named."""
        workspace = compute_workspace(self.compute_of(model_type), self.registry)
        if workspace is None:
            raise ConfigError(f"{self.file}: compute names no workspace, and registry is none")
        return workspace
