"""Running a package: what our runner gives is what the SDK's own gives, and nothing of the package is trusted."""

from __future__ import annotations

import gzip
import io
import json
import logging
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.errors import ComponentError, EdgepackError, PackageError
from edgepack_assets.filesystem.reproducible_zip import write_zip
from edgepack_assets.packaging.config_package import build_config_package
from edgepack_assets.packaging.runner import PackageRun, PackageRunner
from edgepack_assets.sandbox.sandbox import Sandbox, TaskFailedError
from edgepack_assets_tests.crashes import full_disk
from edgepack_assets_tests.environments.wheels import Index
from edgepack_assets_tests.packaging import tiny
from edgepack_assets_tests.packaging.conftest import HELPER, Built
from edgepack_assets_tests.packaging.stock import stock_runner

EXPECTED = [
    {"y": 10.0, "text": "échange", "seen": 1, "input_last": '{"value": 1.0}'},
    None,
    None,
    {"y": -30.0, "text": "échange", "seen": 4, "input_last": '{"value": -3.0}'},
    {"y": 40.0, "text": "échange", "seen": 5, "input_last": '{"value": 4.0}'},
    None,
    {"y": 1e301, "text": "échange", "seen": 7, "input_last": '{"value": 1e+300}'},
]


@pytest.fixture
def sandbox(built: Built) -> Iterator[Sandbox]:
    with Sandbox(built.settings) as running:
        yield running


def write_records(path: Path, records: Sequence[object] = tiny.RECORDS) -> Path:
    with gzip.open(path, "wt") as stream:
        stream.writelines(json.dumps(record) + "\n" for record in records)
    return path


def answers(run: PackageRun) -> list[Any]:
    with gzip.open(run.results, "rt") as stream:
        entries = [json.loads(line) for line in stream]
    assert [entry["record"] for entry in entries] == list(range(len(entries)))
    return [entry["outputs"] for entry in entries]


@pytest.mark.parametrize("kind", ["config", "deployment"])
def test_each_record_has_its_answer_or_none(built: Built, sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    package, records = getattr(built, kind), write_records(tmp_path / "records")
    before = package.read_bytes(), sorted(path.name for path in package.parent.iterdir())
    handlers = list(logging.getLogger("simaticai.testing.pipeline_runner").handlers)
    with PackageRunner(package, tmp_path, sandbox, built.environment) as runner:
        run = runner.run("running it", records, ["json"])
        part = runner.run("running it", records, ["json"], until_answers=2)
        assert (runner.component_folder / "data" / "text.txt").read_text(encoding="utf-8") == "échange"
    assert answers(run) == EXPECTED
    assert (run.records, run.answered) == (7, 4)
    assert run.times.stat().st_size == 7 * 8
    assert answers(part) == EXPECTED[:4]
    assert (part.records, part.answered) == (4, 2)
    # The SDK's runner would have written telemetry into the package, or a tested copy beside it.
    assert before == (package.read_bytes(), sorted(path.name for path in package.parent.iterdir()))
    assert logging.getLogger("simaticai.testing.pipeline_runner").handlers == handlers


def test_zips_inside_a_package_are_left_alone(built: Built, sandbox: Sandbox, tmp_path: Path) -> None:
    """The SDK opens every one of them, into memory, for a report: one that is none would stop it."""
    component = tiny.write_component(tmp_path / "component", {**tiny.FILES, "data/weights.zip": "no zip"})
    package = build_config_package(component, tiny.SPEC, built.lock, tiny.NAME, "", tmp_path)
    with PackageRunner(package, tmp_path, sandbox, built.environment) as runner:
        assert (runner.component_folder / "data" / "weights.zip").read_text() == "no zip"


def test_two_runners_in_one_folder_don_t_mix(built: Built, sandbox: Sandbox, tmp_path: Path) -> None:
    with (
        PackageRunner(built.config, tmp_path, sandbox, built.environment) as first,
        PackageRunner(built.config, tmp_path, sandbox, built.environment) as second,
    ):
        assert first.component_folder != second.component_folder
        one = first.run("one", write_records(tmp_path / "one"), [])
        other = second.run("other", write_records(tmp_path / "other", [{"x": 9.0}]), [])
    assert len(answers(one)) == 7
    assert len(answers(other)) == 1


def test_a_failure_names_the_record(built: Built, sandbox: Sandbox, tmp_path: Path) -> None:
    records = write_records(tmp_path / "records", [{"x": 1.0}, {"x": "one"}])
    with (
        PackageRunner(built.config, tmp_path, sandbox, built.environment) as runner,
        pytest.raises(TaskFailedError, match=r"^validating it failed at record 1: input 'x' is declared Double, but"),
    ):
        runner.run("validating it", records, [])


# Packages that are none --------------------------------------------------------------------------------


def absolute(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("top/", b"")
        archive.writestr("/etc/x", b"")
    return path


def hostile_component(path: Path) -> Path:
    with zipfile.ZipFile(path.with_suffix(".inner"), "w") as archive:
        archive.writestr("../../x", b"")
    config = b"dataFlowPipeline: {components: [{name: a, version: 1}]}"
    files = {"runtime_config.yml": b"", "pipeline_config.yml": config, "components/a_1.zip": path.with_suffix(".inner")}
    write_zip(path, files)
    return path


def no_zip(path: Path) -> Path:
    path.write_bytes(b"PK nonsense")
    return path


def broken(path: Path, files: dict[str, bytes]) -> Path:
    write_zip(path, files)
    return path


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (absolute, "the entry '/etc/x' would be extracted outside its folder"),
        (hostile_component, "odd.zip/components/a_1.zip: the entry '../../x' would be extracted outside its folder"),
        (lambda path: broken(path, {}), "is not a pipeline package"),
        (lambda path: broken(path, {"a/": b"", "a/b": b""}), "is not a pipeline package: .*pipeline_config.yml"),
        (lambda path: broken(path, {"runtime_config.yml": b""}), "is not a pipeline package: .*pipeline_config.yml"),
        (no_zip, "odd.zip: is not a zip file"),
    ],
)
def test_what_is_no_package_is_refused(built: Built, sandbox: Sandbox, tmp_path: Path, make: Any, told: str) -> None:
    package = make(tmp_path / "odd.zip")
    with pytest.raises(PackageError, match=told), PackageRunner(package, tmp_path, sandbox, built.environment):
        pass


@pytest.mark.parametrize("change", ["another", "one more", "one less", "none"])
def test_wheels_that_are_not_the_environment_s_are_refused(
    built: Built, sandbox: Sandbox, tmp_path: Path, change: str
) -> None:
    """Else the run would prove what the environment does, and not what the package ships."""

    def read(file: Any) -> dict[str, bytes]:
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    outer = read(built.deployment)
    (inside,) = (name for name in outer if name.startswith("components/"))
    component = read(io.BytesIO(outer[inside]))
    wheels = read(io.BytesIO(component.pop("PythonPackages.zip")))
    wheel = min(wheels)
    if change == "one less":
        del wheels[wheel]
    else:
        wheels[wheel if change == "another" else f"z{wheel}"] = wheels[wheel] + b"x"
    write_zip(tmp_path / "PythonPackages.zip", wheels)
    added = {} if change == "none" else {"PythonPackages.zip": tmp_path / "PythonPackages.zip"}
    write_zip(tmp_path / "component.zip", {**component, **added})
    write_zip(tmp_path / "changed.zip", {**outer, inside: tmp_path / "component.zip"})
    with (
        pytest.raises(PackageError, match=r"changed.zip/.*: its wheels are not those of the environment .*: .*\.whl"),
        PackageRunner(tmp_path / "changed.zip", tmp_path, sandbox, built.environment),
    ):
        pass


def test_a_full_disk_is_told(built: Built, sandbox: Sandbox, tmp_path: Path) -> None:
    with (
        full_disk(100),
        pytest.raises(EdgepackError, match="cannot be written: File too large"),
        PackageRunner(built.deployment, tmp_path, sandbox, built.environment),
    ):
        pass


# Results that are forged -------------------------------------------------------------------------------

FORGERY = """
import gzip, json, os
job = json.load(open(os.path.join(os.path.dirname(os.environ['HOME']), 'job.json')))
job |= job['paths']

def told(value):
    open(job['result'], 'w').write(json.dumps({'value': value}))
    os._exit(0)

def results(data):
    open(job['results'], 'wb').write(data)

def times(count):
    open(job['times'], 'wb').truncate(count * 8)

def made():
    results(gzip.compress(LINE))
    times(1)

LINE = b'{"record": 0, "outputs": null}\\n'
GOOD = {'records': 1, 'answered': 0, 'latency': {'p50': 0.0, 'p95': 0.0, 'max': 0.0, 'sum': 0.0}}

def lines(*found):
    results(gzip.compress(b''.join(line + b'\\n' for line in found)))
    times(1)
    told({**GOOD, 'answered': 1})

def answer(record='0', y='1.0', text='"a"', seen='1', last='"b"'):
    outputs = f'{{"y": {y}, "text": {text}, "seen": {seen}, "input_last": {last}}}'
    return f'{{"record": {record}, "outputs": {outputs}}}'.encode()
"""


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("made(); told([1])", "returned something else than it should"),
        ("made(); told({**GOOD, 'records': '1'})", "returned something else than it should: records"),
        ("made(); told({**GOOD, 'answered': -1})", "returned something else than it should: answered"),
        ("made(); told({**GOOD, 'answered': 1})", "reported other records and answers than it left"),
        ("made(); told({**GOOD, 'latency': {}})", "returned something else than it should: latency.p50"),
        (
            "made(); open(job['result'], 'w').write(json.dumps({'value': GOOD}).replace('0.0', '1e999')); os._exit(0)",
            "returned something else than it should: latency.p50",
        ),
        ("lines(answer(record='1'))", "line 0 is no answer to record 0"),
        ("lines(answer(seen='1.0'))", "left a false answer to record 0: output 'seen' is declared Integer"),
        ("lines(answer(seen=str(1 << 64)))", "left a false answer to record 0: output 'seen' is declared Integer"),
        ("lines(answer(seen='1' * 5000))", "left results that cannot be read: Exceeds the limit"),
        ("lines(answer(y='1e999'))", "left a false answer to record 0: output 'y' is inf"),
        ("lines(answer(y='1' + '0' * 400))", "left a false answer to record 0: output 'y' is declared Double"),
        ("lines(answer(text=r'\"\\ud800\"'))", "left a false answer to record 0: .*surrogates not allowed"),
        ("lines(answer(text='[' * 100_000))", "left results that cannot be read"),
        ("lines(answer(text='1, \"z\": 2'))", "left a false answer to record 0: .*undeclared z"),
        ('lines(answer(text=\'1, "text": "b"\'))', "line 0 is no answer to record 0"),
        ("lines(b'[]')", "left results that cannot be read"),
        ('lines(b\'{"record": 0, "outputs": null }\')', "left a false answer to record 0"),
        ("lines(answer(), answer(record='1'))", "not one line for each of 1 records"),
        ("times(1); told(GOOD)", "results.jsonl.gz cannot be read: No such file"),
        ("results(gzip.compress(LINE)); told(GOOD)", "times.f64 cannot be read: No such file"),
        ("os.symlink('/etc/hostname', job['results']); told(GOOD)", "results.jsonl.gz cannot be read"),
        ("os.mkfifo(job['results']); told(GOOD)", "results.jsonl.gz is not a file of its own"),
        ("results(b'plain'); times(1); told(GOOD)", "left results that cannot be read: Not a gzipped file"),
        (
            "results(gzip.compress(LINE)[:-9]); times(1); told(GOOD)",
            "left results that cannot be read: Compressed file ended",
        ),
        ("results(gzip.compress(LINE * 2)); times(1); told(GOOD)", "not one line for each of 1 records"),
        ("results(gzip.compress(LINE + LINE[:-1])); times(1); told(GOOD)", "not one line for each of 1 records"),
        ("results(gzip.compress(LINE[:-1])); times(1); told(GOOD)", "left a false answer to record 0"),
        (
            "results(gzip.compress(LINE)); open(job['times'], 'wb').write(b'\\xff' * 8); told(GOOD)",
            "left times of records that are no times",
        ),
        ("results(gzip.compress(LINE)); times(0); told(GOOD)", "reported other records and answers than it left"),
        ("results(gzip.compress(b'')); times(1); told(GOOD)", "not one line for each of 1 records"),
        ("results(gzip.compress(b' ' * (17 << 20))); times(1); told(GOOD)", "left results that cannot be read"),
        ("results(gzip.compress(LINE)); times(2); told(GOOD)", "times.f64 has 16 bytes; at most 8 are read"),
        (
            "results(gzip.compress(LINE * 2)); times(2); told({**GOOD, 'records': 2})",
            "reported 2 records; the payload has 1",
        ),
        ("results(gzip.compress(LINE) + bytes(1 << 20)); times(1); told(GOOD)", "larger than what it holds"),
        ("results(gzip.compress(LINE) + gzip.compress(b'') * 9999); times(1); told(GOOD)", "larger than what it holds"),
        ("results(gzip.compress(LINE)); os.mkfifo(job['times']); told(GOOD)", "times.f64 is not a file of its own"),
    ],
)
def test_forged_results_are_refused(built: Built, sandbox: Sandbox, tmp_path: Path, body: str, told: str) -> None:
    records = write_records(tmp_path / "records", [{"x": 1.0}])
    with PackageRunner(built.config, tmp_path, sandbox, built.environment) as runner:
        source = f"{FORGERY}\n{body}\n"  # on import, before the child writes anything
        (runner.component_folder / "entrypoint.py").write_text(source)
        with pytest.raises(ComponentError, match=f"^running it.*{told}"):
            runner.run("running it", records, [], count=1)


# Parity ------------------------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["config", "deployment"])
def test_the_sdk_s_own_runner_gives_the_same(
    built: Built, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It gets pip and joblib from the index that this machine uses; only what the package lacks from ours."""
    package = tmp_path / getattr(built, kind).name
    package.write_bytes(getattr(built, kind).read_bytes())
    records = write_records(tmp_path / "records")
    with PackageRunner(package, tmp_path, sandbox, built.environment) as ours:
        ours.parameters["factor"] = 3
        mine = answers(ours.run("running it", records, []))
    assert mine != EXPECTED
    with Index() as index:
        if kind == "config":  # it names its wheels and does not hold them
            index.add(HELPER)
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index.url)
        with stock_runner(package, tmp_path / "stock", monkeypatch) as stock:
            stock.update_parameters({"factor": 3})
            theirs = stock.run_pipeline(tiny.RECORDS)
    assert theirs == [outputs for outputs in mine if outputs is not None]
