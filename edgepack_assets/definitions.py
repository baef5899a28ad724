"""The code location: everything wired. `defs` is what Dagster loads."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from edgepack_assets.config.loader import CONFIG_VARIABLE, load_settings, other_config_beside
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.assets import ALL_ASSETS
from edgepack_assets.defs.instance import HOME_VARIABLE, other_home
from edgepack_assets.defs.io_manager import artefact_io_manager
from edgepack_assets.defs.jobs import package_model
from edgepack_assets.defs.log_capture import pass_on_by_thread
from edgepack_assets.defs.remote.executor import Remote, executor_for
from edgepack_assets.defs.resources import edgepack_resource
from edgepack_assets.defs.sensors import registry_sensors
from edgepack_assets.defs.sensors.raw_data import raw_data_versions
from edgepack_assets.defs.sensors.run_failures import failure_sensor
from edgepack_assets.errors import ConfigError, PluginError
from edgepack_assets.model_types import model_type_of
from edgepack_assets.operations.config_check import unknown_metrics


def build_defs(
    config_file: Path | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
    remote: Remote | None = None,
) -> dg.Definitions:
    """The definitions for a configuration file (the one in force by default). `remote` says how jobs on other machines
    are run, where that is not what the configuration says. Raises ConfigError."""
    settings = load_settings(config_file)
    if config_file is None and (beside := other_config_beside()) is not None:
        logging.getLogger(__name__).warning(f"using {settings.file}, which {CONFIG_VARIABLE} names, not {beside}")
    if config_file is None and HOME_VARIABLE not in os.environ and (said := other_home(settings.file)) is not None:
        logging.getLogger(__name__).warning(said)
    _check_gates(settings)
    pass_on_by_thread()
    return dg.Definitions(
        assets=ALL_ASSETS,
        jobs=[package_model],
        sensors=[*registry_sensors(settings), raw_data_versions, failure_sensor(settings)],
        resources={
            "edgepack": edgepack_resource(settings.file),
            "artefact_io": artefact_io_manager,
            **(resource_overrides or {}),
        },
        loggers=loggers,
        executor=executor_for(settings, remote),
    )


def _check_gates(settings: Settings) -> None:
    """Refuse gates on metrics that the model type does not have: such a gate could never pass.

    An implementation that cannot be used refuses nothing here, so that other model types go on working: its sensor and
    the runs of its partitions fail, with the sentence that is logged here."""
    for name, entry in settings.model_types.items():
        try:
            model_type_of(entry)
        except PluginError as error:
            logging.getLogger(__name__).error(f"{settings.file}: model_types.{name} cannot be packaged: {error}")
    problems = [problem for _, problem in unknown_metrics(settings.model_dump()["model_types"])]
    if problems:
        raise ConfigError("\n".join(f"{settings.file}: {problem}" for problem in problems))


def __getattr__(name: str) -> Any:
    """`defs` is built when it is asked for: a command that imports `build_defs` has definitions of its own."""
    if name != "defs":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    built = globals()["defs"] = build_defs()
    return built


def __dir__() -> list[str]:
    """With `defs`, as Dagster looks here for what it loads."""
    return sorted({*globals(), "defs"})
