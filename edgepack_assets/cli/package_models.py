"""`edgepack package KEY...`: the everyday command, from a registered model to its registered deployment package.

It materializes the assets of model versions on the Dagster instance in use, shows a line for each, and ends with what
was registered. Dagster is imported only where a run is started."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack_assets.cli.outcome import INFRASTRUCTURE, INTERRUPTED, REFUSED, FailureError, print_json
from edgepack_assets.cli.package_names import find_key
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs import instance as dagster_home
from edgepack_assets.defs.asset_names import ASSETS
from edgepack_assets.defs.lean_dagster import import_lean
from edgepack_assets.operations.packages import Packaged, metrics_of, missing_packages, packages_table
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Registry
from edgepack_assets.tasks.hand_over import OUTPUT_VARIABLE, is_hand_over_or_empty
from edgepack_assets.tasks.output_files import operators_file

if TYPE_CHECKING:
    from dagster import Definitions, LoggerDefinition

    from edgepack_assets.defs.command_runs.runs import PackageRequest, PackageResult

_LONGEST_REASON = 256


class _Context(click.Context):
    @property
    def command_path(self) -> str:
        """`edgepack package`, as the user types it: this command is given no name."""
        return super().command_path.rstrip()


class _Command(click.Command):
    context_class = _Context


@click.command("models", cls=_Command, hidden=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("keys", metavar="KEY...", nargs=-1)
@click.option("--all-missing", is_flag=True, help="Package every model version that has no package yet.")
@click.option(
    "--from",
    "first",
    metavar="ASSET",
    help="Materialize only this asset and what is made from it, e.g. payload_data or metrics.",
)
@click.option(
    "--override",
    metavar="REASON",
    help="Register although gates do not hold. The reason is kept in the package's tags.",
)
@click.option(
    "--output-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write name, version and metrics of the package there: JSON, or KEY=VALUE lines if it ends in .env.",
)
@click.option("--no-wait", is_flag=True, help="Hand the run over to Dagster's daemon and return at once.")
@click.option("--parallel", type=click.IntRange(1), default=2, show_default=True, help="How many versions at once.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON list; progress goes to stderr.")
def package_models(  # noqa: PLR0917 - one for each option
    keys: Sequence[str], all_missing: bool, first: str | None, override: str | None, output_file: Path | None,
    no_wait: bool, parallel: int, as_json: bool,
) -> None:  # fmt: skip
    """Package model versions and register the packages.

    KEY is a model version, e.g. state_identifier:3 or state_identifier:latest. The name of a registered package, e.g.
    State-Identifier-edge:2, stands for the model version that it was made from. The runs are those of Dagster: the UI
    shows them."""
    if bool(keys) == all_missing:
        raise click.UsageError("name model versions, e.g. state_identifier:3, or say --all-missing")
    if override is not None and not 0 < len(override.strip()) <= _LONGEST_REASON:
        raise click.BadParameter(f"give a reason of 1 to {_LONGEST_REASON} characters", param_hint="--override")
    if no_wait and first is not None:
        raise click.UsageError("--no-wait hands over whole runs: leave out --from, or wait")
    # What is loaded before the runs is no garbage: looking through it again and again takes a fifth of the start.
    gc.disable()
    try:
        settings = load_settings()
        registry = open_registry(settings)
        wanted = _missing(settings, registry) if all_missing else [find_key(text, settings, registry) for text in keys]
        wanted = list(dict.fromkeys(wanted))
        _check_output_file(output_file, wanted, no_wait)
        if not wanted:
            if as_json:
                print_json([])
            else:
                click.echo("Every model version has a package: nothing to do.")
            return
        requests = _requests(wanted, first, override)
        if no_wait or (first is None and output_file is None and not _waits(settings, wanted)):
            import_lean()
            dagster_home.add_partitions(wanted)
            _hand_over(settings, requests, as_json)
            return
        if output_file is not None:
            os.environ[OUTPUT_VARIABLE] = str(output_file.absolute())
        results = _run(settings, registry, requests, parallel, as_json)
        if override is not None:
            results = _register_anyway(settings, registry, results, override, parallel, as_json)
    except KeyboardInterrupt:
        raise FailureError("interrupted: the runs are kept as canceled", INTERRUPTED) from None
    finally:
        gc.enable()
    _show(results, settings, as_json)
    if output_file is not None and not output_file.exists():
        raise FailureError(f"{output_file} was not written: the run was not made on this machine", INFRASTRUCTURE)


def _check_output_file(file: Path | None, wanted: Sequence[ModelKey], no_wait: bool) -> None:
    """Before the run, which takes minutes. What the operator of this shell names is written wherever that is."""
    if file is None:
        return
    if len(wanted) != 1 or no_wait:
        raise click.UsageError("--output-file takes one model version, and waits for its package")
    operators_file("--output-file", str(file)).prepare(is_hand_over_or_empty)


def _waits(settings: Settings, keys: Sequence[ModelKey]) -> bool:
    """Whether the command waits for its runs: it does unless all are jobs that nobody is to wait for."""
    computes = [settings.compute_of(key.model_type) for key in keys]
    return any(not compute.is_remote or compute.wait_for_completion for compute in computes)


def _missing(settings: Settings, registry: Registry) -> list[ModelKey]:
    missing = missing_packages(settings, registry)
    for key in missing.unapproved:
        model = f"{settings.model_type(key.model_type).model_name}:{key.version}"
        click.echo(f"{key} is passed over, it waits for approval: edgepack model approve {model}", err=True)
    return list(missing.keys)


def _requests(keys: Sequence[ModelKey], first: str | None, override: str | None) -> list[PackageRequest]:
    from edgepack_assets.defs.command_runs.runs import PackageRequest, assets_from

    try:
        assets = ASSETS if first is None else assets_from(first)
    except ValueError:
        raise click.BadParameter(f"{first!r} is none of {', '.join(ASSETS)}", param_hint="--from") from None
    config = {} if override is None else _override_config(override)
    return [PackageRequest(key, assets, config) for key in keys]


def _override_config(reason: str) -> dict[str, Any]:
    return {"ops": {"deployment_package": {"config": {"override_gates_reason": reason.strip()}}}}


def _register_anyway(  # noqa: PLR0917 - what the command works with
    settings: Settings, registry: Registry, results: list[PackageResult], reason: str, parallel: int, as_json: bool
) -> list[PackageResult]:
    """Launch deployment_package alone where nothing but gates stopped the run before it, and replace those results.

    It computes the gates again, and refuses whatever else does not hold."""
    from edgepack_assets.defs.command_runs.runs import PackageRequest

    stopped = [
        result.key
        for result in results
        if result.reasons and all(text.startswith(f"metrics.pass_gates of {result.key}: ") for text in result.reasons)
    ]
    requests = [PackageRequest(key, ("deployment_package",), _override_config(reason)) for key in stopped]
    again = {each.key: each for each in _run(settings, registry, requests, parallel, as_json)} if requests else {}
    return [again.get(result.key, result) for result in results]


def _run(
    settings: Settings, registry: Registry, requests: Sequence[PackageRequest], parallel: int, as_json: bool
) -> list[PackageResult]:
    home = dagster_home.prepare_process()
    if len(requests) > 1:  # a single run's process does it
        import_lean()
        dagster_home.add_partitions(request.key for request in requests)

    from edgepack_assets.defs.command_runs.display import run_display
    from edgepack_assets.defs.command_runs.runs import run_requests
    from edgepack_assets.defs.command_runs.start import helpers_for

    def load(console: LoggerDefinition) -> Definitions:
        from edgepack_assets.definitions import build_defs

        return build_defs(settings.file, loggers={"console": console})

    with run_display(sys.stderr if as_json else sys.stdout) as display:
        start = helpers_for(requests[0], settings, registry)
        return run_requests(requests, load, home, display, parallel=parallel, start=start)


def _hand_over(settings: Settings, requests: Sequence[PackageRequest], as_json: bool) -> None:
    from edgepack_assets.defs.command_runs.daemon import launch
    from edgepack_assets.defs.sensors.status import sensors_status

    launched = {str(request.key): launch(request, dagster_home.environment()) for request in requests}
    if as_json:
        print_json([{"key": key, "run_id": run_id} for key, run_id in launched.items()])
    else:
        for key, run_id in launched.items():
            click.echo(f"{key:28} run {run_id} is queued")
    if not sensors_status(settings, str(dagster_home.ensure())).daemon_is_alive:
        click.echo("no Dagster daemon is running: the runs wait until `edgepack ui` or `dagster-daemon run`", err=True)


def _show(results: Sequence[PackageResult], settings: Settings, as_json: bool) -> None:
    from edgepack_assets.defs.command_runs.runs import failures_in_words
    from edgepack_assets.new_models.run_requests import RunOutcome

    failed = [result for result in results if not result.succeeded]
    if as_json:
        print_json([_as_json(result, settings) for result in results])
    elif done := [_packaged(result, settings) for result in results if result.succeeded and result.package]:
        click.echo(f"\n{packages_table(done)}")
    if not failed:
        return
    refused = any(result.outcome in {RunOutcome.MODEL_FAILURE, RunOutcome.UNAPPROVED} for result in failed)
    raise FailureError(failures_in_words(results), REFUSED if refused else INFRASTRUCTURE)


def _packaged(result: PackageResult, settings: Settings) -> Packaged:
    return Packaged(
        result.key,
        result.package["package"],
        result.package["location"],
        _metrics(result, settings),
        " (registered before)" * bool(result.package["registered_before"]),
    )


def _metrics(result: PackageResult, settings: Settings) -> dict[str, float]:
    return metrics_of(settings.model_type(result.key.model_type), result.package.get("tags", {}))


def _as_json(result: PackageResult, settings: Settings) -> dict[str, Any]:
    package = {name: result.package[name] for name in _PACKAGE_KEYS if name in result.package}
    return {
        "key": str(result.key),
        "outcome": result.outcome.name.lower(),
        "run_id": result.run_id,
        **package,
        "metrics": _metrics(result, settings),
        "reasons": list(result.reasons),
        "log": str(result.log),
    }


_PACKAGE_KEYS = ("package", "name", "version", "package_id", "content_digest", "location", "registered_before")
