"""What is wrong with edgepack.yaml: the mistakes that the loader finds, and gates on metrics that do not exist.

The loader does not know model types, so it cannot know their metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgepack_assets.config.loader import read_config
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import PluginError
from edgepack_assets.model_types import model_type


def check_config(file: Path | None = None) -> Settings:
    """The settings in force. Raises ConfigError with one line for each mistake in the file."""
    config = read_config(file)
    for keys, problem in unknown_metrics(config.values.get("model_types")):
        config.add(keys, problem)
    return config.raise_if_wrong()


def unknown_metrics(model_types: object) -> Iterator[tuple[Sequence[int | str], str]]:
    """(keys, message) for gates on a metric that the model type does not have, or not without a setting that is not
    there: such a gate could never pass.

    It reads the entries of `model_types` as they are written, which may have other mistakes."""
    for name, entry in model_types.items() if isinstance(model_types, Mapping) else ():
        implementation, gates = (
            (entry.get("implementation"), entry.get("gates")) if isinstance(entry, Mapping) else (None, None)
        )
        if not isinstance(implementation, str) or not isinstance(gates, Mapping):
            continue
        try:
            plugin = model_type(implementation)
        except PluginError:
            continue  # reported where the implementation is used; other model types go on working
        known, own = plugin.metric_names, entry.get("settings")
        given = {*entry, *(own if isinstance(own, Mapping) else ())}
        for metric in gates:
            setting = plugin.metric_settings.get(metric)
            if setting is not None and setting not in given:
                yield (
                    ("model_types", name, "gates", metric),
                    f"model_types.{name}.gates: {metric} is only there with the setting {setting}: set it, or remove "
                    "the gate",
                )
            if metric not in known:
                yield (
                    ("model_types", name, "gates", metric),
                    f"model_types.{name}.gates: {metric} is no metric of {implementation}; "
                    f"it has: {', '.join(sorted(known))}",
                )
