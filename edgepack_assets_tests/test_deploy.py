"""docs/deploy, compose.yaml and Dockerfile, as far as no container engine is needed: each instance with the real class
of its run launcher, what that asks its cluster to start, and the commands that the containers run."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pytest
import yaml
from dagster._cli import create_dagster_cli
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.instance.ref import InstanceRef
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.workspace.load import location_origins_from_yaml_paths
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import dagster_webserver

from edgepack_assets.cli.main import main as edgepack
from edgepack_assets.defs.jobs import JOB
from edgepack_assets.defs.run_launcher import WatchedRunLauncher

PROJECT = Path(__file__).parents[1]
DEPLOY = PROJECT / "docs" / "deploy"
IMAGE = "registry.plant.example/edgepack-assets:0.2.0"
SANDBOX_NEEDS = {"seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"}


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an edgepack.yaml whose registry is empty; a run there fails and says so."""
    (tmp_path / "edgepack.yaml").write_bytes((PROJECT / "edgepack.yaml").read_bytes())
    monkeypatch.setenv("EDGEPACK_CONFIG", str(tmp_path / "edgepack.yaml"))
    return tmp_path


def make_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    from edgepack_assets.definitions import defs

    origin = RepositoryPythonOrigin(
        executable_path=sys.executable,
        code_pointer=ModuleCodePointer("edgepack_assets.definitions", "defs", str(PROJECT)),
        container_image=IMAGE,
        entry_point=DEFAULT_DAGSTER_ENTRY_POINT,
        container_context={},
    )
    instance.add_dynamic_partitions("models", ["state_identifier:7"])
    return instance.create_run_for_job(
        defs.resolve_job_def(JOB),
        tags={"dagster/partition": "state_identifier:7"},
        job_code_origin=JobPythonOrigin(job_name=JOB, repository_origin=origin),
        status=dg.DagsterRunStatus.STARTING,
    )


def execute(command: list[str], instance: dg.DagsterInstance, run: dg.DagsterRun) -> int:
    """Run a container's command as a process of this machine, and return its exit code; it has to come to our code."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )
    failures = [
        str(event.dagster_event.step_failure_data.error)
        for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        if event.dagster_event
    ]
    assert any("state_identifier" in failure and "registry" in failure for failure in failures), done.stderr[-3000:]
    return done.returncode


class _Cluster(http.server.BaseHTTPRequestHandler):
    """The part of a Kubernetes API that takes a job."""

    jobs: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/apis/batch/v1/namespaces/plant/jobs"
        self.jobs.append(json.loads(body))
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """A kubeconfig, and the jobs that were made with it."""
    jobs: list[dict[str, Any]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Cluster", (_Cluster,), {"jobs": jobs}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = tmp_path / "kubeconfig"
    address = f"http://127.0.0.1:{server.server_port}"
    names: dict[str, Any] = {"cluster": "c", "user": "u"}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "x",
                "contexts": [{"name": "x", "context": names}],
                "clusters": [{"name": "c", "cluster": {"server": address}}], "users": [{"name": "u", "user": {}}],
            }
        )
    )  # fmt: skip
    yield kubeconfig, jobs
    server.shutdown()
    server.server_close()


def snake(name: str) -> str:
    """A key of the Helm chart as Dagster's configuration has it."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@pytest.mark.long
def test_a_run_in_kubernetes_is_a_pod_in_which_the_sandbox_works(
    cluster: tuple[Path, list[dict[str, Any]]], plant: Path
) -> None:
    values = yaml.safe_load((DEPLOY / "kubernetes.values.yaml").read_text())
    launcher = {snake(key): value for key, value in values["runLauncher"]["config"]["k8sRunLauncher"].items()}
    launcher["run_k8s_config"] = {snake(key): value for key, value in launcher["run_k8s_config"].items()}
    # What the chart adds, and this cluster in place of the one that the pod is in.
    launcher |= {
        "dagster_home": values["global"]["dagsterHome"], "instance_config_map": "dagster-instance",
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
        "service_account_name": values["serviceAccount"]["name"], "job_namespace": "plant",
        "load_incluster_config": False, "kubeconfig_file": str(cluster[0]),
    }  # fmt: skip
    (plant / "dagster.yaml").write_text(
        yaml.safe_dump(
            {"run_launcher": {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher}}
            | {"telemetry": {"enabled": False}}
        )
    )
    with dg.DagsterInstance.from_config(str(plant)) as instance:
        run = make_run(instance)
        instance.run_launcher.launch_run(_launch(run))
        [job] = cluster[1]
        pod = job["spec"]["template"]["spec"]
        [container] = pod["containers"]
        assert container["image"] == IMAGE
        assert pod["hostUsers"] is False
        assert pod["serviceAccountName"] == "edgepack"
        assert pod["securityContext"]["runAsNonRoot"] is True
        security = container["securityContext"]
        assert security["procMount"] == "Unmasked"
        assert security["seccompProfile"] == security["appArmorProfile"] == {"type": "Unconfined"}
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["allowPrivilegeEscalation"] is False
        assert job["spec"]["template"]["metadata"]["labels"]["azure.workload.identity/use"] == "true"
        assert job["spec"]["backoffLimit"] == 0  # the sensor's attempts apply, not the cluster's
        assert execute([*container.get("command", []), *container["args"]], instance, run) != 0


@pytest.mark.long
def test_a_run_in_container_apps_is_a_job(plant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dagster_azure.container_apps", reason="the extra container-apps is not installed")
    text = (DEPLOY / "dagster.container-apps.yaml").read_text()
    for name in set(re.findall(r"env: (\w+)", text)) | {"AZURE_CLIENT_ID"}:
        monkeypatch.setenv(name, "5432" if name.endswith("PORT") else f"of-{name}")
    (plant / "dagster.yaml").write_text(text)
    assert type(InstanceRef.from_dir(str(plant)).compute_log_manager).__name__ == "AzureBlobComputeLogManager"
    sections = yaml.safe_load(text)
    del sections["storage"], sections["compute_logs"]  # no database and no storage account here
    (plant / "dagster.yaml").write_text(yaml.safe_dump(sections))
    made: list[Any] = []
    with dg.DagsterInstance.from_config(str(plant)) as instance:
        launcher = instance.run_launcher
        monkeypatch.setattr(type(launcher), "_get_client", lambda _: _ContainerApps(made))
        run = make_run(instance)
        launcher.launch_run(_launch(run))
        [job] = made
        [container] = job["properties"]["template"]["containers"]
        assert container["image"] == IMAGE
        assert job["properties"]["configuration"]["replicaRetryLimit"] == 0
        assert job["properties"]["environmentId"] == "of-EDGEPACK_APPS_ENVIRONMENT"
        given = {variable["name"]: variable["value"] for variable in container["env"]}
        # All that the instance of the job needs to load its own dagster.yaml is handed on.
        assert given.keys() >= set(re.findall(r"env: (\w+)", text)) | {"AZURE_CLIENT_ID"}
        execute(container["command"], instance, run)


class _ContainerApps:
    """Stands for the client of Azure Container Apps: keeps the job as it would be sent."""

    def __init__(self, made: list[Any]) -> None:
        self._made = made
        self.jobs = self

    def begin_create_or_update(self, _group: str, _name: str, job: Any) -> _ContainerApps:
        self._made.append(job.serialize())
        return self

    def begin_start(self, _group: str, _name: str) -> None: ...

    def result(self, timeout: float) -> None: ...


def _launch(run: dg.DagsterRun) -> Any:
    from dagster._core.launcher.base import LaunchRunContext

    return LaunchRunContext(dagster_run=run, workspace=None)


@pytest.mark.parametrize("file", ["dagster.compose.yaml", "dagster.container-apps.yaml"])
def test_an_instance_differs_from_the_default_in_what_is_elsewhere_alone(file: str) -> None:
    of_deploy, default = (yaml.safe_load(path.read_text()) for path in (DEPLOY / file, PROJECT / "dagster.yaml"))
    elsewhere = {"storage", "compute_logs", "local_artifact_storage"}
    if "AcaRunLauncher" in (DEPLOY / file).read_text():
        elsewhere.add("run_launcher")
    assert {key: value for key, value in of_deploy.items() if key not in elsewhere} == {
        key: value for key, value in default.items() if key not in elsewhere
    }


def test_the_instance_of_compose_has_our_run_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compose = yaml.safe_load((PROJECT / "compose.yaml").read_text())
    for name, value in compose["services"]["code"]["environment"].items():
        monkeypatch.setenv(name, value)
    (tmp_path / "dagster.yaml").write_bytes((DEPLOY / "dagster.compose.yaml").read_bytes())
    reference = InstanceRef.from_dir(str(tmp_path))
    assert isinstance(reference.run_launcher, WatchedRunLauncher)
    assert type(reference.compute_log_manager).__name__ == "LocalComputeLogManager"


def test_each_service_runs_a_command_that_exists_and_the_code_alone_is_unconfined() -> None:
    services = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"]
    programs = {"dagster": create_dagster_cli(), "dagster-daemon": create_dagster_daemon_cli(), "edgepack": edgepack}
    for name, service in services.items():
        if name == "postgres":
            continue
        program, *arguments = service["command"]
        _parse(programs[program], program, arguments)
        assert SANDBOX_NEEDS.isdisjoint(service["security_opt"]) == (name != "code"), name
        assert service["cap_drop"] == ["ALL"]
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith("./") or (PROJECT / source).is_file(), volume
    assert set(services["code"]["security_opt"]) >= SANDBOX_NEEDS
    # The web server and the daemon ask the service `code`, at the port that it listens on.
    [origin] = location_origins_from_yaml_paths([str(DEPLOY / "workspace.yaml")])
    assert (origin.host, origin.port) == ("code", 4000)  # type: ignore[attr-defined]
    assert services["code"]["command"][services["code"]["command"].index("--port") + 1] == "4000"
    assert all(port.startswith("127.0.0.1:") for port in services["webserver"]["ports"])


def _parse(command: click.Command, name: str, arguments: list[str]) -> None:
    """Follow subcommands down to the last one, and let it read its options."""
    context = click.Context(command, info_name=name, **command.context_settings)
    if isinstance(command, click.Group):
        found, below, rest = command.resolve_command(context, arguments)
        assert below is not None, found
        _parse(below, f"{name} {found}", rest)
    else:
        _, rest, _ = command.make_parser(context).parse_args(list(arguments))
        if name == "edgepack webserver":  # the rest is Dagster's
            _parse(dagster_webserver, "dagster-webserver", rest)
        else:
            assert not rest


def test_the_image_is_made_from_files_that_are_sent_and_runs_as_a_user() -> None:
    sent = [line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    text = (PROJECT / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", text, flags=re.MULTILINE):
        for source in sources.split():
            assert (PROJECT / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in sent), source
    assert re.findall(r"^USER (\S+)$", text, flags=re.MULTILINE)[-1] == "10001:10001"
