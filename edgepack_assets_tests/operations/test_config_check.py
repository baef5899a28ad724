"""All mistakes of an edgepack.yaml at once, and the command that reports them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack_assets.cli.main import main
from edgepack_assets.errors import ConfigError
from edgepack_assets.operations.config_check import check_config
from edgepack_assets_tests.config.test_json_schema import DOCUMENT, PLACES, with_value
from edgepack_assets_tests.model_types.fakes import install

ENTRY = """\
model_types:
  press:
    implementation: state_identifier
    model_name: press_model
    package_name: Press Line 4
    raw_data: {name: press_raw}
"""

WRONG = """\
registry: {type: local, pth: x}
runtime:
  time_limit: fast
  readable_folders: [/nowhere/at/all]
run: {environment: "${UNSET_ONE}", build_reference: "${UNSET_TWO}"}
sensors: {interval: "${UNSET_ONE}"}
sensors: {interval: "${UNSET_TWO}"}
model_types:
  press:
    implementation: state_identifier
    model_name: press
    package_name: Press
    raw_data: {name: raw, version: 2024-06-01}
    gates: {silhoutte: {min: 1}, silhouette: {min: 2, max: 1}}
  other:
    implementation: image_classification
    model_name: Press-edge
    package_name: Press
    raw_data: {name: raw}
    requirements_file: lost.txt
    gates:
      accuracy_validation: {worst: {hour: {min: 0.5}}}
      avg_recall_validation: {worst: {class: {min: 0.5}}}
  half: {model_name: m}
"""
EXPECTED = [
    (1, "unknown key 'registry.pth'; allowed here: path, type"),
    (3, "runtime.time_limit: Input should be a valid number"),
    (4, "runtime.readable_folders.0: no such file or folder: /nowhere/at/all"),
    (5, "run.environment: the environment variable UNSET_ONE is not set"),
    (5, "run.build_reference: the environment variable UNSET_TWO is not set"),
    (7, "duplicate key 'sensors': it is on line 6 already"),
    (7, "sensors.interval: the environment variable UNSET_TWO is not set"),
    (13, "model_types.press.raw_data.version: a version is latest or a whole number"),
    (14, "model_types.press.gates.silhouette: min 2.0 is above max 1.0"),
    (14, "model_types.press.gates: silhoutte is no metric of state_identifier; it has: accuracy, adjusted_rand"),
    (17, "model type 'other': its model_name 'Press-edge' is the name under which 'press' registers"),
    (18, "model types 'press' and 'other' both register 'Press-edge'"),
    (20, "model_types.other.requirements_file: no such file: "),
    (22, "model_types.other.gates.accuracy_validation.worst: records are not divided by hour, but by: class, folder"),
    (23, "model_types.other.gates.avg_recall_validation.worst: avg_recall_validation has no value in a part of the"),
    (24, "key 'model_types.half.implementation' is missing"),
    (24, "key 'model_types.half.package_name' is missing"),
    (24, "key 'model_types.half.raw_data' is missing"),
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("UNSET_ONE", "UNSET_TWO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EDGEPACK_CONFIG", str(tmp_path / "edgepack.yaml"))
    return tmp_path / "edgepack.yaml"


def test_every_mistake_is_reported_once_with_its_line_in_the_order_of_the_file(file: Path) -> None:
    file.write_text(WRONG)
    with pytest.raises(ConfigError) as caught:
        check_config()
    lines = str(caught.value).splitlines()
    numbers = [int(line.removeprefix(f"{file}:").split(":")[0]) for line in lines]
    assert numbers == sorted(numbers)
    wanted = {f"{file}:{number}: {text}" for number, text in EXPECTED}
    assert {text for text in wanted if not any(line.startswith(text) for line in lines)} == set()
    assert len(lines) == len(EXPECTED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY + "run: {environment: [\n", r"edgepack.yaml:8: not valid YAML"),
        (ENTRY + "run: !!int nine\n", r"edgepack.yaml: not valid YAML"),
        (ENTRY + "run: &again {environment: *again}\n", r"edgepack.yaml: not valid YAML: .*holds itself"),
        ("[" * 3000, r"edgepack.yaml: not valid YAML: .*nested too deeply"),
        ("\x00", r"edgepack.yaml: not valid YAML"),
        (ENTRY + "? [a, b]\n: 1\n", r"not valid YAML|unknown key"),
        (ENTRY + "5: 1\n", r":7: .*"),
        ("model_types: [press]\n", r":1: model_types: "),
    ],
)
def test_what_is_no_configuration_is_refused_without_a_traceback(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        check_config()


def test_a_key_that_overrides_a_merged_one_is_no_duplicate(file: Path) -> None:
    other = "  other:\n    <<: *press\n    model_name: other\n    package_name: Other\n"
    file.write_text(ENTRY.replace("press:\n", "press: &press\n", 1) + other)
    assert check_config().model_types["other"].package_name == "Other"


def test_the_command_says_which_file_it_read(file: Path) -> None:
    file.write_text(ENTRY)
    done = CliRunner().invoke(main, ["config", "check"])
    assert (done.exit_code, done.stdout) == (0, f"{file} is valid; model types: press\n")


def test_the_command_fails_with_every_mistake(file: Path) -> None:
    file.write_text(ENTRY + "model: 1\nruntime: {time_limit: -1}\n")
    done = CliRunner().invoke(main, ["config", "check"])
    assert done.exit_code == 1
    assert f"{file}:7: unknown key 'model'" in done.output
    assert f"{file}:8: runtime.time_limit: " in done.output


def test_the_commands_import_no_dagster_and_no_heavy_library(file: Path) -> None:
    file.write_text(ENTRY)
    code = (
        "import sys; from click.testing import CliRunner; from edgepack_assets.cli.main import main\n"
        "done = [CliRunner().invoke(main, ['config', name]).exit_code for name in ('check', 'schema')]\n"
        "heavy = {'dagster', 'pandas', 'sklearn', 'simaticai', 'matplotlib', 'azure.ai.ml'}\n"
        "print(done, sorted(heavy & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0, 0] []"


SECTIONS = sorted({place[:length] for place in PLACES for length in range(1, len(place) + 1)}, key=str)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["${UNSET_ONE}", "~x/y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(place=st.sampled_from(SECTIONS), value=VALUES)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_value_is_put_anywhere_the_check_ends_with_mistakes_that_have_a_line(
    file: Path, place: tuple[str | int, ...], value: object
) -> None:
    for name in ("code", "python", "requirements.txt", "secrets.pem"):
        (file.parent / name).touch()
    file.write_text(yaml.safe_dump(with_value(DOCUMENT, place, value), allow_unicode=True), encoding="utf-8")
    try:
        check_config()
    except ConfigError as error:
        assert str(error).startswith(f"{file}:")
        assert re.match(r"\d+: ", str(error).removeprefix(f"{file}:")) or "not valid YAML" in str(error)


def test_an_implementation_that_cannot_be_used_is_refused_with_its_lines_and_others_are_still_checked(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    install(tmp_path / "site", "plant-pumps", "pump", "plant_pumps", source="raise RuntimeError('no licence')")
    pump = ENTRY.removeprefix("model_types:\n").replace("press", "pump").replace("state_identifier", "pump")
    file.write_text(ENTRY + "    gates: {nothing: {min: 1}}\n" + pump.replace("Press", "Pump"))
    with pytest.raises(ConfigError) as caught:
        check_config()
    of_press, of_pump = str(caught.value).splitlines()
    assert of_press.startswith(f"{file}:7: model_types.press.gates: nothing is no metric of state_identifier")
    assert of_pump.startswith(f"{file}:9: model_types.pump cannot be packaged: the model type pump (plant-pumps 1.2) ")
    assert "RuntimeError: no licence" in of_pump
