"""The sensor of failed runs: real runs on a real instance, told to a server on the loopback, one defect at a time."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.loader import load_settings
from edgepack_assets.defs.assets.declare import MODELS, raise_if_failed, user_errors
from edgepack_assets.defs.sensors import run_failures, webhook
from edgepack_assets.defs.sensors.run_failures import failure_sensor
from edgepack_assets.errors import ConfigError, EdgepackError, ModelError

KEY = "T00-secret-key"


@dg.asset(partitions_def=MODELS)
def config_package(context: dg.AssetExecutionContext) -> None:
    with user_errors(context) as key:
        if key.version == 2:
            raise ModelError(f"the model\nneeds https://user:pw@mirror/simple and token={KEY}" + "\x1b x" * 2000)
        if key.version == 3:
            raise RuntimeError("disk quota exceeded")


@dg.asset(
    partitions_def=MODELS, deps=[config_package],
    check_specs=[dg.AssetCheckSpec("pass_gates", asset="metrics", blocking=True)],
)  # fmt: skip
def metrics(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    holds = context.partition_key != "press:4"
    yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=holds, check_name="pass_gates")])
    rows = [
        CheckRow("gate on silhouette", holds, "0.1", "at least 0.2"),
        CheckRow("gate on inertia", holds, "9", "at most 5"),
    ]
    raise_if_failed(context, f"metrics.pass_gates of {context.partition_key}", rows)


@dataclass
class Hook:
    """A webhook. `answer` gives the status of the n-th message, or does something worse."""

    told: list[dict[str, Any]] = field(default_factory=list)
    answer: Callable[[BaseHTTPRequestHandler], int] = lambda _: 200
    url: str = ""


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = made.answer(self)
            if 200 <= status < 300:
                made.told.append(json.loads(body))
            self.send_response(status)
            self.send_header("Location", f"http://127.0.0.1:{server.server_port}/elsewhere")
            self.end_headers()

        def do_GET(self) -> None:
            raise AssertionError("a redirect was followed")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://user:{KEY}@127.0.0.1:{server.server_port}/services/{KEY}"
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield made
    server.shutdown()
    server.server_close()


class Plant:
    """A configuration, a Dagster instance, and a daemon's part of a tick: it saves the cursor of one that is well."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, url: str) -> None:
        self.folder, self.instance = folder, instance
        self.cursor: str | None = None
        self.configure(webhook=url, ui_url="https://dagster.plant.example/")

    def configure(self, **sensors: object) -> None:
        document = {
            "run": {"environment": "prod"},
            "sensors": sensors,
            "model_types": {
                "press": {
                    "implementation": "state_identifier", "model_name": "press_model", "package_name": "Press",
                    "raw_data": {"name": "press_raw"},
                }
            },
        }  # fmt: skip
        (self.folder / "edgepack.yaml").write_text(yaml.safe_dump(document))

    def tick(self) -> str:
        sensor = failure_sensor(load_settings(self.folder / "edgepack.yaml"))
        context = dg.build_sensor_context(self.instance, cursor=self.cursor)
        said = sensor(context)
        assert isinstance(said, dg.SkipReason)
        self.cursor = context.cursor
        assert KEY not in str(said.skip_message)
        return said.skip_message or ""

    def run(self, version: int) -> str:
        job = dg.define_asset_job("package_model", selection="*", partitions_def=MODELS)
        defs = dg.Definitions([config_package, metrics], jobs=[job], executor=dg.in_process_executor)
        done = defs.resolve_job_def("package_model").execute_in_process(
            instance=self.instance, partition_key=f"press:{version}", raise_on_error=False,
            tags={"edgepack/attempt": "2"},
        )  # fmt: skip
        return done.run_id


@pytest.fixture
def plant(tmp_path: Path, hook: Hook, empty_storage: Path) -> Iterator[Plant]:
    # As in a plant: on SQLite, where events lie in a file for each run.
    home = tmp_path / "home"
    shutil.copytree(empty_storage, home)
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        instance.add_dynamic_partitions("models", [f"press:{version}" for version in range(1, 31)])
        yield Plant(tmp_path, instance, hook.url)


def test_a_failed_run_is_told_of_once_with_its_reason(
    plant: Plant, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "quota")  # too short a secret would blacken ordinary words
    plant.run(2)
    assert plant.tick() == "no run has failed since the last tick"  # the first start begins with what comes
    plant.run(1)
    told = [plant.run(version) for version in (2, 3, 4)]
    assert "sent 3 failed runs to" in plant.tick()
    assert plant.tick() == "no run has failed since the last tick"
    model, unknown, gate = hook.told
    assert model.pop("failed_at") > time.time() - 600
    assert model.pop("text").startswith("Packaging press:2 failed at config_package: config_package of press:2: the mo")
    reason = model.pop("reason")
    assert reason.startswith("config_package of press:2: the model\nneeds https://mirror/simple and token=***")
    assert len(reason) <= run_failures.LONGEST
    assert "\x1b" not in reason
    assert model == {
        "event": "run_failed", "model": "press_model", "version": 2, "model_type": "press", "partition": "press:2",
        "assets": ["config_package"], "fault": "model", "attempt": 2, "run_id": told[0], "environment": "prod",
        "url": f"https://dagster.plant.example/runs/{told[0]}",
    }  # fmt: skip
    assert (unknown["fault"], unknown["assets"]) == ("infrastructure", ["config_package"])
    assert "disk quota exceeded" in unknown["reason"]
    assert (gate["fault"], gate["assets"]) == ("model", ["metrics"])
    assert gate["reason"] == (
        "metrics.pass_gates of press:4: gate on silhouette: 0.1, wanted at least 0.2; "
        "gate on inertia: 9, wanted at most 5"
    )


def test_a_run_whose_process_died_is_told_of_with_what_dagster_says(plant: Plant, hook: Hook) -> None:
    plant.tick()
    run = plant.instance.create_run(
        job_name="package_model", run_id=None, run_config=None, status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": "what|ever"}, root_run_id=None, parent_run_id=None, step_keys_to_execute=None,
        execution_plan_snapshot=None, job_snapshot=None, parent_job_snapshot=None, asset_selection=None,
        asset_check_selection=None, resolved_op_selection=None, op_selection=None, remote_job_origin=None,
        job_code_origin=None, asset_graph=None,
    )  # fmt: skip
    plant.instance.report_engine_event("Run execution process unexpectedly exited with signal 9", run)
    plant.instance.report_run_failed(run)
    plant.tick()
    [told] = hook.told
    assert "exited with signal 9" in told["reason"]
    assert (told["fault"], told["assets"], told["version"]) == ("infrastructure", [], None)


@pytest.mark.parametrize(
    ("status", "words"), [(500, "answers 500"), (401, "answers 401"), (307, "redirects are not followed")]
)
def test_what_a_webhook_does_not_take_is_told_later_and_in_order(
    plant: Plant, hook: Hook, status: int, words: str
) -> None:
    plant.tick()
    ids = [plant.run(2), plant.run(4)]
    hook.answer = lambda _: status
    for _ in range(2):
        said = plant.tick()
        assert words in said
        assert "press:2" in said
        assert "and later failures are sent later" in said
    hook.answer = lambda _: 204
    assert "sent 2 failed runs to" in plant.tick()
    assert [told["run_id"] for told in hook.told] == ids


def test_a_refused_message_keeps_no_other_waiting(plant: Plant, hook: Hook) -> None:
    plant.tick()
    plant.run(2)
    last = plant.run(4)
    answers = iter([400, 200])
    hook.answer = lambda _: next(answers)
    said = plant.tick()
    assert "press:2" in said
    assert "is given up: http://127.0.0.1" in said
    assert [told["run_id"] for told in hook.told] == [last]


@pytest.mark.parametrize("drips", [False, True])
def test_a_slow_webhook_costs_a_bounded_time(
    plant: Plant, hook: Hook, drips: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "ANSWER", 0.3)
    monkeypatch.setattr(webhook, "_WHOLE", 1.0)
    released = threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> int:
        while drips and not released.wait(0.05):
            handler.wfile.write(b"H")
        released.wait()
        return 200

    plant.tick()
    plant.run(2)
    hook.answer = slow
    assert ("no whole answer within" if drips else "no answer within") in plant.tick()
    released.set()


def test_a_webhook_that_is_down_for_long_makes_a_failed_tick_and_loses_nothing(
    plant: Plant, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "http://127.0.0.1:9/" + KEY
    plant.configure(webhook=address)
    plant.tick()
    first = plant.run(2)
    assert "http://127.0.0.1:9: ConnectionError (ConnectionRefusedError): Connection refused" in plant.tick()
    plant.configure(webhook=address, failure_after=0)
    with pytest.raises(EdgepackError, match="has accepted nothing for") as failed:
        plant.tick()
    assert KEY not in str(failed.value)
    plant.configure(webhook=hook.url)
    plant.tick()
    assert [told["run_id"] for told in hook.told] == [first]
    plant.run(2)
    monkeypatch.setattr(run_failures, "KEPT", -1)
    assert "1 failed run not sent" in plant.tick()
    monkeypatch.undo()
    assert plant.tick() == "no run has failed since the last tick"
    assert len(hook.told) == 1


def test_a_flood_is_told_in_batches(plant: Plant, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_failures, "BATCH", 2)
    monkeypatch.setattr(run_failures, "_PAGE", 2)
    plant.tick()
    ids = [plant.run(2) for _ in range(5)]
    assert "more are sent in the next tick" in plant.tick()
    plant.tick()
    plant.tick()
    assert [told["run_id"] for told in hook.told] == ids


def test_without_a_webhook_the_sensor_is_off_and_keeps_up(plant: Plant, hook: Hook) -> None:
    plant.configure(webhook="")
    settings = load_settings(plant.folder / "edgepack.yaml")
    assert failure_sensor(settings).default_status is dg.DefaultSensorStatus.STOPPED
    assert plant.tick() == "no webhook is configured: sensors.webhook"
    plant.configure(webhook=f"ftp://{KEY}")
    with pytest.raises(ConfigError, match=r"sensors\.webhook: must be the address") as refused:
        load_settings(plant.folder / "edgepack.yaml")
    assert KEY not in str(refused.value)
    plant.configure(webhook=hook.url)
    assert KEY not in repr(load_settings(plant.folder / "edgepack.yaml"))
