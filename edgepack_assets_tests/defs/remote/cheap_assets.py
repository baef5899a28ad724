"""Six assets with the names and the wiring of the real ones, and cheap work: what a run and its job exchange.

What each version does is in its function. In a job: `python -m` this module."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import yaml

import edgepack_assets
from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow
from edgepack_assets.config.loader import load_settings
from edgepack_assets.defs.assets.declare import asset_options, result, run_config_schema, user_errors
from edgepack_assets.defs.assets.external import raw_data, registered_model
from edgepack_assets.defs.assets.input_versions import RAW_DATA, REGISTERED_MODEL, input_tags
from edgepack_assets.defs.io_manager import artefact_io_manager
from edgepack_assets.defs.jobs import package_model
from edgepack_assets.defs.remote.executor import Remote, executor_for
from edgepack_assets.defs.remote.inside import main
from edgepack_assets.defs.remote.watch import Timing
from edgepack_assets.defs.resources import EdgepackResource, edgepack_resource
from edgepack_assets.errors import ModelError, TransientError
from edgepack_assets_tests.defs.remote.process_jobs import ProcessJobs

GOOD, BAD_MODEL, FAILS_CHECK, RETRIED, SLOW, DIES, LARGE, UNEXPECTED = range(1, 9)
NO_RESOURCE = "no resource"
_LARGE = 200_000
TIMING = Timing(poll=0.1, status=0.2, late=3, silence=60, outage=3, cancel=15)


def _artefact(context: dg.AssetExecutionContext, edgepack: Any, *inputs: Artefact) -> Artefact:
    name = context.asset_key.to_user_string()
    blob = edgepack.store.put_bytes(f"{name} {context.partition_key}".encode(), "text/plain")
    made_from = {each.asset: each.digest for each in inputs}
    return Artefact(asset=name, partition=context.partition_key, parts={"text": blob}, facts={}, made_from=made_from)


def _made(
    context: dg.AssetExecutionContext, edgepack: Any, check: str, *inputs: Artefact, **more: Any
) -> Iterator[Any]:
    rows = more.pop("rows", [CheckRow("part", True, "1", "1")])
    tags = input_tags(context.instance, RAW_DATA, more["key"], "press_raw:1@abc", more.pop("current", None))
    if context.asset_key.to_user_string() == "config_package":
        tags = input_tags(context.instance, REGISTERED_MODEL, more["key"], "press:1@def", "press:1@def")
    yield from result(context, _artefact(context, edgepack, *inputs), check, rows, {"run": context.run_id}, tags=tags)


def _options(check: str, asset: str) -> dict[str, Any]:
    return asset_options(check, "It holds.", asset, kinds={"python"}, code_version="1")


@dg.asset(
    deps=[RAW_DATA], config_schema=run_config_schema(payload_path="A file."), **_options("is_sound", "payload_data")
)
def payload_data(context: dg.AssetExecutionContext, edgepack: dg.ResourceParam[Any]) -> Iterator[Any]:
    """Of SLOW it waits for a document of the store; of RETRIED the first attempt fails on a busy registry."""
    with user_errors(context) as key:
        context.log.info("a line of the log")
        context.log.debug("a line that this instance does not keep")
        context.log.info(f"running {edgepack_assets.__file__} at home in {Path.home()}")
        while key.version == SLOW and not edgepack.store.get_named("go", "press"):
            time.sleep(0.05)
        if key.version == DIES:
            time.sleep(2)  # for what was told to be sent
            os.kill(os.getpid(), signal.SIGKILL)
        if key.version == RETRIED and context.retry_number == 0:
            raise dg.RetryRequested(max_retries=1, seconds_to_wait=0.1) from TransientError("the registry is busy")
        yield from _made(context, edgepack, "is_sound", key=key, current="press_raw:2@xyz")


@dg.asset(deps=[REGISTERED_MODEL], **_options("is_fit", "config_package"))
def config_package(context: dg.AssetExecutionContext, edgepack: dg.ResourceParam[Any]) -> Iterator[Any]:
    """Of BAD_MODEL it fails on the model; of UNEXPECTED by an error in code."""
    with user_errors(context) as key:
        if key.version == BAD_MODEL and not edgepack.store.get_named("mended", "press"):
            raise ModelError("it holds no model file")
        if key.version == UNEXPECTED:
            raise ConnectionAbortedError("who knows")
        context.log.info(f"approved by {context.run.tags.get('approved_by')}")
        if key.version == LARGE:
            context.log.info("x" * _LARGE)
        yield from _made(context, edgepack, "is_fit", key=key)


@dg.asset(deps=[RAW_DATA], **_options("is_sound", "prepped_data"))
def prepped_data(
    context: dg.AssetExecutionContext, edgepack: dg.ResourceParam[Any], payload_data: Artefact, config_package: Artefact
) -> Iterator[Any]:
    with user_errors(context) as key:
        yield from _made(context, edgepack, "is_sound", payload_data, config_package, key=key)


@dg.asset(deps=[RAW_DATA], **_options("are_complete", "validation_results"))
def validation_results(
    context: dg.AssetExecutionContext, edgepack: dg.ResourceParam[Any], payload_data: Artefact, config_package: Artefact
) -> Iterator[Any]:
    with user_errors(context) as key:
        yield from _made(context, edgepack, "are_complete", payload_data, config_package, key=key)


@dg.asset(deps=[RAW_DATA], **_options("pass_gates", "metrics"))
def metrics(
    context: dg.AssetExecutionContext, edgepack: dg.ResourceParam[Any], validation_results: Artefact,
    prepped_data: Artefact, payload_data: Artefact,
) -> Iterator[Any]:  # fmt: skip
    """Of FAILS_CHECK the gates do not hold."""
    with user_errors(context) as key:
        rows = [CheckRow("gate on silhouette", key.version != FAILS_CHECK, "0.2", ">= 0.5")]
        yield from _made(
            context, edgepack, "pass_gates", validation_results, prepped_data, payload_data, key=key, rows=rows
        )


@dg.asset(
    deps=[RAW_DATA],
    config_schema=run_config_schema(output_file="A file.", override_gates_reason="Why."),
    **_options("is_registered_as_built", "deployment_package"),
)
def deployment_package(  # noqa: PLR0917 - Dagster passes an asset's inputs by name
    context: dg.AssetExecutionContext, edgepack: dg.ResourceParam[Any], config_package: Artefact,
    payload_data: Artefact, validation_results: Artefact, metrics: Artefact,
) -> Iterator[Any]:  # fmt: skip
    with user_errors(context) as key:
        context.log.info(f"override: {context.op_execution_context.op_config['override_gates_reason']}")
        inputs = config_package, payload_data, validation_results, metrics
        yield from _made(context, edgepack, "is_registered_as_built", *inputs, key=key)


def _fails(_: dg.InitResourceContext) -> None:
    raise ConnectionAbortedError("the resource cannot be made")


def _without_helpers(config_file: Path) -> dg.ResourceDefinition:
    """The project's resource, which starts no packaging worker ahead: nothing is packaged here, and each run's would
    take as much processor time as all else that the run does."""
    opened = contextlib.contextmanager(edgepack_resource(config_file).resource_fn)

    @dg.resource(config_schema={})
    def edgepack(context: dg.InitResourceContext) -> Iterator[EdgepackResource]:
        with contextlib.ExitStack() as stack:
            with mock.patch.object(EdgepackResource, "begin"):
                resource = stack.enter_context(opened(context))
            yield resource

    return edgepack


def load(config_file: Path, remote: Remote | None = None, console: dg.LoggerDefinition | None = None) -> dg.Definitions:
    """The definitions; with NO_RESOURCE as the description in edgepack.yaml the resource cannot be made."""
    settings = load_settings(config_file)
    edgepack = _without_helpers(settings.file)
    if settings.model_type("press").description == NO_RESOURCE:
        edgepack = dg.ResourceDefinition(_fails)
    return dg.Definitions(
        assets=[
            raw_data, registered_model, payload_data, config_package, prepped_data, validation_results, metrics,
            deployment_package,
        ],
        jobs=[package_model],
        resources={"edgepack": edgepack, "artefact_io": artefact_io_manager},
        loggers=None if console is None else {"console": console},
        executor=executor_for(settings, remote),
    )  # fmt: skip


def remote(folder: Path, **more: Any) -> Remote:
    """Jobs that are processes, kept in a folder."""
    values = {"module": __name__, "timing": TIMING, **more}
    return Remote(service=lambda *_: ProcessJobs(folder), **values)


def configure(folder: Path, **more: Any) -> Path:
    """An edgepack.yaml of the model type `press`."""
    entry = {"implementation": "state_identifier", "model_name": "press_model", "package_name": "Press",
             "raw_data": {"name": "press_raw"}, **more}  # fmt: skip
    document = {"registry": {"path": str(folder / "registry")}, "artefacts": {"root": str(folder / "artefacts")},
                "model_types": {"press": entry}}  # fmt: skip
    file = folder / "edgepack.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], load))
