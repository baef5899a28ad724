"""edgepack.yaml: what it may say, and what is told when it says something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgepack_assets.config.implementations import installed
from edgepack_assets.config.loader import find_config, load_settings
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings, LocalRegistrySettings
from edgepack_assets.config.schema import EDGE_PYTHONS, Settings
from edgepack_assets.errors import ConfigError
from edgepack_assets.model_types.image_classification.settings import PRESETS
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.azure_ml import AzureMLRegistry

ENTRY = """\
model_types:
  press:
    implementation: state_identifier
    model_name: press_model
    package_name: Press Line 4
    raw_data: {name: press_raw}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "edgepack.yaml"


def load(file: Path, text: str) -> Settings:
    file.write_text(text, encoding="utf-8")
    return load_settings(file)


def test_an_entry_is_enough_and_paths_are_relative_to_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    (file.parent / "code").mkdir()
    (file.parent / "requirements.txt").touch()
    settings = load(file, ENTRY + "    code_paths: [code]\n    requirements_file: requirements.txt\n")
    assert settings.file == file
    assert settings.registry == LocalRegistrySettings(path=file.parent / ".edgepack/registry")
    assert settings.artefacts.root == str(file.parent / ".edgepack/artefacts")
    press = settings.model_type("press")
    assert press.code_paths == (file.parent / "code",)
    assert press.requirements_file == file.parent / "requirements.txt"
    assert press.registered_package_name == "Press-Line-4-edge"
    assert press.raw_data.version == "latest"


def test_the_configuration_of_the_project_is_valid() -> None:
    settings = load_settings(Path(__file__).parents[2] / "edgepack.yaml")
    assert {entry.implementation for entry in settings.model_types.values()} == set(installed())
    assert EDGE_PYTHONS == ("3.11", "3.12")


def test_a_url_stays_a_url(file: Path) -> None:
    assert load(file, ENTRY + "artefacts: {root: 'abfs://box/here'}\n").artefacts.root == "abfs://box/here"


@pytest.mark.parametrize(
    ("approval", "needed"),
    [
        ("", {"dev": False, "prod": False}),
        ("auto", {"dev": False, "prod": False}),
        ("required", {"dev": True, "prod": True}),
        ("{default: auto, prod: required}", {"dev": False, "prod": True}),
        ("{default: required, dev: auto}", {"dev": False, "prod": True}),
        ("{prod: required}", {"dev": False, "prod": True}),
    ],
)
def test_approval_is_needed_by_environment(file: Path, approval: str, needed: dict[str, bool]) -> None:
    press = load(file, ENTRY + (f"    approval: {approval}\n" if approval else "")).model_type("press")
    assert {environment: press.needs_approval(environment) for environment in needed} == needed


# Values from the environment ---------------------------------------------------------------------------


@pytest.mark.parametrize("build", ["20240105.10", "0012", "true", "1e3", "null", "a: b", "[x]"])
def test_text_from_a_variable_stays_text(file: Path, monkeypatch: pytest.MonkeyPatch, build: str) -> None:
    monkeypatch.setenv("BUILD", build)
    assert load(file, ENTRY + "run: {build_reference: '${BUILD}'}\n").run.build_reference == build


def test_variables_fill_numbers_switches_and_paths(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMIT", "12.5")
    monkeypatch.setenv("RAW", "7")
    monkeypatch.setenv("KEEP", "true")
    monkeypatch.delenv("NOWHERE", raising=False)
    text = ENTRY.replace("{name: press_raw}", "{name: 'x-${RAW}', version: '${RAW}'}")
    settings = load(
        file,
        text
        + "    keep_mlflow: ${KEEP}\n    requirements_file: ${NOWHERE:-}\n"
        + "runtime: {time_limit: '${LIMIT}', index_url: '${NOWHERE:-}'}\n"
        + "registry: {path: '${NOWHERE:-reg}'}\n",
    )
    press = settings.model_type("press")
    assert (press.raw_data.name, press.raw_data.version) == ("x-7", 7)
    assert (press.keep_mlflow, press.requirements_file) == (True, None)
    assert (settings.runtime.time_limit, settings.runtime.index_url) == (12.5, None)
    assert settings.registry == LocalRegistrySettings(path=file.parent / "reg")


def test_a_gate_may_compare(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFERENCE", "3")
    monkeypatch.setenv("SHARE", "2.5 %")
    gates = (
        load(
            file,
            ENTRY
            + "    gates:\n      a: {reference: previous, tolerance: 0.02}\n"
            + "      b: {min: 0, reference: '${REFERENCE}', tolerance: '${SHARE}'}\n      c: {reference: training}\n",
        )
        .model_types["press"]
        .gates
    )
    assert [gate.reference for gate in gates.values()] == ["previous", 3, "training"]
    assert [gate.tolerance.of(-2.0) for gate in gates.values()] == [0.02, 0.05, 0.0]


def test_a_variable_that_is_not_set_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ConfigError, match=r"NOWHERE is not set.*\$\{NOWHERE:-default\}"):
        load(file, ENTRY + "run: {environment: '${NOWHERE}'}\n")


# Faults ------------------------------------------------------------------------------------------------

FAULTS = {
    "unknown key": (
        ENTRY + "    gate: {}\n",
        r":7: unknown key '.*press.gate'; allowed here: .*gates",
    ),
    "unknown key at the top": (
        ENTRY + "model: 3\n",
        r":7: unknown key 'model'; allowed here: artefacts",
    ),
    "unknown key of a gate": (
        ENTRY + "    gates:\n      x: {low: 1}\n",
        r":8: unknown key 'model_types.press.gates.x.low'; allowed here: confidence, max, min, reference, tolerance, "
        r"too_few, worst$",
    ),
    "the reserved key": (ENTRY + "file: x\n", r":7: unknown key 'file'"),
    "missing key": (ENTRY.replace("    model_name: press_model\n", ""), r":2: key '.*model_name' is missing"),
    "wrong type": (ENTRY + "run: [1]\n", r":7: run: must be a mapping; keys allowed in it: build_reference"),
    "no implementation": (ENTRY.replace("state_identifier", "seer"), r":3: .*no such .*image_classification"),
    "a name that is a path": (ENTRY.replace("press_raw", "../raw"), r":6: .*raw_data.name: a registry name"),
    "version zero": (ENTRY.replace("press_raw}", "r, version: 0}"), r":6: .*version: a version is"),
    "version yes": (
        ENTRY.replace("press_raw}", "r, version: yes}"),
        r":6: .*version: a version is",
    ),
    "version in words": (ENTRY.replace("press_raw}", "r, version: new}"), r":6: .*latest or .*found 'new'"),
    "a gate without bounds": (
        ENTRY + "    gates: {x: {}}\n",
        r":7: .*gates.x: a gate needs min, max",
    ),
    "a gate nothing passes": (
        ENTRY + "    gates: {x: {min: 2, max: 1}}\n",
        r":7: .*2.0 is above max",
    ),
    "a reference in words": (
        ENTRY + "    gates: {x: {reference: best}}\n",
        r":7: .*gates.x.reference: a reference is previous, training, staging, production or the number .*found 'best'",
    ),
    "the latest as reference": (ENTRY + "    gates: {x: {reference: latest}}\n", r":7: .*reference: a reference is"),
    "a tolerance alone": (ENTRY + "    gates: {x: {min: 1, tolerance: 1}}\n", r":7: .*x: a tolerance needs a ref"),
    "a confidence of one": (
        ENTRY + "    gates: {x: {min: 1, confidence: 1}}\n",
        r":7: .*confidence: a confidence is from 50% to 99.9%, written 95% or 0.95",
    ),
    "a confidence of yes": (
        ENTRY + "    gates: {x: {min: 1, confidence: yes}}\n",
        r":7: .*confidence: a confidence is",
    ),
    "too_few alone": (ENTRY + "    gates: {x: {min: 1, too_few: warn}}\n", r":7: .*x: too_few needs a confidence"),
    "a tolerance below zero": (
        ENTRY + "    gates: {x: {reference: previous, tolerance: -1%}}\n",
        r":7: .*tolerance: a tolerance is a number from 0 up, or .* 5%",
    ),
    "a tolerance of yes": (
        ENTRY + "    gates: {x: {reference: previous, tolerance: yes}}\n",
        r":7: .*tolerance: a tolerance is a number",
    ),
    "a tolerance of nan": (
        ENTRY + "    gates: {x: {reference: previous, tolerance: .nan}}\n",
        r":7: .*tolerance: a tolerance is a number",
    ),
    "a gate of yes": (ENTRY + "    gates: {x: {min: yes}}\n", r":7: .*gates.x.min: must be a number"),
    "a gate of nan": (ENTRY + "    gates: {x: {min: .nan}}\n", r":7: .*gates.x.min: .*finite"),
    "no time limit": (ENTRY + "runtime: {time_limit: .inf}\n", r":7: runtime.time_limit: .*finite"),
    "a Python the edge lacks": (ENTRY + "    python_version: '3.13'\n", r":7: .*'3.11' or '3.12'"),
    "no requirement": (
        ENTRY + "    requirements: [a b]\n",
        r":7: .*requirements.0: 'a b' is not a req",
    ),
    "no such code": (
        ENTRY + "    code_paths: [lost]\n",
        r":7: .*code_paths.0: no such file or folder: /",
    ),
    "a folder as requirements": (
        ENTRY + "    requirements_file: .\n",
        r":7: .*no such file: /",
    ),
    "an approval of maybe": (ENTRY + "    approval: maybe\n", r":7: .*approval.default: .*'auto' or 'required'"),
    "an approval nowhere": (ENTRY + "    approval: {prod: no}\n", r":7: .*approval.prod: .*'auto' or 'required'"),
    "no interval": (ENTRY + "sensors: {interval: 0}\n", r":7: sensors.interval: .*greater than or equal to 1"),
    "attempts of yes": (ENTRY + "sensors: {attempts: yes}\n", r":7: sensors.attempts: must be a number"),
    "a start at first": (ENTRY + "sensors: {start: first}\n", r":7: sensors.start: .*'all', 'none' or 'latest'"),
    "a number to the base of 8": (
        ENTRY + "    gates: {silhouette: {reference: 010}}\n",
        r":\d+: 010 begins with a zero, and YAML reads it to the base of 8: write it without the zero",
    ),
    "a limit to the base of 8": (
        "runtime: {memory_limit: 010}\n" + ENTRY,
        r":1: 010 begins with a",
    ),
    "a key twice": (ENTRY + "  press: {}\n", r":7: duplicate key 'press': it is on line 2 already"),
    "no model types": ("model_types: {}\n", r":1: model_types: .*at least 1"),
    "an entry's name": (ENTRY.replace("press:", "press line:"), r"model type 'press line': use letters"),
    "a number as name": (ENTRY.replace("press:", "4:"), r":2: model_types.4: .*valid string"),
    "not YAML": (
        ENTRY + "run: {environment: ${X}}\n",
        r"(?s)not valid YAML: .*line 7.*quote a value",
    ),
    "empty": ("", r"must be a mapping"),
    "packages under one name": (
        ENTRY + ENTRY.replace("model_types:\n", "").replace("press:", "other:"),
        r"'press' and 'other' both register 'Press-Line-4-edge'",
    ),
    "a package that is a model": (
        ENTRY
        + ENTRY.replace("model_types:\n", "")
        .replace("press:", "other:")
        .replace("Press Line 4", "Other")
        .replace("press_model", "Press-Line-4-edge"),
        r"'other': its model_name 'Press-Line-4-edge' is the name under which 'press' registers",
    ),
}


IMAGES = ENTRY.replace("state_identifier", "image_classification")
INPUT = r":7: model_types.press.input"
FAULTS |= {
    "columns of an image classifier": (
        IMAGES + "    columns: [ph1, ph2, ph3]\n",
        r":7: unknown key .model_types.press.columns.; allowed here: approval, ",
    ),
    "an input of a state identifier": (
        ENTRY + "    input: {range: [0, 1]}\n",
        r":7: unknown key .model_types.press.input.",
    ),
    "a preset of a state identifier": (ENTRY + "    input: imagenet\n", r":7: unknown key .model_types.press.input."),
    "an unknown preset": (IMAGES + "    input: cifar\n", INPUT + ": no such preset; there is imagenet"),
    "a list as input": (IMAGES + "    input: [0, 1]\n", INPUT + ": must be a mapping; .* channel_order"),
    "an empty input": (IMAGES + "    input: {}\n", INPUT + ": is empty; name range"),
    "an unknown key of input": (
        IMAGES + "    input: {order: bgr}\n",
        r":7: unknown key .*input.order'; allowed .*mean",
    ),
    "a range backwards": (IMAGES + "    input: {range: [1, 0]}\n", INPUT + ".range: .*the lower one first"),
    "a range of three": (IMAGES + "    input: {range: [0, 1, 2]}\n", INPUT + ".range: must be two numbers"),
    "a range of yes and no": (IMAGES + "    input: {range: [no, yes]}\n", INPUT + ".range.0: must be a number"),
    "a range without end": (IMAGES + "    input: {range: [0, .inf]}\n", INPUT + ".range.1: .*finite number"),
    "a range and a mean": (IMAGES + "    input: {range: [0, 1], mean: 0, std: 1}\n", INPUT + ": name range, or mean"),
    "a mean alone": (IMAGES + "    input: {mean: 0.5}\n", INPUT + ": mean and std go together"),
    "a mean for two channels": (
        IMAGES + "    input: {mean: [0, 1], std: 1}\n",
        INPUT + ".mean: must be 1 number, or 3",
    ),
    "no deviation": (IMAGES + "    input: {mean: 0, std: [1, 0, 1]}\n", INPUT + ".std: each must be above 0"),
    "a negative deviation": (IMAGES + "    input: {mean: 0, std: -1}\n", INPUT + ".std: each must be above 0"),
    "channels in no order": (IMAGES + "    input: {channel_order: brg}\n", INPUT + ".channel_order: .*'rgb' or 'bgr'"),
    "a filter that Pillow lacks": (
        IMAGES + "    input: {interpolation: area}\n",
        INPUT + ".interpolation: .*'bilinear'",
    ),
    "a side without crop": (IMAGES + "    input: {shorter_side: 256}\n", INPUT + ": shorter_side and .*resize: crop"),
    "both sizes of a crop": (
        IMAGES + "    input: {resize: crop, shorter_side: 256, crop_fraction: 0.875}\n",
        INPUT + ": name shorter_side or crop_fraction",
    ),
    "a part above one": (
        IMAGES + "    input: {resize: crop, crop_fraction: 1.1}\n",
        INPUT + ".crop_fraction: .*or equal",
    ),
    "a colour for nothing": (IMAGES + "    input: {fill: 0}\n", INPUT + ": fill goes with resize: letterbox"),
    "a colour beyond": (IMAGES + "    input: {resize: letterbox, fill: 256}\n", INPUT + ".fill.0: .*or equal to 255"),
}

AZURE = "registry: {type: azure_ml, "
FAULTS |= {
    "a registry of another kind": (ENTRY + "registry: {type: azureml}\n", r":7: registry: .*type is local or azure_ml"),
    "a key of another registry": (
        ENTRY + "registry: {type: local, registry_name: x}\n",
        r":7: unknown key 'registry.registry_name'; allowed here: path, type$",
    ),
    "a workspace nowhere": (
        ENTRY + AZURE + "workspace_name: w}\n",
        r":7: registry: workspace_name needs subscription_id and resource_group",
    ),
    "a workspace and a registry": (
        ENTRY + AZURE + "workspace_name: w, registry_name: r}\n",
        r":7: registry: name a workspace_name .* or a registry_name",
    ),
    "a secret in the file": (
        ENTRY + AZURE + "registry_name: r, credential: {type: service_principal, client_secret: cana~ry}}\n",
        r":7: unknown key 'registry.credential.client_secret'; allowed here: .*client_secret_variable",
    ),
    "a secret for a variable": (
        ENTRY + AZURE + "registry_name: r, credential: {type: service_principal, client_secret_variable: cana~ry}}\n",
        r":7: registry.credential.client_secret_variable: must be the name of an environment variable",
    ),
    "a certificate of no principal": (
        ENTRY + AZURE + "registry_name: r, credential: {type: managed_identity, certificate_path: x}}\n",
        r":7: registry.credential: a credential of type managed_identity does not use certificate_path",
    ),
    "no such certificate": (
        ENTRY + AZURE + "registry_name: r, credential: {type: service_principal, certificate_path: x.pem}}\n",
        r":7: registry.credential.certificate_path: no such file: /.*/x.pem",
    ),
    "no time": (ENTRY + AZURE + "registry_name: r, time_limit: 0}\n", r":7: registry.time_limit: .*greater"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_its_line_and_what_is_allowed(file: Path, fault: str) -> None:
    text, told = FAULTS[fault]
    with pytest.raises(ConfigError, match=told) as caught:
        load(file, text)
    assert str(caught.value).startswith(str(file))
    assert "cana~ry" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("{range: [-1, 1]}", {"range": [-1, 1]}),
        ("{mean: 0.5, std: [1, 2, 3]}", {"mean": [0.5], "std": [1, 2, 3]}),
        ("{resize: letterbox, fill: 114}", {"resize": "letterbox", "fill": [114]}),
        ("imagenet", dict(PRESETS["imagenet"])),
        ("{resize: crop, shorter_side: 256}", {"resize": "crop", "shorter_side": 256}),
    ],
)
def test_how_images_enter(file: Path, text: str, given: dict[str, object]) -> None:
    section = load(file, IMAGES + f"    input: {text}\n").model_types["press"].settings.input
    assert section is not None
    assert section.given == given


def test_how_images_enter_need_not_be_said(file: Path) -> None:
    assert load(file, IMAGES).model_types["press"].settings.input is None


def test_a_workspace_and_who_we_are_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBSCRIPTION", "0b1f")
    (file.parent / "c.pem").touch()
    place = "subscription_id: '${SUBSCRIPTION}', resource_group: g, workspace_name: w, time_limit: 30"
    who = "credential: {type: service_principal, tenant_id: t, client_id: '${NO:-}', certificate_path: c.pem}"
    registry = load(file, ENTRY + AZURE + f"{place}, {who}}}\n").registry
    assert isinstance(registry, AzureMLRegistrySettings)
    assert (registry.subscription_id, registry.workspace_name, registry.time_limit) == ("0b1f", "w", 30)
    assert registry.credential.client_id is None
    assert registry.credential.certificate_path == file.parent / "c.pem"
    assert isinstance(open_registry(load(file, ENTRY + AZURE + f"{place}}}\n")), AzureMLRegistry)


def test_isolation_is_required_where_a_machine_signs_in_to_azure(file: Path) -> None:
    place = AZURE + "subscription_id: 0b1f, resource_group: g, workspace_name: w}\n"
    assert load(file, ENTRY).runtime.isolation == "best_effort"
    assert load(file, ENTRY + place).runtime.isolation == "required"
    assert load(file, ENTRY + place + "runtime: {time_limit: 5}\n").runtime.isolation == "required"
    assert load(file, ENTRY + place + "runtime: {isolation: best_effort}\n").runtime.isolation == "best_effort"


def test_every_fault_is_told_at_once(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, ENTRY + "    gates: {x: {}}\nmodel: 3\nrun: 4\n")
    assert len(str(caught.value).splitlines()) == 3


def test_an_unknown_model_type_names_those_there_are(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"no entry 'pres'; it has: press"):
        load(file, ENTRY).model_type("pres")


# Which file --------------------------------------------------------------------------------------------


def test_the_variable_wins_over_the_folders_above(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file.touch()
    below = file.parent / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.delenv("EDGEPACK_CONFIG", raising=False)
    assert find_config() == file
    other = tmp_path_factory.mktemp("other") / "plant.yaml"
    monkeypatch.setenv("EDGEPACK_CONFIG", str(other))
    with pytest.raises(ConfigError, match=f"EDGEPACK_CONFIG names {other}, which is not a file"):
        find_config()
    other.touch()
    assert find_config() == other


def test_a_python_version_needs_no_quotes(file: Path, tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.touch()
    text = ENTRY + "    python_version: 3.12\n"
    settings = load(file, f"{text}runtime: {{pythons: {{3.11: {interpreter}, '3.12': {interpreter}}}}}\n")
    assert settings.model_type("press").python_version == "3.12"
    assert list(settings.runtime.pythons) == ["3.11", "3.12"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY + "    python_version: 3.10\n", r":7: model_types.press.python_version: .*'3.11' or '3.12' .*'3.10'"),
        (ENTRY + "    python_version: 3\n", r":7: model_types.press.python_version: .*'3'"),
        (ENTRY + "runtime:\n  pythons: {3.10: /usr/bin/python3}\n", r":8: runtime.pythons.3.10: "),
    ],
)
def test_an_unquoted_python_is_refused_as_it_is_written(file: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(file, text)


def test_lines_of_a_model_s_requirements_are_replaced_by_requirements(file: Path) -> None:
    text = (
        ENTRY
        + '    replace_requirements: {"-e .": null, plant: "Plant == 1.0", "a b": ""}\n    saved_versions: block\n'
    )
    press = load(file, text).model_type("press")
    assert press.replace_requirements == {"-e .": None, "plant": "Plant==1.0", "a b": None}
    assert press.saved_versions == "block"
    assert load(file, ENTRY).model_type("press").saved_versions == "warn"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('replace_requirements: {"-e .": "-e other"}', r":7: .*'-e other' is not a requirement"),
        ("replace_requirements: [numpy]", r":7: model_types.press.replace_requirements: .*dictionary"),
        ("saved_versions: strict", r":7: model_types.press.saved_versions: .*'warn' or 'block'"),
    ],
)
def test_a_wrong_replacement_is_refused_with_its_line(file: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(file, ENTRY + f"    {line}\n")


def test_a_variable_of_another_encoding_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "edgepack.yaml"
    file.write_text("run: {build_reference: '${REFERENCE}'}\n")
    monkeypatch.setenv("REFERENCE", os.fsdecode(b"gef\xe4hrlich"))
    with pytest.raises(
        ConfigError, match=r"edgepack.yaml:1: run.build_reference: the environment variable REFERENCE is not UTF-8 text"
    ):
        load_settings(file)


@pytest.mark.parametrize(
    ("text", "ticks", "retries"),
    [
        (ENTRY, 10, 30),
        (ENTRY + "sensors: {interval: 7}\n", 7, 7),
        (ENTRY + "".join(f"  t{number}: {{model_name: t{number}, package_name: t{number}, implementation: "
                         "state_identifier, raw_data: {name: raw}}\n" for number in range(5)), 30, 30),
        (ENTRY + "registry: {type: azure_ml, workspace_name: w, resource_group: g, subscription_id: s}\n", 30, 30),
    ],
)  # fmt: skip
def test_sensors_look_more_often_where_it_costs_little(tmp_path: Path, text: str, ticks: int, retries: int) -> None:
    file = tmp_path / "edgepack.yaml"
    file.write_text(text)
    settings = load_settings(file)
    assert (settings.sensor_interval, settings.retry_interval) == (ticks, retries)
