"""The JSON schema of edgepack.yaml against the loader: what is valid is accepted, what an editor can know is marked."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from edgepack_assets.config.json_schema import config_schema
from edgepack_assets.config.loader import load_settings
from edgepack_assets_tests.config.schema_keys import PLACEHOLDERS, is_a_value, keys

SCHEMA = config_schema()
VALIDATOR = Draft7Validator(SCHEMA)

COMPLETE = """
lines: [line-1, line-2]
registry:
  type: azure_ml
  subscription_id: 0b1f
  resource_group: group
  workspace_name: workspace
  time_limit: 30
  credential:
    type: service_principal
    tenant_id: tenant
    client_id: client
    certificate_path: secrets.pem
    certificate_password_variable: CERTIFICATE_PASSWORD
artefacts: {root: abfs://box/here, cache: cache}
runtime:
  environments: environments
  pythons: {3.11: python}
  index_url: https://mirror.example/simple
  extra_index_urls: [https://other.example/simple]
  time_limit: 12.5
  memory_limit: 4
  disk_limit: 4
  isolation: required
  readable_folders: [code]
run:
  environment: prod
  build_reference: "0012"
  experiment_name: e
  display_name: d
  output_folders: [outputs]
compute: &compute
  type: azure_ml
  subscription_id: 0b1f
  resource_group: group
  workspace_name: workspace
  cluster_name: edgepack
  cluster_size: Standard_DS3_v2
  cluster_region: westeurope
  min_instances: 0
  max_instances: 2
  idle_time_before_scale_down: 15
  low_priority: true
  identity:
    client_id: "1"
    resource_id: /subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u
  environment_name: edgepack
  environment_image: mcr.microsoft.com/azureml/base:1
  conda_path: conda.yml
  env_description: d
  docker_args: [--cap-add=SYS_ADMIN]
  experiment_name: e
  display_name: d
  build_reference: "0012"
  deploy_environment: prod
  wait_for_completion: false
  output_file: job.txt
  start_time_limit: 1800
  time_limit: 7200
sensors:
  interval: 60
  sweep_interval: 600
  start: all
  own_up_to: 5
  batch: 5
  attempts: 2
  failure_after: 0
  webhook: https://chat.example/hook
  ui_url: http://localhost:3000
model_types:
  press:
    implementation: state_identifier
    model_name: press
    package_name: Press
    raw_data: {name: press_raw, version: 2024-06-01}
    description: text
    code_paths: [code]
    requirements: [numpy]
    requirements_file: requirements.txt
    replace_requirements: {"-e .": null, plant: plant==1}
    saved_versions: block
    python_version: 3.12
    columns: {L1: ph1, L2: ph2, L3: ph3}
    state_names: {0: idle, 1: running}
    keep_mlflow: true
    delta: true
    sensor: true
    run_whole_payload: yes
    gates:
      silhouette: {min: 0.2, max: 1, reference: previous, tolerance: 5%, confidence: 95%, too_few: warn}
      inertia: {reference: 3, tolerance: 100}
      accuracy:
        reference: previous
        confidence: 90%
        worst: {hour: {min: 0.1, max: 1, tolerance: 5%, too_few: warn}}
    revalidate: true
    intervals: true
    envelope: true
    fault_probes: warn
    numbering: fail
    numbering_agreement: 0.8
    approval: {default: auto, prod: required}
    compute: *compute
  pump:
    implementation: state_identifier
    model_name: pump
    package_name: Pump
    raw_data: {name: pump}
    channels: [vibration, current]
    sampling_period_ms: 100
    timestamp_column: time
    label_column: state
    windows: {seconds: 1.5, step_seconds: 0.5}
  valve:
    implementation: state_identifier
    model_name: valve
    package_name: Valve
    raw_data: {name: valve}
    channels: [pressure]
    windows: {records: 15, step_records: 5}
  ordered:
    implementation: state_identifier
    model_name: ordered
    package_name: Ordered
    raw_data: {name: raw, version: 1.0}
    columns: [ph3, ph2, ph1]
    approval: required
  images:
    implementation: image_classification
    model_name: images
    package_name: Images
    raw_data: {name: images, version: 3}
    input:
      mean: [0.4, 0.5, 0.6]
      std: 1
      channel_order: rgb
      resize: crop
      shorter_side: 256
      interpolation: bilinear
      size: [224, 224]
    output:
      name: logits
      scores: logits
      classes: 12
    runtime: gpu
    gpu:
      max_batch_size: 4
      warmup: true
      tensorrt:
        precision_mode: FP16
        max_cached_engines: 2
        minimum_segment_size: 3
        max_workspace_size_bytes: 1073741824
        trt_engine_cache_enable: true
        trt_engine_cache_path: /tmp/triton
  letters:
    implementation: image_classification
    model_name: letters
    package_name: Letters
    raw_data: {name: letters}
    payload: image_set
    image_format: BayerRG8
    input: {range: [-1, 1], resize: letterbox, fill: 114}
    conversion:
      to: full_integer
      tolerance: 0.1
      max_changed: 0.05
      representative_records: 50
      signature: serve
      allow_lambda: true
  preset:
    implementation: image_classification
    model_name: preset
    package_name: Preset
    raw_data: {name: preset, version: latest}
    input: imagenet
    conversion: float16
"""
ELSEWHERE = {
    "registry.path": {"registry": {"path": "folder"}},
    "registry.registry_name": {"registry": {"type": "azure_ml", "registry_name": "r"}},
    "registry.credential.client_secret_variable": {
        "registry": {"type": "azure_ml", "registry_name": "r", "credential": {"client_secret_variable": "SECRET"}}
    },
    "registry.credential.token_file_path": {
        "registry": {"type": "azure_ml", "registry_name": "r", "credential": {"token_file_path": "token"}}
    },
    "model_types.<name>.input.crop_fraction": {},
}
"""Keys that do not go with those above."""


class EditorLoader(yaml.SafeLoader):
    """YAML as an editor reads it: a date is text."""


EditorLoader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: node.value)


def as_an_editor_reads_it(text: str) -> Any:
    def with_text_keys(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): with_text_keys(item) for key, item in value.items()}
        return [with_text_keys(item) for item in value] if isinstance(value, list) else value

    return with_text_keys(yaml.load(text, Loader=EditorLoader))  # noqa: S506 - a SafeLoader


def places(value: Any, loc: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where single values are."""
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*loc, key))
    else:
        yield loc


def with_value(document: Any, loc: tuple[str | int, ...], value: object) -> Any:
    document = copy.deepcopy(document)
    inner = document
    for step in loc[:-1]:
        inner = inner[step]
    inner[loc[-1]] = value
    return document


DOCUMENT = as_an_editor_reads_it(COMPLETE)
PLACES = sorted(places(DOCUMENT), key=str)


def test_it_is_a_schema_of_draft_7_without_references() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert "$ref" not in str(SCHEMA)
    assert SCHEMA["title"] == "edgepack.yaml"


def test_every_key_has_a_title_and_a_description() -> None:
    missing = [key for key, schema in keys(SCHEMA) if not schema.get("description") or not schema.get("title")]
    assert missing == []


def test_a_complete_configuration_is_valid_for_the_loader_and_for_an_editor(tmp_path: Path) -> None:
    for name in ("code", "python", "requirements.txt", "secrets.pem", "conda.yml"):
        (tmp_path / name).touch()
    file = tmp_path / "edgepack.yaml"
    file.write_text(COMPLETE)
    load_settings(file)
    assert [error.message for error in VALIDATOR.iter_errors(DOCUMENT)] == []


def test_the_complete_configuration_has_every_key() -> None:
    named = {
        ".".join(PLACEHOLDERS.get(str(before), str(step)) for before, step in zip(("", *loc), loc, strict=False))
        for loc in PLACES
    }
    # What may stand under `settings` is tried where it usually stands, directly under the entry.
    values = [key for key, schema in keys(SCHEMA) if is_a_value(schema) and ".settings" not in key]
    unused = {key for key in values if not any(name == key or name.startswith(f"{key}.") for name in named)}
    assert unused == set(ELSEWHERE)
    for section in ELSEWHERE.values():
        assert not list(VALIDATOR.iter_errors({**DOCUMENT, **section}))


@pytest.mark.parametrize("loc", PLACES, ids=lambda loc: ".".join(map(str, loc)))
def test_every_value_may_be_a_variable_and_none_may_be_a_section_of_its_own(loc: tuple[str | int, ...]) -> None:
    for text in ("${NAME}", "${NAME:-}", "a-${NAME:-b c}"):
        assert not list(VALIDATOR.iter_errors(with_value(DOCUMENT, loc, text))), text
    assert list(VALIDATOR.iter_errors(with_value(DOCUMENT, loc, {"no": {"such": "section"}})))


@pytest.mark.parametrize(
    ("loc", "value"),
    [
        (("model",), 1),
        (("registry", "pth"), "x"),
        (("registry", "type"), "azureml"),
        (("runtime", "isolation"), "always"),
        (("runtime", "time_limit"), "fast"),
        (("runtime", "time_limit"), 0),
        (("runtime", "pythons"), {"3.10": "python"}),
        (("sensors", "interval"), 0),
        (("sensors", "batch"), 501),
        (("sensors", "interval"), "$NAME"),
        (("model_types",), {}),
        (("model_types", "press", "implementation"), "oracle"),
        (("model_types", "press", "implementation"), None),
        (("model_types", "press", "python_version"), 3.13),
        (("model_types", "press", "keep_mlflow"), "perhaps"),
        (("model_types", "press", "approval"), {"prod": "maybe"}),
        (("model_types", "press", "columns"), ["phase 4"]),
        (("model_types", "press", "channels"), ["phase 4"]),
        (("model_types", "press", "channels"), []),
        (("model_types", "press", "windows"), {"seconds": 0}),
        (("model_types", "press", "gates", "silhouette", "reference"), "best"),
        (("model_types", "press", "gates", "silhouette", "low"), 1),
        (("model_types", "press", "raw_data"), "press_raw"),
        (("model_types", "images", "input", "resize"), "stretch"),
        (("model_types", "images", "input", "fill"), 256),
        (("model_types", "preset", "input"), "cifar"),
        (("model_types", "preset", "conversion"), "int4"),
        (("model_types", "letters", "conversion", "max_changed"), 2),
        (("model_types", "preset", "payload"), "binary"),
        (("model_types", "letters", "image_format"), "RGB"),
        (("model_types", "preset", "delta"), "perhaps"),
        (("model_types", "images", "runtime"), "cuda"),
        (("model_types", "images", "gpu", "max_batch_size"), 0),
        (("model_types", "images", "gpu", "tensorrt", "precision_mode"), "INT8"),
    ],
)
def test_what_an_editor_can_know_is_marked(loc: tuple[str | int, ...], value: object) -> None:
    assert list(VALIDATOR.iter_errors(with_value(DOCUMENT, loc, value)))


def test_a_missing_key_is_marked() -> None:
    document = copy.deepcopy(DOCUMENT)
    del document["model_types"]["press"]["package_name"]
    assert list(VALIDATOR.iter_errors(document))
