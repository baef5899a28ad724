"""Packages of several components, one of which is no Python component: what the stamp proves of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgepack_assets.errors import PackageError
from edgepack_assets.filesystem.canonical_yaml import dump_yaml, load_yaml
from edgepack_assets.packaging.sdk import quiet_import
from edgepack_assets.packaging.stamp import contents
from edgepack_assets_tests.model_types.image_classification.onnx_models import build as build_onnx
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
