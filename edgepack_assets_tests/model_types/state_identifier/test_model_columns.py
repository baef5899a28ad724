"""Columns of a state identifier's model: names decide, positions only where there are none.

What the component answers is held against `model.predict` of a frame that has the model's own columns in the model's
own order, which is made here from the recording by name.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

import edgepack_assets.model_types.state_identifier as package
from edgepack_assets.model_types.interface import gzip_writer
from edgepack_assets.model_types.state_identifier.inspection import Inspection
from edgepack_assets.model_types.state_identifier.model_type import StateIdentifier, _columns
from edgepack_assets.model_types.state_identifier.settings import read_model_columns
from edgepack_assets_tests.model_types.model_folder.test_saved_environment import entry

_FOLDER = Path(package.__file__).parent
_PHASES = ("ph1", "ph2", "ph3")
_SIZE, _STEP = 8, 5


class Weighted(TransformerMixin, BaseEstimator):
    """Windows whose features weigh the columns differently: every change of order changes every answer."""

    def __init__(self, window_size=_SIZE, window_step=_STEP):
        self.window_size, self.window_step = window_size, window_step

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        X = np.asarray(X, dtype=float)
        starts = range(0, len(X) - self.window_size + 1, self.window_step)
        return np.array([X[at : at + self.window_size].mean(axis=0) * [1.0, 0.1, 0.01] for at in starts])


class FrameWindows(Weighted):
    """As Weighted, with features that have names."""

    def transform(self, X):
        return pd.DataFrame(super().transform(X), columns=["first", "second", "third"])


class ByName(TransformerMixin, BaseEstimator):
    """Takes its columns by name and keeps no names of what it was fitted on."""

    def __init__(self, names=_PHASES):
        self.names = names

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X[list(self.names)].to_numpy()


class Through(TransformerMixin, BaseEstimator):
    """Gives on what it gets: what comes after it sees the names."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


class NamesWhereThereAreSome(TransformerMixin, BaseEstimator):
    """Sorts a frame's columns and takes an array as it is: one and the other give different features."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X[["ph2", "ph3", "ph1"]].to_numpy() if hasattr(X, "columns") else X


class DropsNames(TransformerMixin, BaseEstimator):
    """Holds a fitted scaler and gives it an array, though it was fitted on a frame."""

    def fit(self, X, y=None):
        self.scaler_ = MinMaxScaler().fit(X)
        return self

    def transform(self, X):
        return self.scaler_.transform(np.asarray(X))


def recording(rows=200, seed=0):
    random = np.random.RandomState(seed)
    state = random.permutation(np.repeat(np.arange(3), rows // 3 + 1))[:rows].repeat(4)[:rows]
    other = random.permutation(state)
    data = np.column_stack([100 + 400 * other, 300 + 10 * state, 100 + 400 * state]) + random.uniform(0, 5, (rows, 3))
    return pd.DataFrame(data, columns=_PHASES)


def model_on(frame, *before, windows=None, clustering=None):
    preprocessing = Pipeline(
        [*((f"s{i}", step) for i, step in enumerate(before)), ("windowing", windows or Weighted())]
    )
    clustering = clustering or KMeans(3, n_init=3, random_state=0)
    return Pipeline([("preprocessing", preprocessing), ("clustering", clustering)]).fit(frame)


def inspected(child_tasks, model, monkeypatch, columns=None, signature=()):
    """What inspect_model tells, with `columns` of edgepack.yaml, held to its shape as the host does."""
    configured = {**_columns(read_model_columns(columns)), **({"signature": list(signature)} if signature else {})}
    monkeypatch.setattr(
        child_tasks.inference,
        "load_model",
        lambda _: (model, {"file": "model.joblib", "format": "joblib", **configured}),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        told = child_tasks.inspect_model({})
    return Inspection.model_validate(told).model_dump(exclude_unset=True)["component"]


def answers(child_tasks, model, component, frame):
    identifier = child_tasks.inference.StateIdentifier(model, component)
    found = [identifier.process(record) for record in frame[list(_PHASES)].to_dict(orient="records")]
    return [answer["prediction"] for answer in found if answer is not None]


def told_by(excinfo):
    assert type(excinfo.value).is_for_user
    return str(excinfo.value)


ORDERS = [_PHASES, ("ph3", "ph2", "ph1"), ("ph2", "ph3", "ph1")]
BEFORE = {
    "scaler": lambda: [MinMaxScaler()],
    "two steps": lambda: [SimpleImputer(), StandardScaler()],
    "pandas out": lambda: [StandardScaler().set_output(transform="pandas"), MinMaxScaler()],
    "column transformer by name": lambda: [
        ColumnTransformer([("a", MinMaxScaler(), ["ph2"]), ("b", StandardScaler(), ["ph1", "ph3"])])
    ],
    "column transformer by position": lambda: [
        ColumnTransformer([("a", MinMaxScaler(), [1]), ("b", StandardScaler(), [0, 2])])
    ],
    "union": lambda: [FeatureUnion([("all", MinMaxScaler())])],
    "nested": lambda: [Pipeline([("inner", Pipeline([("scale", MinMaxScaler())]))])],
    "later step": lambda: [Through(), MinMaxScaler()],
    "passthrough first": lambda: ["passthrough", MinMaxScaler()],
    "by name in a union": lambda: [FeatureUnion([("one", Pipeline([("n", ByName()), ("s", MinMaxScaler())]))])],
    "function": lambda: [FunctionTransformer(lambda X: X / 1000.0)],
}


@pytest.mark.parametrize("kind", BEFORE)
@pytest.mark.parametrize("order", ORDERS, ids="".join)
def test_a_model_gets_its_own_columns_in_its_own_order(child_tasks, monkeypatch, kind, order):
    frame = recording()
    model = model_on(frame[list(order)], *BEFORE[kind]())
    component = inspected(child_tasks, model, monkeypatch)
    fresh = recording(seed=5)
    expected = model.predict(fresh[list(order)]).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert answers(child_tasks, model, component, fresh) == expected
    assert component["input"] == "frame"


@settings(max_examples=30)
@given(
    order=st.permutations(_PHASES),
    names=st.lists(st.text("abcXYZ 12ä", min_size=1, max_size=6), min_size=3, max_size=3, unique=True),
    seed=st.integers(0, 1000),
)
def test_a_mapping_names_each_column_whatever_the_order(child_tasks, order, names, seed):
    frame = recording(80, seed)
    renamed = frame[list(order)].set_axis(names, axis=1)
    model = model_on(renamed, StandardScaler())
    pairs = dict(sorted(zip(names, order, strict=True)))  # the mapping's own order does not matter
    with pytest.MonkeyPatch.context() as monkeypatch:
        component = inspected(child_tasks, model, monkeypatch, pairs)
    assert (component["columns"], component["names"]) == (list(order), names)
    assert answers(child_tasks, model, component, frame) == model.predict(renamed).tolist()


@pytest.mark.parametrize(
    ("names", "mapping", "words"),
    [
        (["L1", "L2", "L3"], None, ["L1, L2, L3", "ph1, ph2, ph3", '"L2": ph2', "`columns`"]),
        (["PH1", "PH2", "PH3"], None, ["PH1, PH2, PH3", "ph1, ph2, ph3"]),
        (["L1", "L2", "L3"], {"L1": "ph1", "L2": "ph2", "L4": "ph3"}, ["L1, L2, L3", "L1, L2, L4"]),
        (["ph1", "ph2", "ph3", "ph4"], None, ["ph1, ph2, ph3, ph4", "three different names"]),
        (["ph1", "ph1", "ph2"], None, ["ph1, ph1, ph2", "three different names"]),
        (["ph3", "ph2", "ph1"], ["ph3", "ph2", "ph1"], ["ph3, ph2, ph1", "without names"]),
    ],
)
def test_other_names_are_refused_and_both_sides_named(child_tasks, monkeypatch, names, mapping, words):
    data = np.column_stack([recording().to_numpy(), np.ones(200)])[:, : len(names)]
    scaler = StandardScaler().fit(data)
    scaler.feature_names_in_ = np.array(names, dtype=object)  # today's scikit-learn refuses the same name twice
    model = model_on(recording().to_numpy(), StandardScaler())
    model.named_steps["preprocessing"].steps[0] = ("s0", scaler)
    with pytest.raises(ValueError) as excinfo:
        inspected(child_tasks, model, monkeypatch, mapping)
    assert all(word in told_by(excinfo) for word in words)


def test_a_mapping_may_swap_the_payloads_own_names(child_tasks, monkeypatch):
    frame = recording()
    model = model_on(frame, MinMaxScaler())
    swapped = {"ph1": "ph3", "ph2": "ph2", "ph3": "ph1"}
    component = inspected(child_tasks, model, monkeypatch, swapped)
    expected = model.predict(frame[["ph3", "ph2", "ph1"]].set_axis(_PHASES, axis=1)).tolist()
    assert answers(child_tasks, model, component, frame) == expected


@pytest.mark.parametrize("order", [None, ["ph3", "ph1", "ph2"]])
@pytest.mark.parametrize("first", [MinMaxScaler, Through])
def test_a_model_without_names_gets_an_array(child_tasks, monkeypatch, order, first):
    frame = recording()
    model = model_on(frame[order or list(_PHASES)].to_numpy(), first())
    component = inspected(child_tasks, model, monkeypatch, order)
    assert component == {"input": "array", "columns": order or list(_PHASES)}
    expected = model.predict(frame[order or list(_PHASES)].to_numpy()).tolist()
    assert answers(child_tasks, model, component, frame) == expected


@pytest.mark.parametrize("order", ORDERS, ids="".join)
@pytest.mark.parametrize("names", [None, {"ph1": "L1", "ph2": "L2", "ph3": "L3"}], ids=["ours", "theirs"])
@pytest.mark.parametrize("kind", ["code of its own", "scaler on an array"])
def test_a_model_that_tells_no_names_gets_its_columns_as_its_signature_names_them(
    child_tasks, monkeypatch, kind, names, order
):
    frame = recording()
    theirs = frame[list(order)].rename(columns=names or {})
    first, fitted_on = (Through(), theirs) if kind == "code of its own" else (MinMaxScaler(), theirs.to_numpy())
    model = model_on(fitted_on, first)
    mapping = {name: phase for phase, name in names.items()} if names else None
    component = inspected(child_tasks, model, monkeypatch, mapping, signature=list(theirs.columns))
    assert tuple(component["columns"]) == order
    with warnings.catch_warnings(action="ignore"):
        assert answers(child_tasks, model, component, frame) == model.predict(fitted_on).tolist()


def test_other_names_in_the_signature_are_refused_until_the_configuration_says_which_is_which(child_tasks, monkeypatch):
    frame = recording()
    model = model_on(frame[["ph3", "ph1", "ph2"]].to_numpy(), MinMaxScaler())
    with pytest.raises(ValueError, match=r"signature in MLmodel names the columns c, a, b.*ph1, ph2, ph3") as excinfo:
        inspected(child_tasks, model, monkeypatch, signature=["c", "a", "b"])
    assert "`columns`" in told_by(excinfo)
    listed = inspected(child_tasks, model, monkeypatch, ["ph3", "ph1", "ph2"], signature=["c", "a", "b"])
    assert answers(child_tasks, model, listed, frame) == model.predict(frame[["ph3", "ph1", "ph2"]].to_numpy()).tolist()


@pytest.mark.parametrize(("names", "given"), [(["ph3", "ph1", "ph2"], True), (["L1", "x"], True), (["0", "1"], False)])
def test_the_signature_of_an_mlflow_folder_reaches_the_inspection(tmp_path, names, given):
    (tmp_path / "model.pkl").write_bytes(b"x")
    (tmp_path / "requirements.txt").write_text("scikit-learn\n")
    inputs = json.dumps([{"type": "double", "name": name} for name in names])
    (tmp_path / "MLmodel").write_text(json.dumps({"signature": {"inputs": inputs}}))
    told = StateIdentifier().read_model(tmp_path, entry()).model
    assert told.get("signature") == (names if given else None)
    bare = StateIdentifier().read_model(tmp_path / "model.pkl", entry(requirements=["scikit-learn"])).model
    assert "signature" not in bare


def test_names_of_the_model_itself_come_before_those_of_its_signature(child_tasks, monkeypatch):
    frame = recording()[["ph2", "ph3", "ph1"]]
    model = model_on(frame, MinMaxScaler())
    component = inspected(child_tasks, model, monkeypatch, signature=["a", "b", "c"])
    assert answers(child_tasks, model, component, recording()) == model.predict(frame).tolist()


def test_columns_labelled_with_numbers_are_positions(child_tasks, monkeypatch):
    frame = recording()
    model = model_on(frame.set_axis([0, 1, 2], axis=1), MinMaxScaler())
    component = inspected(child_tasks, model, monkeypatch)
    assert component["input"] == "array"
    assert answers(child_tasks, model, component, frame) == model.predict(frame.to_numpy()).tolist()


@pytest.mark.parametrize(
    ("names", "mapping"), [(_PHASES, None), (("L3", "L1", "L2"), {"L1": "ph1", "L2": "ph2", "L3": "ph3"})]
)
def test_code_that_asks_for_names_gets_them(child_tasks, monkeypatch, names, mapping):
    frame = recording()
    theirs = frame.rename(columns={column: name for name, column in (mapping or {}).items()})
    model = model_on(theirs, ByName(names))
    component = inspected(child_tasks, model, monkeypatch, mapping)
    assert answers(child_tasks, model, component, frame) == model.predict(theirs).tolist()


def test_code_that_asks_for_unknown_names_is_refused_with_the_setting(child_tasks, monkeypatch):
    frame = recording().set_axis(["L1", "L2", "L3"], axis=1)
    with pytest.raises(ValueError, match="KeyError") as excinfo:
        inspected(child_tasks, model_on(frame, ByName(("L1", "L2", "L3"))), monkeypatch)
    assert "`columns`" in told_by(excinfo)


def test_code_that_treats_a_frame_and_an_array_differently_is_asked_about(child_tasks, monkeypatch):
    frame = recording()
    model = model_on(frame, NamesWhereThereAreSome())
    with pytest.raises(ValueError, match="both an array and a frame") as excinfo:
        inspected(child_tasks, model, monkeypatch)
    assert "`columns`" in told_by(excinfo)
    as_frame = inspected(child_tasks, model, monkeypatch, {name: name for name in _PHASES})
    as_array = inspected(child_tasks, model, monkeypatch, list(_PHASES))
    assert answers(child_tasks, model, as_frame, frame) == model.predict(frame).tolist()
    assert answers(child_tasks, model, as_array, frame) == model.predict(frame.to_numpy()).tolist()
    assert model.predict(frame).tolist() != model.predict(frame.to_numpy()).tolist()


def test_a_step_that_drops_the_names_another_was_fitted_with_is_refused(child_tasks, monkeypatch):
    model = model_on(recording()[["ph3", "ph2", "ph1"]], DropsNames())
    with pytest.raises(ValueError, match="does not have valid feature names") as excinfo:
        inspected(child_tasks, model, monkeypatch)
    told_by(excinfo)


def test_a_frame_without_pandas_is_refused_and_never_an_array(child_tasks, monkeypatch):
    model = model_on(recording(), MinMaxScaler())
    monkeypatch.setattr(child_tasks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="takes pandas") as excinfo:
        inspected(child_tasks, model, monkeypatch)
    assert "`requirements`" in told_by(excinfo)


def test_code_that_its_signature_gives_names_is_not_given_an_array_because_pandas_is_missing(child_tasks, monkeypatch):
    frame = recording()
    model = model_on(frame[["ph3", "ph2", "ph1"]], NamesWhereThereAreSome())
    monkeypatch.setattr(child_tasks.importlib.util, "find_spec", lambda name: None)
    for signature in (["ph3", "ph2", "ph1"], list(_PHASES)):
        with pytest.raises(ValueError, match="takes pandas") as excinfo:
            inspected(child_tasks, model, monkeypatch, signature=signature)
        assert f"columns: [{', '.join(signature)}]" in told_by(excinfo)
    listed = inspected(child_tasks, model, monkeypatch, ["ph3", "ph2", "ph1"], signature=["ph3", "ph2", "ph1"])
    assert listed == {"input": "array", "columns": ["ph3", "ph2", "ph1"]}
    scaler = model_on(frame[["ph3", "ph2", "ph1"]].to_numpy(), MinMaxScaler())
    assert inspected(child_tasks, scaler, monkeypatch, signature=["ph3", "ph2", "ph1"])["input"] == "array"


def test_names_of_features_are_kept_for_the_clustering(child_tasks, monkeypatch):
    frame = recording()
    model = model_on(frame[["ph2", "ph3", "ph1"]], MinMaxScaler(), windows=FrameWindows())
    assert model.named_steps["clustering"].feature_names_in_.tolist() == ["first", "second", "third"]
    component = inspected(child_tasks, model, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert answers(child_tasks, model, component, frame) == model.predict(frame[["ph2", "ph3", "ph1"]]).tolist()


def test_names_that_a_step_made_up_do_not_make_an_array_a_frame(child_tasks, monkeypatch):
    data = recording().to_numpy()
    model = model_on(data, PCA(3).set_output(transform="pandas"), MinMaxScaler())
    component = inspected(child_tasks, model, monkeypatch)
    assert component["input"] == "array"
    assert answers(child_tasks, model, component, recording()) == model.predict(data).tolist()


@pytest.mark.parametrize("where", [0, 1])
def test_a_further_step_of_the_whole_is_refused_since_the_component_does_not_run_it(child_tasks, monkeypatch, where):
    model = model_on(recording(), MinMaxScaler())
    model.steps.insert(where, ("extra", FunctionTransformer(lambda X: X * 2)))
    with pytest.raises(ValueError, match="extra") as excinfo:
        inspected(child_tasks, model, monkeypatch)
    told_by(excinfo)


class TestPrepare:
    def prepare(self, fixtures, model, model_json, frame):
        child_tasks, monkeypatch, tmp_path = fixtures
        with gzip_writer(tmp_path / "records") as stream:
            for record in frame[list(_PHASES)].to_json(orient="records", lines=True).splitlines():
                stream.write(record.encode() + b"\n")
        monkeypatch.setattr(child_tasks.inference, "load_model", lambda _: (model, model_json))
        paths = {name: str(tmp_path / f"{name}.npy") for name in ("features", "windows")}
        child_tasks.prepare({"records": str(tmp_path / "records"), "count": len(frame), **paths})
        return np.load(paths["features"]), np.load(paths["windows"])[:, 1].tolist()

    @pytest.mark.parametrize("windows", [Weighted, FrameWindows])
    def test_is_what_the_model_says_of_its_own_columns(self, child_tasks, tmp_path, monkeypatch, windows):
        frame = recording()
        theirs = frame[["ph3", "ph1", "ph2"]]
        model = model_on(theirs, MinMaxScaler(), windows=windows())
        component = inspected(child_tasks, model, monkeypatch)
        features, states = self.prepare((child_tasks, monkeypatch, tmp_path), model, component, frame)
        assert states == model.predict(theirs).tolist()
        np.testing.assert_allclose(features, model.named_steps["preprocessing"].transform(theirs))

    def test_a_package_of_before_is_read_if_it_gives_the_columns_in_order(self, child_tasks, tmp_path, monkeypatch):
        frame = recording()
        for data, kind in ((frame, "frame"), (frame.to_numpy(), "array")):
            model = model_on(data, MinMaxScaler())
            _, states = self.prepare((child_tasks, monkeypatch, tmp_path), model, {"input": kind}, frame)
            assert states == model.predict(data).tolist()

    def test_a_package_of_before_that_gives_other_columns_is_refused(self, child_tasks, tmp_path, monkeypatch):
        model = model_on(recording()[["ph3", "ph2", "ph1"]], MinMaxScaler())
        with pytest.raises(ValueError, match="materialize config_package again"):
            self.prepare((child_tasks, monkeypatch, tmp_path), model, {"input": "array"}, recording())


@pytest.mark.parametrize(
    "component",
    [
        {"input": "frame", "columns": ["ph1", "ph2", "ph2"], "names": ["a", "b", "c"]},
        {"input": "frame", "columns": ["ph1", "ph2", "ph3"], "names": ["a", "b", "b"]},
        {"input": "frame", "columns": ["ph1", "ph2", "ph3"]},
        {"input": "array", "columns": ["ph1", "ph2", "ph3"], "names": ["a", "b", "c"]},
        {"input": "frame", "columns": ["ph1", "ph2", "ph3"], "names": ["a", "b", "c\x1b[2J"]},
        {"input": "array", "columns": ["ph1", "ph2"]},
    ],
)
def test_columns_that_a_child_tells_are_held_to_the_payloads(component):
    good = {
        "window_size": 1, "window_step": 1, "steps": [], "features": 1, "feature_names": ["a"], "clusters": 1,
        "clustering": "KMeans", "inertia": 0.0, "fills_missing_values": False,
    }  # fmt: skip
    Inspection.model_validate({**good, "component": {"input": "array", "columns": ["ph3", "ph2", "ph1"]}})
    with pytest.raises(ValidationError):
        Inspection.model_validate({**good, "component": component})


@pytest.mark.parametrize(
    "value", [{"a": "ph1", "b": "ph2"}, {"a": "ph1", "b": "ph2", "c": "ph2"}, {1: "ph1", "b": "ph2", "c": "ph3"},
              ["ph1", "ph2"], ["ph1", "ph2", "ph4"], "ph1", 3, {"": "ph1", "b": "ph2", "c": "ph3"}],
)  # fmt: skip
def test_columns_in_the_configuration_name_each_phase_once(value):
    with pytest.raises(ValueError, match=r"ph1|text"):
        read_model_columns(value)
