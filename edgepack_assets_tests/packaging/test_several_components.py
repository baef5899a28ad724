"""Packages of several components: what the stamp proves of them, how they are built and run, and that the GPU component
runs as the SDK runs it."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from edgepack_assets.errors import ComponentError, PackageError
from edgepack_assets.filesystem.canonical_yaml import dump_yaml, load_yaml
from edgepack_assets.model_types.interface import ComponentSpec, Parameter, PipelineComponent, Results, Variable
from edgepack_assets.packaging.component_runs import check_results
from edgepack_assets.packaging.config_package import build_pipeline_package
from edgepack_assets.packaging.deployment_package import config_package_rows, expected_contents
from edgepack_assets.packaging.gpu_stage import lay_out_gpu_stage
from edgepack_assets.packaging.runner import PackageRunner
from edgepack_assets.packaging.sdk import quiet_import
from edgepack_assets.packaging.stamp import content_digest, contents
from edgepack_assets.sandbox import child_main
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets_tests.model_types.image_classification.onnx_models import build as build_onnx
from edgepack_assets_tests.packaging import tiny
from edgepack_assets_tests.packaging.conftest import Built
from edgepack_assets_tests.packaging.test_deployment_package import COMPONENT, STAMP, packed, unpacked

with quiet_import():
    from simaticai.deployment import GPURuntimeComponent, Pipeline

GPU = "components/gpu_1.zip"
Files = dict[str, bytes]


@pytest.fixture
def package(built: Built, tmp_path: Path) -> Files:
    """The tiny package with a GPU component behind its Python component, listed by the SDK's own functions."""
    outer = unpacked(built.deployment)
    gpu = GPURuntimeComponent(name="gpu")
    gpu.use_model(build_onnx(tmp_path / "model.onnx", last="Softmax"), max_batch_size=1, warmup=True)
    gpu.save(tmp_path)
    folder = tmp_path / "gpu"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert set(files) == {"config.pbtxt", "1/model.onnx"}
    outer[GPU] = packed(tmp_path / "gpu.zip", files)
    pipeline = load_yaml(outer["pipeline_config.yml"])
    pipeline["dataFlowPipeline"]["components"].append(load_yaml(yaml.safe_dump(gpu._to_dict())))
    outer["pipeline_config.yml"] = dump_yaml(pipeline)
    python = load_yaml(outer["pipeline_content.yml"])["components"]["inference"]
    listed = sorted(gpu._collect_file_sizes_and_hashes(folder), key=lambda entry: entry["path"])
    manifest = {"inference": python, "gpu": {"sizeInBytes": len(outer[GPU]), "files": listed}}
    Pipeline(name="any").save_pipeline_manifest(tmp_path, manifest)
    outer["pipeline_content.yml"] = dump_yaml(load_yaml((tmp_path / "pipeline_content.yml").read_bytes()))
    return outer


def read(files: Files, folder: Path) -> dict[str, str]:
    packed(folder / "package.zip", files)
    return contents(folder / "package.zip", STAMP)


def test_the_contents_are_those_of_each_component(built: Built, package: Files, tmp_path: Path) -> None:
    found, alone = read(package, tmp_path), contents(built.deployment, STAMP)
    added = {name for name in found if name not in alone}
    assert added == {f"{GPU}/config.pbtxt", f"{GPU}/1/model.onnx"}
    assert {name for name in alone if found[name] != alone[name]} == {"pipeline_config.yml"}


def _without_the_zip(files: Files) -> None:
    del files[GPU]


def _with_another_model(files: Files) -> None:
    files[GPU] = files[GPU].replace(b"Softmax", b"Sigmoid")


def _content(change: Callable[[dict[str, Any]], None]) -> Callable[[Files], None]:
    def rewrite(files: Files) -> None:
        listed = load_yaml(files["pipeline_content.yml"])
        change(listed["components"])
        files["pipeline_content.yml"] = dump_yaml(listed)

    return rewrite


def _named(change: Callable[[list[Any]], None]) -> Callable[[Files], None]:
    def rewrite(files: Files) -> None:
        pipeline = load_yaml(files["pipeline_config.yml"])
        change(pipeline["dataFlowPipeline"]["components"])
        files["pipeline_config.yml"] = dump_yaml(pipeline)

    return rewrite


@pytest.mark.parametrize(
    ("rewrite", "reason"),
    [
        (_without_the_zip, f"holds no {GPU}"),
        (_with_another_model, "is not a zip file that can be read|lists other files"),
        (_content(lambda listed: listed.pop("gpu")), "lists other files than its components hold"),
        (_content(lambda listed: listed["gpu"].update(requirements=["numpy"])), "lists other files"),
        (_content(lambda listed: listed["inference"].pop("dependencies")), "lists other files"),
        (_named(lambda named: named[1].update(name="other")), "holds no components/other_1.zip"),
        (_named(lambda named: named[1].update(name=named[0]["name"])), "two components of one name: inference, inf"),
        (_named(lambda named: named.clear()), "names no component"),
        (_named(lambda named: named.append("gpu")), "names no component"),
    ],
)
def test_what_is_wrong_with_one_of_several_is_seen(
    package: Files, tmp_path: Path, rewrite: Callable[[Files], None], reason: str
) -> None:
    assert COMPONENT in package
    rewrite(package)
    with pytest.raises(PackageError, match=reason):
        read(package, tmp_path)


# Built and run -----------------------------------------------------------------------------------------

DOUBLES = """
import echo_helper

def process_input(data):
    return None if data["x"] is None else {"y": echo_helper.twice(data["x"])}
"""
ADDS = """
import echo_helper

def update_parameters(parameters):
    global step
    step = parameters["step"]

def process_input(data):
    return None if data["y"] < 10 else {"z": data["y"] + step, "last_y": "{}"}
"""
STEP = Parameter("step", "Double", 0.5, "what is added")
RECORDS = [{"x": None if number % 3 == 1 else float(number)} for number in range(40)]
ANSWERS = {n: 2.0 * n + 0.5 for n in range(40) if n % 3 != 1 and n >= 5}


def pipeline(folder: Path, takes: str = "y") -> tuple[PipelineComponent, ...]:
    specs = (
        ComponentSpec("Doubles", (Variable("x", "Double", "a number"),), (Variable("y", "Double", "twice x"),)),
        ComponentSpec("Adds", (Variable(takes, "Double", "a number"),), (Variable("z", "Double", "the sum"),),
                      (Variable("last_y", "String", "nothing"),), (STEP,)),
    )  # fmt: skip
    made = []
    for name, source, spec in zip(("doubles", "adds"), (DOUBLES, ADDS), specs, strict=True):
        tiny.write_component(folder / name, {"entrypoint.py": source})
        made.append(PipelineComponent(name, folder / name, spec))
    return tuple(made)


@pytest.fixture
def config(built: Built, tmp_path: Path) -> Path:
    return build_pipeline_package(pipeline(tmp_path / "made"), built.lock, tiny.NAME, tiny.DESCRIPTION, tmp_path)


@pytest.fixture
def sandbox(built: Built) -> Iterator[Sandbox]:
    with Sandbox(built.settings) as running:
        yield running


def records_file(path: Path, records: list[Any]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode(), mtime=0))
    return path


def run(package: Path, built: Built, sandbox: Sandbox, folder: Path, **options: Any) -> Any:
    records = records_file(folder / "records", RECORDS)
    with PackageRunner(package, folder, sandbox, built.environment) as runner:
        return runner.run("running it", records, [], count=len(RECORDS), **options)


def test_records_keep_their_numbers_through_all_components(
    built: Built, config: Path, sandbox: Sandbox, tmp_path: Path
) -> None:
    """More records than one part has: the parts are put together."""
    deployment = tiny.build_deployment(config, built.lock, built.store, 7, tmp_path)
    for package in (config, deployment):
        found = run(package, built, sandbox, tmp_path)
        assert {each.record: each.outputs["z"] for each in Results(found.results).answers()} == ANSWERS
        assert check_results("it", found.results, 40, {"z": "Double", "last_y": "String"}).tolist() == list(ANSWERS)
        assert (found.records, found.answered, list(found.answers)) == (40, len(ANSWERS), list(ANSWERS))
        assert len(found.seconds()) == 40
        assert found.latency["sum"] == pytest.approx(sum(each["sum"] for each in found.components.values()))
        assert list(found.components) == ["doubles", "adds"]


def test_it_stops_when_the_last_component_gave_enough_answers(
    built: Built, config: Path, sandbox: Sandbox, tmp_path: Path
) -> None:
    """The first component answers four records before the last one answers any."""
    found = run(config, built, sandbox, tmp_path, until_answers=2)
    assert found.answered >= 2 and found.records < 40
    assert list(found.answers) == list(ANSWERS)[: found.answered]


def test_a_component_that_fails_is_named_with_its_record(
    built: Built, config: Path, sandbox: Sandbox, tmp_path: Path
) -> None:
    with PackageRunner(config, tmp_path, sandbox, built.environment) as runner:
        (runner.components[1].folder / "entrypoint.py").write_text(
            "def process_input(data):\n    return data['y'] / 0\n"
        )
        with pytest.raises(ComponentError, match="running it, component adds failed at record 0: ZeroDivisionError"):
            runner.run("running it", records_file(tmp_path / "records", RECORDS), [])


def test_the_package_holds_what_was_given_of_each_component(built: Built, config: Path, tmp_path: Path) -> None:
    rows = config_package_rows(config, built.lock, ["doubles", "adds"])
    assert all(row.passed for row in rows)
    assert not config_package_rows(config, built.lock)[0].passed, "one component was expected"
    deployment = tiny.build_deployment(config, built.lock, built.store, 7, tmp_path)
    expected = expected_contents(config, built.lock)
    assert contents(deployment, STAMP) == expected
    for name in ("doubles", "adds"):
        for file in ("entrypoint.py", "requirements.lock", "PythonPackages.zip/echo_helper-1.5-py3-none-any.whl"):
            assert f"components/{name}_0.0.1.zip/{file}" in expected
    (tmp_path / "again").mkdir()
    again = build_pipeline_package(
        pipeline(tmp_path / "other"), built.lock, tiny.NAME, tiny.DESCRIPTION, tmp_path / "again"
    )
    assert content_digest(expected_contents(again, built.lock)) == content_digest(expected)


def test_other_wheels_in_the_second_component_are_refused(
    built: Built, config: Path, sandbox: Sandbox, tmp_path: Path
) -> None:
    deployment = tiny.build_deployment(config, built.lock, built.store, 7, tmp_path)
    outer = unpacked(deployment)
    second = unpacked(outer["components/adds_0.0.1.zip"])
    wheels = unpacked(second["PythonPackages.zip"])
    second["PythonPackages.zip"] = packed(tmp_path / "w", {name: data + b"x" for name, data in wheels.items()})
    packed(tmp_path / "odd.zip", {**outer, "components/adds_0.0.1.zip": packed(tmp_path / "c", second)})
    with (
        pytest.raises(PackageError, match=r"adds_0.0.1.zip: its wheels are not those of the environment"),
        PackageRunner(tmp_path / "odd.zip", tmp_path, sandbox, built.environment),
    ):
        pass


def test_a_component_that_gets_nothing_is_refused(built: Built, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="doubles does not give what adds takes: w"):
        build_pipeline_package(pipeline(tmp_path / "made", takes="w"), built.lock, tiny.NAME, "", tmp_path)


def test_a_gpu_component_without_the_server_s_environment_is_not_run(
    built: Built, package: Files, sandbox: Sandbox, tmp_path: Path
) -> None:
    packed(tmp_path / "package.zip", package)
    with PackageRunner(tmp_path / "package.zip", tmp_path, sandbox, built.environment) as runner:
        runner.components.reverse()
        with pytest.raises(PackageError, match="its component gpu is for the server's GPU runtime"):
            runner.run("running it", records_file(tmp_path / "records", RECORDS), [])


# Arrays between components -----------------------------------------------------------------------------


def _line(**changes: Any) -> bytes:
    tensor = {"$tensor": "float32", "shape": [2], "data": "AAAAAAAAgD8="} | changes
    return b'{"record": 0, "outputs": {"y": %b}}\n' % json.dumps(tensor).encode()


def _checked(path: Path, line: bytes) -> list[int]:
    path.write_bytes(gzip.compress(line, mtime=0))
    return check_results("running it", path, 1, {"y": "Float32Array"}, tensors=True).tolist()


def test_an_array_is_taken_between_components_alone(tmp_path: Path) -> None:
    values = np.array([0, 1], np.float32)
    line = child_main.result_line({"y": values}, {"y": "Float32Array"}, 0, tensors=True)
    assert line == _line() and _checked(tmp_path / "results", line) == [0]
    with pytest.raises(child_main.RecordError, match="is declared Float32Array"):
        child_main.result_line({"y": values}, {"y": "Float32Array"}, 0)
    with pytest.raises(child_main.RecordError, match="is declared Float32Array"):
        child_main.result_line({"y": values.astype(np.float64)}, {"y": "Float32Array"}, 0, tensors=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"$tensor": "float64"}, {"$tensor": "object"}, {"$tensor": ["float32"]}, {"shape": [3]}, {"shape": [-1, -2]},
        {"shape": [True, 2]}, {"shape": "2"}, {"shape": [2.0]}, {"data": "AAAA"}, {"data": "no base64!"}, {"data": 3},
        {"$tensor": "uint8", "shape": [8]}, {"more": 1}, {"data": "AAAAAAAAgD8=\n"},
    ],
)  # fmt: skip
def test_a_forged_array_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ComponentError, match=r"^running it left (a false answer|results that cannot be read)"):
        _checked(tmp_path / "results", _line(**changes))


# The GPU component as the SDK runs it ------------------------------------------------------------------


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_{file.stem}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("batch", "most", "images"), [(1, 1, 1), (1, 0, 1), ("n", 4, 3), ("n", 4, 5)])
def test_the_gpu_stage_answers_as_the_sdk_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int | str, most: int, images: int
) -> None:
    joblib = pytest.importorskip("joblib")
    pytest.importorskip("onnxruntime", reason="the server's runtime is not part of this environment")
    with quiet_import():
        from simaticai import model_config_pb2
        from simaticai.testing import run_gpuruntime_component as stock
    monkeypatch.setitem(sys.modules, "model_config_pb2", model_config_pb2)
    component = GPURuntimeComponent(name="gpu")
    component.use_model(build_onnx(tmp_path / "model.onnx", (batch, 3, 6, 4), last="Softmax"), max_batch_size=most)
    component.save(tmp_path)
    folder = tmp_path / "gpu"
    value = np.random.default_rng(1).uniform(0, 1, images * 3 * 6 * 4).astype(np.float32)
    joblib.dump([{"image": value}], tmp_path / "input")
    stock.main(str(folder / "1" / "model.onnx"), folder / "config.pbtxt", tmp_path / "input", tmp_path / "output")
    [theirs] = joblib.load(tmp_path / "output")

    ours = _load(folder / f"{lay_out_gpu_stage(folder)}.py")
    if images > max(most, 1):
        with pytest.raises(ours.UnfitBatch, match="input 'image' has 5 items; max_batch_size of the component is 4"):
            ours.process_input({"image": value})
        return
    found = ours.process_input({"image": value})
    assert found.keys() == theirs.keys() == {"scores"}
    np.testing.assert_array_equal(found["scores"], theirs["scores"])
    assert found["scores"].shape == (images, 3)
