"""`python -m edgepack_assets.quickstart`: makes two registered packages from nothing. Run again, it does only what is
missing."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.registry_settings import LocalRegistrySettings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs import instance
from edgepack_assets.errors import ConfigError, EdgepackError
from edgepack_assets.operations.packages import Packaged, find_package, packaged, packages_table
from edgepack_assets.partitions import ModelKey
from edgepack_assets.quickstart.add_samples import SampleModel, add_samples
from edgepack_assets.quickstart.next_steps import next_steps
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Registry

PACKAGE_ASSET = "deployment_package"


def main(arguments: Sequence[str] = ()) -> int:
    """Run the quickstart; return the exit code."""
    argparse.ArgumentParser(
        prog="python -m edgepack_assets.quickstart",
        description="Make sample data, two models and their registered packages, in the folder of edgepack.yaml "
        "(EDGEPACK_CONFIG names another). The first time takes some minutes. Run again, it does only what is missing.",
    ).parse_args(arguments)
    began = time.monotonic()
    try:
        settings = load_settings()
        print(f"edgepack quickstart, configured by {settings.file}")
        if not isinstance(settings.registry, LocalRegistrySettings):
            raise ConfigError(
                f"{settings.file}: the quickstart adds sample data and models, which do not belong in a shared "
                "registry; run it with `registry: {type: local}` (EDGEPACK_CONFIG names another file)"
            )
        registry = open_registry(settings)
        samples, packages, work_done = run(settings, registry)
    except EdgepackError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Run it again to continue: finished steps are kept.", file=sys.stderr)
        return 130
    print(f"\n{packages_table(packages)}\n")
    took = f"Done in {time.monotonic() - began:.0f} s."
    print(took if work_done else "Everything exists already: nothing to do.")
    print(f"\n{next_steps(samples[0], registry)}")
    return 0


def run(settings: Settings, registry: Registry) -> tuple[list[SampleModel], list[Packaged], bool]:
    """Add what is missing and package what is not packaged. Returns the samples, their packages, and whether there was
    work to do."""
    print("\nSample data and models")
    samples = add_samples(settings, registry, _print_line)
    home = instance.prepare_process()
    instance.add_partitions(sample.key for sample in samples)

    missing = [sample for sample in samples if not _is_packaged(sample, registry, home)]
    print("\nPackaging" + (" (the first time, this builds an environment for each model)" if missing else ""))
    for sample in samples:
        if sample not in missing:
            _print_line(f"{sample.key!s:28} is packaged already")
    if missing:
        _package([sample.key for sample in missing], home, settings)
    packages = []
    for sample in samples:
        package = find_package(sample.entry, sample.model, registry)
        if package is None:
            raise EdgepackError(f"{sample.key} was materialized, but no package of it is registered")
        packages.append(packaged(sample.key, sample.entry, package))
    return samples, packages, bool(missing)


def _package(keys: list[ModelKey], home: Path, settings: Settings) -> None:
    from edgepack_assets.definitions import build_defs
    from edgepack_assets.defs.command_runs.display import run_display
    from edgepack_assets.defs.command_runs.runs import PackageRequest, failures_in_words, run_requests

    with run_display(sys.stdout, "  ") as display:
        results = run_requests(
            map(PackageRequest, keys), lambda console: build_defs(settings.file, loggers={"console": console}), home,
            display,
        )  # fmt: skip
    if failures := failures_in_words(results):
        raise EdgepackError(failures)


def _is_packaged(sample: SampleModel, registry: Registry, home: Path) -> bool:
    from edgepack_assets.defs.command_runs.runs import is_materialized

    # A package alone is not enough: with a new DAGSTER_HOME the UI would have nothing to show.
    return find_package(sample.entry, sample.model, registry) is not None and is_materialized(
        PACKAGE_ASSET, sample.key, home
    )


def _print_line(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
