"""What is wrong with edgepack.yaml: the mistakes that the loader finds, implementations that cannot be used, gates on
metrics that do not exist, and files for jobs of Azure ML that cannot be read.

The loader does not know model types, so it cannot know their metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgepack_assets.config.compute_settings import ComputeSettings
from edgepack_assets.config.implementations import installed
from edgepack_assets.config.loader import read_config
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import EdgepackError, PluginError
from edgepack_assets.model_types import model_type
from edgepack_assets.model_types.plugin import Plugin


def check_config(file: Path | None = None) -> Settings:
    """The settings in force. Raises ConfigError with one line for each mistake in the file."""
    config = read_config(file)
    for keys, problem in _unusable(config.values.get("model_types")):
        config.add(keys, problem)
    for keys, problem in unknown_metrics(config.values.get("model_types")):
        config.add(keys, problem)
    for keys, problem in _wrong_conda_files(config.settings):
        config.add(keys, problem)
    return config.raise_if_wrong()


def _unusable(model_types: object) -> Iterator[tuple[Sequence[int | str], str]]:
    """(keys, message) for each entry whose implementation is installed and cannot be used. The others are the loader's
    to refuse. Nothing of such an entry can be packaged, though the code location loads and other entries work."""
    for name, entry in model_types.items() if isinstance(model_types, Mapping) else ():
        implementation = entry.get("implementation") if isinstance(entry, Mapping) else None
        if not isinstance(implementation, str) or implementation not in installed():
            continue
        try:
            model_type(implementation).check_settings(entry.get("settings"))
        except PluginError as error:
            yield ("model_types", name, "implementation"), f"model_types.{name} cannot be packaged: {error}"


def _wrong_conda_files(settings: Settings | None) -> Iterator[tuple[Sequence[int | str], str]]:
    """(keys, message) for each compute.conda_path whose file is there and is no conda file."""
    if settings is None:
        return
    sections: dict[tuple[str, ...], ComputeSettings | None] = {("compute",): settings.compute}
    sections |= {("model_types", name, "compute"): entry.compute for name, entry in settings.model_types.items()}
    for keys, section in sections.items():
        path = section.conda_path if section is not None else None
        if path is None or not path.is_file():
            continue
        from edgepack_assets.compute.azure_ml.environment import read_conda

        try:
            read_conda(path)
        except EdgepackError as error:
            yield (*keys, "conda_path"), str(error)


def _unknown_parts(
    name: str, metric: str, worst: Mapping[str, object], plugin: Plugin
) -> Iterator[tuple[Sequence[int | str], str]]:
    """(keys, message) for each part that no record belongs to, and for a metric that has no value in a part."""
    keys = ("model_types", name, "gates", metric, "worst")
    if metric not in plugin.sliced_metrics:
        has = f"those that have: {', '.join(sorted(plugin.sliced_metrics))}" if plugin.sliced_metrics else "none has"
        yield keys, f"{'.'.join(keys)}: {metric} has no value in a part of the records; {has}"
    for kind in worst:
        if kind not in plugin.slices:
            has = ", ".join(sorted(plugin.slices)) or "nothing"
            yield (*keys, kind), f"{'.'.join(keys)}: records are not divided by {kind}, but by: {has}"


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
            continue  # reported by _unusable
        known, own = plugin.metric_names, entry.get("settings")
        given = {*entry, *(own if isinstance(own, Mapping) else ())}
        for metric, gate in gates.items():
            worst = gate.get("worst") if isinstance(gate, Mapping) else None
            if metric in known and isinstance(worst, Mapping) and worst:
                yield from _unknown_parts(name, metric, worst, plugin)
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
