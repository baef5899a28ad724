"""Plug-ins of other distributions: found, refused with their distribution where they are broken, and held to the
interface in every method; other model types go on working."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from inspect import isfunction
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from edgepack_assets.config.implementations import distribution, installed
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.definitions import build_defs
from edgepack_assets.defs.sensors import registry_sensor
from edgepack_assets.errors import ConfigError, EdgepackError, ModelError, PluginError, RawDataError, TransientError
from edgepack_assets.model_types import Plugin, model_type, model_type_of
from edgepack_assets.model_types.conversion import Conversion
from edgepack_assets.model_types.interface import (
    Answered,
    ModelSource,
    ModelType,
    Payload,
    PayloadWriter,
    Preparation,
    Prepped,
    Results,
    Trial,
    UntrustedReport,
)
from edgepack_assets.operations.doctor import _model_types
from edgepack_assets_tests.model_types.fakes import SOUND, install

ENTRY = """\
  {name}:
    implementation: {implementation}
    model_name: {name}_model
    package_name: {name}
    raw_data: {{name: {name}_raw}}
"""
TITLE = r"the model type pump \(plant-pumps 1\.2\)"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path, as site-packages is."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(folder) in str(sys.modules[name].__file__):
            del sys.modules[name]


def configured(folder: Path, *implementations: str, more: str = "") -> Path:
    file = folder / "edgepack.yaml"
    names = {name: f"line_{n}" for n, name in enumerate(implementations)}
    entries = [ENTRY.format(name=line, implementation=name) for name, line in names.items()]
    file.write_text("model_types:\n" + "".join(entries) + more)
    return file


def entry() -> ModelTypeSettings:
    return ModelTypeSettings.model_validate(
        {"implementation": "pump", "model_name": "m", "package_name": "P", "raw_data": {"name": "r"}}
    )


def pump(site: Path, methods: str = "", **more: str) -> Plugin:
    install(site, "plant-pumps", "pump", "plant_pumps", methods=methods, **more)
    return model_type("pump")


def test_a_sound_one_is_used_like_ours(site: Path, tmp_path: Path) -> None:
    plugin = pump(site)
    writer = PayloadWriter(tmp_path / "records", tmp_path / "sources")
    with writer.open():
        facts = plugin.write_payload(tmp_path, {}, writer, entry())
    payload = Payload(writer.records, writer.sources, writer.count)
    assert payload.labels() == {0: "even", 1: "odd", 2: "even"}
    assert plugin.payload_rows(facts)[0].passed
    assert plugin.read_model(tmp_path, entry()).model == {"factor": 2.0}
    assert plugin.component_spec({}).outputs[0].type == "Double"
    assert plugin.folder == site / "plant_pumps"
    assert plugin.score(payload, Results(tmp_path), None, {}).metrics == {"share": 1.0}


def test_an_unknown_one_is_refused_with_those_installed_and_their_distributions(site: Path, tmp_path: Path) -> None:
    install(site, "plant-pumps", "pump", "plant_pumps")
    with pytest.raises(ConfigError) as refused:
        load_settings(configured(tmp_path, "pumps"))
    assert f"{tmp_path}/edgepack.yaml:3: " in str(refused.value)
    assert "pump (plant-pumps 1.2)" in str(refused.value)
    assert "state_identifier (edgepack-assets " in str(refused.value)


def test_one_that_is_installed_or_removed_while_the_process_runs_is_seen(site: Path) -> None:
    """A code location, or a test run, may have looked before: what it found is kept until a folder changes."""
    assert "pump" not in installed()
    install(site, "plant-pumps", "pump", "plant_pumps")
    assert [distribution(each) for each in installed()["pump"]] == ["plant-pumps 1.2"]
    install(site, "other-pumps", "pump", "other_pumps")
    assert [distribution(each) for each in installed()["pump"]] == ["other-pumps 1.2", "plant-pumps 1.2"]
    shutil.rmtree(site / "plant_pumps-1.2.dist-info")
    assert [distribution(each) for each in installed()["pump"]] == ["other-pumps 1.2"]


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "fails to import": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps", source="import no_such_library"),
        TITLE + r" cannot be imported .*No module named 'no_such_library'",
    ),
    "exits on import": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps", source="raise SystemExit(0)"),
        TITLE + r" cannot be imported .*SystemExit",
    ),
    "no such object": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps", ends=""),
        TITLE + r" cannot be imported .*PLUGIN",
    ),
    "a later interface": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps", methods="interface_version = 2"),
        TITLE + r" is written for interface version 2; this edgepack-assets has interface version 1",
    ),
    "no interface stated": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps",
                             source=SOUND.replace("interface_version = 1", "pass")),
        TITLE + " states no interface_version",
    ),
    "a class": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps", ends="PLUGIN = Fake"),
        TITLE + ": its entry point names .*not an instance",
    ),
    "a method is missing": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps", source=SOUND.replace("def score", "def rate")),
        TITLE + " cannot be imported .*abstract.*score",
    ),
    "settings of another kind": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps", methods="settings = dict"),
        TITLE + ": settings must be a subclass of Section",
    ),
    "metric names that are none": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps", methods="metric_names = {1}"),
        TITLE + ": metric_names returned 1 .*it should return a set",
    ),
    "settings whose validator raises what it should not": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps",
                             methods="""
                             class settings(Section):
                                 def model_post_init(self, context): {}["lost"]
                             """),
        TITLE + ": settings raised an unforeseen KeyError for None: 'lost'",
    ),
    "a direction of a metric that it has not": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps", methods="lower_is_better = {'shares'}"),
        TITLE + ": lower_is_better names shares: none of its metric_names",
    ),
    "an edgepack key of its own": (
        lambda site: install(site, "plant-pumps", "pump", "plant_pumps",
                             methods="keys_beside_settings = frozenset({'gates'})"),
        TITLE + ": keys_beside_settings holds gates",
    ),
    "two of one name": (
        lambda site: (install(site, "plant-pumps", "pump", "plant_pumps"),
                      install(site, "other-pumps", "pump", "other_pumps"))[0],
        r"other-pumps 1\.2 and plant-pumps 1\.2 both have a model type called 'pump'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_one_fails_where_it_is_used_and_nothing_else(
    kind: str, site: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write, words = BROKEN[kind]
    write(site)
    with pytest.raises(PluginError, match=words):
        model_type_of(entry())
    file = configured(tmp_path, "pump", "state_identifier")
    settings = load_settings(file)
    assert settings.model_type("line_1").settings.columns is None
    defs = build_defs(file)
    assert "model_types.line_0 cannot be packaged" in caplog.text
    assert {sensor.name for sensor in defs.sensors or ()} >= {"line_0_models", "line_1_models"}
    with dg.instance_for_test() as instance:
        with pytest.raises(EdgepackError, match=words):
            registry_sensor(settings, "line_0")(dg.build_sensor_context(instance))
        registry_sensor(settings, "line_1")(dg.build_sensor_context(instance))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_one_that_nobody_configured_is_not_even_imported(
    kind: str, site: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    BROKEN[kind][0](site)
    build_defs(configured(tmp_path, "state_identifier"))
    assert "cannot be packaged" not in caplog.text
    assert "plant_pumps" not in sys.modules


@pytest.mark.parametrize("error", ["SystemExit(0)", "GeneratorExit"])
def test_what_is_raised_to_end_something_ends_nothing(error: str, site: Path) -> None:
    plugin = pump(site, f"def payload_rows(self, facts): raise {error}")
    with pytest.raises(PluginError, match=TITLE + ": payload_rows raised an unforeseen "):
        plugin.payload_rows({})


def test_its_own_settings_are_validated_with_the_line(site: Path, tmp_path: Path) -> None:
    install(site, "plant-pumps", "pump", "plant_pumps")
    own = load_settings(configured(tmp_path, "pump", more="    settings: {factor: 3}\n")).model_type("line_0").settings
    assert own.factor == 3.0
    for text, words in {
        "{factr: 3}": r":7: unknown key 'model_types.line_0.settings.factr'; allowed here: factor",
        "\n      factor: much": r":8: model_types.line_0.settings.factor: .*valid number.*\(found 'much'\)",
        "3": r":7: model_types.line_0.settings: must be a mapping; keys allowed in it: factor",
    }.items():
        with pytest.raises(ConfigError, match=words):
            load_settings(configured(tmp_path, "pump", more=f"    settings: {text}\n"))
    with pytest.raises(ConfigError, match=r":7: unknown key 'model_types.line_0.factor'"):
        load_settings(configured(tmp_path, "pump", more="    factor: 3\n"))


@pytest.mark.parametrize("place", ["    columns: {text}\n", "    settings: {{columns: {text}}}\n"])
def test_settings_of_before_are_read_at_both_places(tmp_path: Path, place: str) -> None:
    def load(text: str) -> Any:
        more = place.format(text=text)
        return load_settings(configured(tmp_path, "state_identifier", more=more)).model_type("line_0").settings

    assert load("[ph2, ph1, ph3]").columns == ("ph2", "ph1", "ph3")
    with pytest.raises(ConfigError, match=r":7: model_types.line_0.(settings.)?columns: must name each of"):
        load("[ph2, ph1]")


def test_a_setting_at_both_places_is_refused(tmp_path: Path) -> None:
    more = "    columns: [ph2, ph1, ph3]\n    settings: {columns: [ph1, ph2, ph3]}\n"
    with pytest.raises(ConfigError, match="columns: named both under settings and beside it"):
        load_settings(configured(tmp_path, "state_identifier", more=more))


def spec(text: str) -> str:
    return f"def component_spec(self, inspection): return {text}"


X, Y = "(Variable('x', 'Double'),)", "(Variable('y', 'Double'),)"


def _payload(path: Path) -> Payload:
    return Payload(path, path, 0)


def _answered(path: Path) -> Answered:
    return Answered("Press-edge:1", Results(path))


def _written(plugin: Plugin, path: Path) -> dict[str, Any]:
    writer = PayloadWriter(path / "records", path / "sources")
    with writer.open():
        return plugin.write_payload(path, {}, writer, entry())


CALLS: dict[str, Callable[[Plugin, Path], Any]] = {
    "write_payload": _written,
    "payload_rows": lambda plugin, path: plugin.payload_rows({"numbers": 1}),
    "read_model": lambda plugin, path: plugin.read_model(path, entry()),
    "tag_settings": lambda plugin, path: plugin.tag_settings({}, entry(), {}, "m:1"),
    "component_folders": lambda plugin, path: plugin.component_folders(entry(), None),
    "finish_component": lambda plugin, path: plugin.finish_component(path, ModelSource({}, {}, (), None)),
    "component_spec": lambda plugin, path: plugin.component_spec({}),
    "component_settings": lambda plugin, path: plugin.component_settings({}),
    "pipeline": lambda plugin, path: plugin.pipeline(path, ModelSource({}, {}, (), None), {}, path),
    "inspection_rows": lambda plugin, path: plugin.inspection_rows({}, entry()),
    "numbers_are_free": lambda plugin, path: plugin.numbers_are_free({}),
    "categories": lambda plugin, path: plugin.categories({}),
    "category_names": lambda plugin, path: plugin.category_names(_payload(path), {}),
    "trial": lambda plugin, path: plugin.trial(_payload(path), Results(path), {}, entry(), path),
    "probes": lambda plugin, path: plugin.probes(_payload(path), Results(path), {}, entry(), path),
    "compare": lambda plugin, path: plugin.compare(None, entry(), None, path),
    "score": lambda plugin, path: plugin.score(_payload(path), Results(path), None, {}),
    "results_picture": lambda plugin, path: plugin.results_picture(_payload(path), Results(path), {}),
    "comparison_picture": lambda plugin, path: plugin.comparison_picture(_payload(path), *[_answered(path)] * 2),
    "write_recording": lambda plugin, path: plugin.write_recording(path, None, entry(), path),
}

OF_PARTS: dict[str, tuple[str, Callable[[Plugin, Path], Any]]] = {
    "preparation.arrays": ("arrays", lambda plugin, path: plugin.prepared_arrays("job", UntrustedReport(), {}, 1)),
    "preparation.prepared": ("prepared", lambda plugin, path: plugin.prepared("job", UntrustedReport(), {}, {}, 1)),
    "preparation.picture": ("picture", lambda plugin, path: plugin.prepped_picture(Prepped(path))),
    "Own.rows": ("rows", lambda plugin, path: plugin.trial_rows(CALLS["trial"](plugin, path), {})),
    "conversion.convert": (
        "convert", lambda plugin, path: plugin.convert(plugin.read_model(path, entry()), None, path)),
}  # fmt: skip
"""Methods of what a plug-in's methods return: name in errors -> (method, call)."""

PARTS = """
class Preparing(Preparation):
    files, report = ("a",), UntrustedReport
    arrays = prepared = picture = rows = lambda self, *_: None
    {given}
class Own(Trial):
    function, arguments, inputs = "f", {{}}, {{}}
    rows = lambda self, *_: None
    {given}
class Converting(Conversion):
    convert = lambda self, *_: None
    {given}
preparation = Preparing()
def trial(self, *_): return type(self).Own()
def read_model(self, model, entry): return ModelSource({{}}, {{}}, (), None, conversion=type(self).Converting())
"""


def test_every_method_of_the_interface_is_called_here() -> None:
    declared = {name for name, value in vars(ModelType).items() if isfunction(value) and not name.startswith("_")}
    assert declared == CALLS.keys()
    parts = {name for part in (Preparation, Trial, Conversion) for name in part.__abstractmethods__}
    assert parts == {method for method, _ in OF_PARTS.values()}


@pytest.mark.parametrize("name", OF_PARTS)
def test_what_any_method_of_a_part_raises_or_returns_names_plug_in_and_method(
    name: str, site: Path, tmp_path: Path
) -> None:
    method, call = OF_PARTS[name]
    source = PARTS.format(given=f"def {method}(self, *_): return {{}}['lost'] if self.raises else 7")
    plugin = pump(site, f"{source}for part in (Preparing, Own, Converting): part.raises = True\ndel part\n")
    with pytest.raises(
        PluginError, match=TITLE + rf": {name} raised an unforeseen KeyError at __init__.py:\d+: 'lost'"
    ):
        call(plugin, tmp_path)
    for part in ("Preparing", "Own", "Converting"):
        getattr(type(plugin._plugin), part).raises = False
    with pytest.raises(PluginError, match=TITLE + rf": {name} returned .*7 \(int\); it should return "):
        call(plugin, tmp_path)


@pytest.mark.parametrize("method", CALLS)
def test_what_any_method_raises_names_plug_in_and_method(method: str, site: Path, tmp_path: Path) -> None:
    plugin = pump(site, f"def {method}(self, *_): return {{}}['lost']")
    kind = ModelError if method == "read_model" else PluginError
    with pytest.raises(kind, match=TITLE + rf": {method} raised an unforeseen KeyError at __init__.py:\d+: 'lost'"):
        CALLS[method](plugin, tmp_path)


@pytest.mark.parametrize("method", CALLS)
def test_what_any_method_returns_otherwise_names_what_was_wanted(method: str, site: Path, tmp_path: Path) -> None:
    plugin = pump(site, f"def {method}(self, *_): return 7")
    with pytest.raises(PluginError, match=TITLE + rf": {method} returned .*7 \(int\); it should return "):
        CALLS[method](plugin, tmp_path)


@pytest.mark.parametrize("method", CALLS)
def test_words_for_the_user_and_a_full_disk_pass(method: str, site: Path, tmp_path: Path) -> None:
    plugin = pump(
        site,
        f"""
        def {method}(self, *_):
            import errno
            if self.full:
                raise OSError(errno.ENOSPC, "disk full")
            raise RawDataError("no row")
        full = False
        """,
    )
    with pytest.raises(RawDataError, match=r"^no row$"):
        CALLS[method](plugin, tmp_path)
    type(plugin._plugin).full = True  # type: ignore[attr-defined]
    with pytest.raises(TransientError, match="disk full"):
        CALLS[method](plugin, tmp_path)


WRONG = {
    "an error that cannot be shown": (
        "score",
        "class Lost(Exception):\n    __str__ = lambda self: {}['lost']\ndef score(self, *_): raise self.Lost",
        "raised an unforeseen Lost at __init__.py:[0-9]+: what cannot be shown, KeyError"),
    "an answer that raises": (
        "categories",
        "class Lost(list):\n    __iter__ = lambda self: {}['lost']\ndef categories(self, *_): return self.Lost([1])",
        r"returned \[1\] \(Lost\), which raises KeyError: 'lost'; it should return None or a sequence"),
    "categories of two kinds of one value": (
        "categories", "def categories(self, *_): return [1, True]", r"returned \[1, True\]; it should"),
    "a component's folder that is none": (
        "component_folders", "def component_folders(self, *_): return (self.folder / 'none',)", "which is no folder"),
    "names that are numbers": ("category_names", "def category_names(self, *_): return {'1': 1}", "returned"),
    "two outputs of one name": ("component_spec", spec(f"ComponentSpec('', {X}, {Y} * 2)"), "two of one name: 'y'"),
    "an output and a metric of one name": (
        "component_spec", spec(f"ComponentSpec('', {X}, {Y}, metrics=(Variable('y', 'String'),))"), "two of one name"),
    "an input and an output of one name": (
        "component_spec", spec(f"ComponentSpec('', {X}, (Variable('x', 'String'),))"), "two of one name: 'x'"),
    "two inputs of one name": ("component_spec", spec(f"ComponentSpec('', {X} * 2, {Y})"), "inputs with two of one"),
    "a type that the server does not know": (
        "component_spec", spec(f"ComponentSpec('', {X}, (Variable('y', 'double'),))"), "'double', which the server"),
    "no output": ("component_spec", spec(f"ComponentSpec('', {X}, ())"), "without outputs"),
    "a default of another type": (
        "component_spec", spec(f"ComponentSpec('', {X}, {Y}, parameters=(Parameter('p', 'Integer', 0.5),))"), "0.5"),
    "no period": ("component_spec", spec(f"ComponentSpec('', {X}, {Y}, periodicity=0)"), "periodicity of 0"),
    "a record that is no JSON": (
        "write_payload", "def write_payload(self, raw, tags, writer, entry): writer.add({'x': {1}})",
        r"record 0 is not JSON: .*set.* is not JSON serializable"),
    "a record with NaN": (
        "write_payload", "def write_payload(self, raw, tags, writer, entry): writer.add({'x': float('nan')})",
        "record 0 is not JSON"),
    "a record that is a list": (
        "write_payload", "def write_payload(self, raw, tags, writer, entry): writer.add([1])", "record 0 is .1."),
    "a label of another kind": (
        "write_payload", "def write_payload(self, raw, tags, writer, entry): writer.add({'x': 1.0}, label=[1])",
        "the label of record 0"),
    "text that is no JSON": (
        "write_payload", "def write_payload(self, raw, tags, writer, entry): writer.add_lines(['{x}'])", "not JSON"),
    "two lines as one": (
        "write_payload", "def write_payload(self, raw, tags, writer, entry): writer.add_lines(['1\\n2'])", "one line"),
    "facts that are no JSON": (
        "write_payload", "def write_payload(self, raw, tags, writer, entry): return {'a': {1}}", "not JSON"),
    "rows whose result is a number": (
        "payload_rows", "def payload_rows(self, facts): return [CheckRow('a', 1, 'b', 'c')]", "CheckRow with passed"),
    "a file outside": (
        "read_model", "def read_model(self, model, entry): return ModelSource({'../x': model}, {}, (), None)",
        "no path inside the component"),
    "a file that is none": (
        "read_model", "def read_model(self, model, entry): return ModelSource({'x': model / 'none'}, {}, (), None)",
        "which is no file"),
    "a requirement that is none": (
        "read_model", "def read_model(self, model, entry): return ModelSource({}, {}, ('a b c',), None)",
        "no requirement"),
    "a conversion that is none": (
        "read_model", "def read_model(self, model, entry): return ModelSource({}, {}, (), None, conversion=7)",
        "conversion: 7"),
    "a comparison without rows": (
        "compare", "def compare(self, *_): return Comparison((1,), ())", "returned a row: 1"),
    "a comparison whose table has rows of differing keys": (
        "compare", "def compare(self, *_): return Comparison((), ({'a': 1}, {'b': 1}))", "differing keys"),
    "other metrics": (
        "score", "def score(self, *_): return Score({'part': 1.0}, ())", "metrics part; it should .*metrics share"),
    "a metric that is text": ("score", "def score(self, *_): return Score({'share': 'much'}, ())", "metric share"),
    "a row of a score that is text": (
        "score", "def score(self, *_): return Score({'share': 1.0}, ('sound',))", r"returned a row: 'sound' \(str\)"),
    "a picture that is a path": (
        "score", "def score(self, *_): return Score({'share': 1.0}, (), pictures={'curve': 'x.png'})",
        r"returned the picture 'curve': 'x.png' \(str\)"),
    "no picture": ("results_picture", "def results_picture(self, *_): return b'GIF89a'", "no PNG"),
}  # fmt: skip


CONVERTED = {
    "nothing": ("None", "a Converted"),
    "a record that is no JSON": ("Converted(source, {'a': {1}}, {}, {})", "not JSON"),
    "an original that does not exist": ("Converted(source, {}, {'m': work / 'none'}, {})", "which does not exist"),
    "an original with a path as its name": ("Converted(source, {}, {'../m': work}, {})", "no name of letters"),
    "a file that does not exist": (
        "Converted(ModelSource({'m': work / 'none'}, {}, (), None), {}, {}, {})", "which is no file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONVERTED)
def test_what_a_conversion_gives_against_the_interface_is_refused(kind: str, site: Path, tmp_path: Path) -> None:
    text, words = CONVERTED[kind]
    plugin = pump(
        site,
        f"""
        def read_model(self, model, entry):
            class Own(Conversion):
                def convert(self, source, component, jobs, work): return {text}
            return ModelSource({{}}, {{}}, (), None, conversion=Own())
        """,
    )
    source = plugin.read_model(tmp_path, entry())
    with pytest.raises(PluginError, match=TITLE + rf": conversion\.convert returned .*{words}"):
        plugin.convert(source, None, tmp_path)


def test_a_wrong_line_among_many_names_plug_in_and_method(site: Path, tmp_path: Path) -> None:
    plugin = pump(
        site,
        """
        def write_payload(self, raw, tags, writer, entry):
            writer.add({'x': 1.0})
            writer.add_lines(['{"x": 1.0}', '{"x": 1.0'])
        """,
    )
    with pytest.raises(PluginError, match=TITLE + r": write_payload gives what it must not: record 1 or one after it"):
        CALLS["write_payload"](plugin, tmp_path)


def test_the_doctor_shows_each_plug_in_with_its_distribution_or_its_fault(site: Path, tmp_path: Path) -> None:
    install(site, "plant-pumps", "pump", "plant_pumps")
    install(site, "plant-valves", "valve", "plant_valves", source="import no_such_library")
    install(site, "plant-saws", "saw", "plant_saws", methods="interface_version = 2")
    settings = load_settings(configured(tmp_path, "state_identifier", "saw"))
    shown = {finding.name: finding for finding in _model_types(settings)}
    assert all(finding.section == "model types" for finding in shown.values())
    assert (shown["pump"].holds, shown["pump"].vital) == (True, False)
    assert shown["pump"].message == (
        "plant-pumps 1.2, plant_pumps:PLUGIN, interface version 1, not used by edgepack.yaml"
    )
    assert shown["state_identifier"].message.endswith(":MODEL_TYPE, interface version 1")
    assert (shown["valve"].holds, shown["valve"].vital) == (False, False)
    assert "No module named 'no_such_library'" in shown["valve"].message
    assert "[plant-valves 1.2, plant_valves:PLUGIN]" in shown["valve"].message
    assert (shown["saw"].holds, shown["saw"].vital) == (False, True)  # no run of it works
    assert "interface version 2" in shown["saw"].message


@pytest.mark.parametrize("kind", WRONG)
def test_answers_against_the_interface_are_refused(kind: str, site: Path, tmp_path: Path) -> None:
    method, text, words = WRONG[kind]
    with pytest.raises(PluginError, match=TITLE + f": {method} .*{words}"):
        CALLS[method](pump(site, text), tmp_path)


def test_loading_the_code_location_imports_nothing_heavy_and_no_plug_in_that_is_not_configured(
    site: Path, tmp_path: Path
) -> None:
    install(site, "plant-pumps", "pump", "plant_pumps")
    file = configured(tmp_path, "state_identifier")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from pathlib import Path\nfrom edgepack_assets.definitions import build_defs\n"
        f"build_defs(Path({str(file)!r}))\n"
        "heavy = {'pandas', 'sklearn', 'matplotlib', 'simaticai', 'PIL', 'plant_pumps'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    env = {"EDGEPACK_CONFIG": str(file), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert found.stdout.strip() == ""
