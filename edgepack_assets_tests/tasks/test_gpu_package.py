"""A classifier on the server's GPU runtime, from the registered .onnx file to the registered package of three
components, with the real libraries in environments of their own."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.loader import load_settings
from edgepack_assets.errors import EdgepackError, EnvironmentBuildError
from edgepack_assets.model_types.interface import Results, read_lines
from edgepack_assets.operations.lock_usage import lock_uses
from edgepack_assets.packaging.contract import read_contract
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.config_package import ConfigPackageReport, make_config_package
from edgepack_assets.tasks.context import SERVER_LOCK, TaskContext
from edgepack_assets.tasks.deployment_package import DeploymentReport, Validated, deploy
from edgepack_assets.tasks.metrics import make_metrics
from edgepack_assets.tasks.packages.download import registered_zip
from edgepack_assets.tasks.payload_data import make_payload
from edgepack_assets.tasks.predecessor.answers import answers_to
from edgepack_assets.tasks.predecessor.find import find_predecessor
from edgepack_assets.tasks.prepped_data import prepare_data
from edgepack_assets.tasks.validation_results import ValidationReport, validate
from edgepack_assets_tests.environments.installed import installed_wheel
from edgepack_assets_tests.environments.wheels import Index
from edgepack_assets_tests.model_types.image_classification.onnx_models import build
from edgepack_assets_tests.packaging.stock import stock_runner
from edgepack_assets_tests.tasks.plant import PackagingHere

onnxruntime = pytest.importorskip("onnxruntime", reason="the server's runtime is not part of this environment")

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}
NAMES = ["preprocessing", "inference", "postprocessing"]


@dataclass
class Made:
    """What a chain of tasks gave."""

    payload: Artefact
    config: Artefact
    packaging: ConfigPackageReport
    results: Artefact
    validation: ValidationReport
    answers: list[tuple[int, str, float]]
    package: Path

    def component(self, name: str) -> dict[str, bytes]:
        """The files of a component of the config package."""
        with zipfile.ZipFile(self.package) as archive:
            top = f"{archive.namelist()[0]}{name}/"
            return {each.removeprefix(top): archive.read(each) for each in archive.namelist() if each.startswith(top)}


class GpuPlant:
    """A plant with photos of three colours; its environments are built of what is installed here."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder, self.index = folder, index
        self.store = ArtefactStore(str(folder / "artefacts"), folder / "cache")
        self.registry = LocalRegistry(folder / "registry")
        photos = folder / "photos"
        for name, colour in COLOURS.items():
            (photos / name).mkdir(parents=True)
            for number, size in enumerate(((37, 21), (8, 8), (40, 90))):
                Image.new("RGB", size, colour).save(photos / name / f"{number}.png")
        tags = {name: str(label) for label, name in enumerate(COLOURS)}
        self.registry.register(Kind.DATA, "photos", photos, tags)
        self._models = 0

    def context(self, sandbox: Sandbox | None = None, **entry: Any) -> TaskContext:
        file = self.folder / "edgepack.yaml"
        settings = {
            "registry": {"path": "registry"}, "artefacts": {"root": str(self.folder / "artefacts")},
            "runtime": {"environments": str(self.folder / "environments"), "index_url": self.index.url,
                        "time_limit": 120},
            "model_types": {"colours": {
                "implementation": "image_classification", "model_name": "colours", "package_name": "Colours",
                "raw_data": {"name": "photos"}, "requirements": [f"onnxruntime=={onnxruntime.__version__}"],
                "gates": {"accuracy_validation": {"min": 1.0}}, **entry,
            }},
        }  # fmt: skip
        file.write_text(yaml.safe_dump(settings))
        loaded = load_settings(file)
        sandbox = sandbox or Sandbox(loaded.runtime)
        return TaskContext(loaded, self.registry, self.store, sandbox, PackagingHere(), logging.getLogger(__name__))

    def register(self, model: Path, name: str = "colours") -> ModelKey:
        return ModelKey("colours", self.registry.register(Kind.MODEL, name, model, {}).number)

    def make(self, key: ModelKey, context: TaskContext) -> Made:
        with context.sandbox:
            payload, _ = make_payload(key, context)
            config, packaging = make_config_package(key, context)
            results, validation = validate(key, payload, config, context)
        read = Results(context.store.fetch(results.parts["results"])).answers()
        answers = [
            (each.record, str(each.outputs["prediction"]), json.loads(each.outputs["ic_probability"])["value"])
            for each in read
        ]
        package = context.store.fetch(config.parts["package"])
        return Made(payload, config, packaging, results, validation, answers, package)

    def deploy(self, key: ModelKey, made: Made, context: TaskContext) -> DeploymentReport:
        with context.sandbox:
            prepped, _ = prepare_data(key, made.payload, made.config, context)
            metrics, _ = make_metrics(key, made.payload, prepped, made.results, context)
            validated = Validated(made.config, made.payload, made.results, metrics)
            for artefact in (*vars(validated).values(), prepped):
                context.store.save(artefact)
            artefact, report = deploy(key, validated, {}, "", context)
            context.store.save(artefact)
        return report


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpuPlant]:
    folder = tmp_path_factory.mktemp("gpu")
    with Index() as index, pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_CACHE_DIR", str(folder / "uv-cache"))
        patch.setenv("NO_PROXY", "127.0.0.1")
        for name, requires in {
            "numpy": (), "pillow": (), "protobuf": (), "onnxruntime": ("numpy", "protobuf", "flatbuffers", "packaging"),
            "flatbuffers": (), "packaging": (), "opencv-python-headless": ("numpy",),
        }.items():  # fmt: skip
            index.add(installed_wheel(name, requires))
        yield GpuPlant(folder, index)


def test_a_package_of_three_components_answers_as_one_of_one(plant: GpuPlant, tmp_path: Path) -> None:
    key = plant.register(build(tmp_path / "colours.onnx", (1, 3, 12, 16), weights=np.eye(3) * 8, last="Softmax"))
    gpu = {"warmup": True, "tensorrt": {"precision_mode": "FP16", "max_cached_engines": 2}}
    alone = plant.make(key, plant.context())
    context = plant.context(runtime="gpu", gpu=gpu)
    made = plant.make(key, context)

    assert made.answers == alone.answers and len(made.answers) == 9
    failed = [row.name for row in (*made.packaging.rows, *made.validation.rows) if not row.passed]
    assert failed == ["how images enter the model is known", "the answers are those of the GPU"]
    assert [row["component"] for row in made.validation.components] == NAMES
    total = made.validation.latency["sum"]
    kept = context.store.read_json(made.results.observations["latency"])["components"]
    assert total == pytest.approx(sum(kept[name]["sum"] for name in NAMES))
    contract, before = read_contract(made.package), read_contract(alone.package)
    assert list(contract.components) == NAMES
    assert contract.components["inference"].startswith("gpuruntime")
    assert (contract.inputs, contract.outputs, contract.metrics) == (before.inputs, before.outputs, before.metrics)

    assert set(made.component("inference")) == {"config.pbtxt", "1/model.onnx"}
    settings = made.component("inference")["config.pbtxt"].decode()
    for words in ("dims: [1, 3, 12, 16]", "zero_data: true", 'key: "precision_mode" value: "FP16"',
                  'key: "max_cached_engines" value: "2"'):  # fmt: skip
        assert words in settings
    shipped = {package.name for package in context.lock_of(made.config).packages}
    assert shipped == {"numpy", "pillow"}, "the server brings its own onnxruntime"
    server = {package["name"] for package in context.store.read_json(made.config.parts[SERVER_LOCK])["packages"]}
    assert {"onnxruntime", "protobuf"} <= server

    report = plant.deploy(key, made, plant.context(runtime="gpu", gpu=gpu))
    assert report.rows and all(row.passed for row in report.rows)
    again = plant.make(key, plant.context(runtime="gpu", gpu=gpu))
    assert again.config.digest == made.config.digest
    assert plant.deploy(key, again, plant.context(runtime="gpu", gpu=gpu)).was_registered_before
    locks = {context.lock_of(made.config).key, context.store.read_json(made.config.parts[SERVER_LOCK])["key"]}
    for who in (str(key), str(report.registered)):
        uses = lock_uses(context.store, plant.registry, context.settings.runtime.environments)
        assert {use.key for use in uses if use.who == who} >= locks, "garbage collection keeps both locks"


def test_a_later_version_has_a_delta_and_is_compared(plant: GpuPlant, tmp_path: Path) -> None:
    """The package before is run again, on raw data that it has not seen."""
    entry = {"runtime": "gpu", "package_name": "Later", "model_name": "later"}
    first, second = (
        plant.register(model, "later")
        for model in (
            build(tmp_path / "a.onnx", (1, 3, 8, 8), weights=np.eye(3) * sharp, last="Softmax") for sharp in (4, 6)
        )
    )
    plant.deploy(first, plant.make(first, plant.context(**entry)), plant.context(**entry))
    photos = tmp_path / "photos"
    for name, colour in COLOURS.items():
        (photos / name).mkdir(parents=True)
        Image.new("RGB", (9, 9), colour).save(photos / name / "new.png")
    tags = {name: str(label) for label, name in enumerate(COLOURS)}
    plant.registry.register(Kind.DATA, "new_photos", photos, tags)
    entry |= {"raw_data": {"name": "new_photos"}, "delta": True}
    made = plant.make(second, plant.context(**entry))
    context = plant.context(**entry)
    before = find_predecessor(second, context)
    assert before is not None
    with context.sandbox, answers_to(made.payload, before, second, context) as results:
        found = {each.record: str(each.outputs["prediction"]) for each in results.answers()}
    assert found == {record: answer for record, answer, _ in made.answers}
    report = plant.deploy(second, made, plant.context(**entry))
    assert all(row.passed for row in report.rows)
    assert report.delta is not None and report.delta.registered is not None, "the wheels need not be sent again"


@pytest.mark.e2e
def test_the_sdk_s_own_runner_gives_the_same(plant: GpuPlant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets what it pins for its GPU stage from the index that this machine uses."""
    key = plant.register(build(tmp_path / "colours.onnx", ("n", 3, 12, 16), weights=np.eye(3) * 8, last="Softmax"))
    entry = {"runtime": "gpu", "gpu": {"max_batch_size": 2}, "package_name": "Stock"}
    made = plant.make(key, plant.context(**entry))
    report = plant.deploy(key, made, plant.context(**entry))
    package = tmp_path / "stock.zip"
    package.write_bytes(registered_zip(report.registered, tmp_path, plant.registry).read_bytes())
    records = [*read_lines(plant.store.fetch(made.payload.parts["records"]))]
    with stock_runner(package, tmp_path / "stock", monkeypatch) as stock:
        theirs = stock.run_pipeline(records)
    assert [
        (number, answer["prediction"], json.loads(answer["ic_probability"])["value"])
        for number, answer in enumerate(theirs)
    ] == made.answers


def _open_float16(folder: Path) -> Path:
    """An export with an open batch and size, two outputs, and its weights in another file."""
    sharp = numpy_helper.from_array((np.eye(3) * 8).astype(np.float16), "sharp")
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "sharp"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n", 3]) for name in ("features", "logits")]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT16, ["n", 3, "h", "w"])
    made = helper.make_model(
        helper.make_graph(nodes, "g", [image], outputs, [sharp]),
        opset_imports=[helper.make_opsetid("", 13)], ir_version=8,
    )  # fmt: skip
    onnx.external_data_helper.convert_model_to_external_data(made, location="weights.bin", size_threshold=0)
    folder.mkdir()
    onnx.save(made, folder / "model.onnx")
    return folder


def test_an_open_float16_export_with_image_sets_in_batches(plant: GpuPlant, tmp_path: Path) -> None:
    """Several images of a part are one record, and one batch. The same model without the GPU runtime needs options of
    an .onnx file beside image sets."""
    parts = tmp_path / "parts"
    for name, colour in COLOURS.items():
        (parts / name / "part").mkdir(parents=True)
        for number, shade in enumerate((0.7, 1.0)):
            pixels = tuple(round(shade * level) for level in colour)
            Image.new("RGB", (20, 14), pixels).save(parts / name / "part" / f"{number}.png")
        Image.new("RGB", (20, 14), colour).save(parts / name / "single.png")
    tags = {name: str(label) for label, name in enumerate(COLOURS)}
    plant.registry.register(Kind.DATA, "parts", parts, tags)
    key = plant.register(_open_float16(tmp_path / "export"), "parts")
    entry = {
        "model_name": "parts", "package_name": "Parts", "raw_data": {"name": "parts"}, "payload": "image_set",
        "output": {"name": "logits"},
        "input": {"range": [0, 1], "size": [12, 16]},
    }  # fmt: skip
    alone = plant.make(key, plant.context(**entry))
    assert {"onnx_options.py", "image_set_decoding.py", "imageset.py"} <= set(alone.component("inference"))
    assert len(alone.answers) == 6

    made = plant.make(key, plant.context(**entry, runtime="gpu", gpu={"max_batch_size": 2}))
    assert [answer[:2] for answer in made.answers] == [answer[:2] for answer in alone.answers]
    for (_, _, ours), (_, _, theirs) in zip(made.answers, alone.answers, strict=True):
        assert ours == pytest.approx(theirs, rel=5e-3)
    settings = made.component("inference")["config.pbtxt"].decode()
    assert "max_batch_size: 2" in settings and "dims: [3, 12, 16]" in settings and "dims: [3]" in settings
    report = plant.deploy(key, made, plant.context(**entry, runtime="gpu", gpu={"max_batch_size": 2}))
    assert all(row.passed for row in report.rows)

    single = plant.make(key, plant.context(**entry, runtime="gpu"))
    assert len(single.answers) == 3, "a record of two images has no answer where one image is the most"


def test_the_usual_inputs_are_tried_with_the_model_of_the_gpu_component(plant: GpuPlant, tmp_path: Path) -> None:
    """It was trained on BGR, and that is not configured."""
    key = plant.register(build(tmp_path / "bgr.onnx", (1, 3, 12, 16), weights=np.eye(3)[::-1] * 8, last="Softmax"))
    made = plant.make(key, plant.context(runtime="gpu"))
    [row] = [row for row in made.validation.rows if row.name.startswith("no other usual image input")]
    assert (
        "0.333 are right as packaged; best of 15 others: 1.000 with input: {range: [0, 1], channel_order: bgr"
        in row.found
    )


def test_no_onnxruntime_for_the_plant_s_python_is_said(plant: GpuPlant, tmp_path: Path) -> None:
    key = plant.register(build(tmp_path / "colours.onnx", (1, 3, 8, 8)))
    context = plant.context(runtime="gpu", requirements=["onnxruntime==0.9"])
    with pytest.raises(
        EnvironmentBuildError, match=r"what stands for the server's GPU runtime cannot be locked.*onnxr"
    ):
        plant.make(key, context)


@pytest.mark.parametrize(
    ("shape", "entry", "told"),
    [
        ((3, 3, 8, 8), {}, "it takes 3 images at a time; export it with batch size 1"),
        ((1, 3, 8, 8), {"gpu": {"max_batch_size": 4}}, "is 1x3x8x8, one image at a time: set gpu.max_batch_size to 1"),
        ((1, 5, 8, 8), {}, "neither the second nor the last number is 1"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    plant: GpuPlant, tmp_path: Path, shape: tuple[int, ...], entry: dict[str, Any], told: str
) -> None:
    key = plant.register(build(tmp_path / "colours.onnx", shape))
    with pytest.raises(EdgepackError, match=told):
        plant.make(key, plant.context(runtime="gpu", **entry))
