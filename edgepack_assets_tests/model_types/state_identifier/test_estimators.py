"""Models whose last step is something else than a KMeans, with channels and windows of their own: what the component
answers is what `model.predict` says of the whole recording, and what cannot be answered so is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import (
    DBSCAN,
    HDBSCAN,
    OPTICS,
    AffinityPropagation,
    AgglomerativeClustering,
    Birch,
    BisectingKMeans,
    KMeans,
    MeanShift,
    MiniBatchKMeans,
    SpectralClustering,
)
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import edgepack_assets.model_types.state_identifier as package
from edgepack_assets.model_types.interface import gzip_writer
from edgepack_assets.model_types.state_identifier.inspection import Inspection
from edgepack_assets.model_types.state_identifier.model_type import _recorded
from edgepack_assets.model_types.state_identifier.settings import StateIdentifierSettings
from edgepack_assets_tests.model_types.state_identifier import models

SIZE, STEP = 12, 5
NAMES = {0: "idle", 1: "run", 2: "heavy"}


class SecondsWindows(models.Windows):
    """Windows whose lengths are told in seconds, at ten records a second."""

    def __init__(self, window_seconds, window_step_seconds):
        self.window_seconds, self.window_step_seconds = window_seconds, window_step_seconds

    def transform(self, X):
        size, step = round(self.window_seconds * 10), round(self.window_step_seconds * 10)
        return models.Windows(size, step).transform(X)


class SilentWindows(models.Windows):
    """Windows whose step tells nothing."""

    def __init__(self, lengths):
        self.lengths = lengths

    def transform(self, X):
        return models.Windows(*self.lengths).transform(X)


def recording(rows: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    random = np.random.RandomState(seed)
    level = random.choice([100.0, 1000.0, 4000.0], size=rows // 40 + 1).repeat(40)[:rows]
    return level[:, None] * random.uniform(0.9, 1.1, size=(rows, channels))


def build(estimator, name="clustering", labels=None, channels=3, windowing=None) -> Pipeline:
    """A model with that last step, fitted; `labels` turns the level of each window (0, 1, 2) into what it learns."""
    preprocessing = Pipeline(
        [
            ("fillmissing", models.Fill()),
            ("windowing", windowing or models.Windows(SIZE, STEP)),
            ("featurization", models.Features()),
            ("scaling", MinMaxScaler()),
        ]
    )
    features = preprocessing.fit_transform(recording(900, channels))
    levels = np.digitize(features[:, 0], [0.15, 0.6])
    estimator.fit(features, None if labels is None else labels(levels))
    return Pipeline([("preprocessing", preprocessing), (name, estimator)])


def saved(model, folder: Path, settings: StateIdentifierSettings | None = None) -> None:
    """The component's folder as it is when the model is inspected."""
    joblib.dump(model, folder / "model.pkl")
    own = _recorded(settings or StateIdentifierSettings())
    (folder / "model.json").write_text(json.dumps({"file": "model.pkl", "format": "joblib", **own}))


@pytest.fixture
def inspect(child_tasks, tmp_path, monkeypatch):
    """Inspects a model as config_package does, and leaves the component as it ships; the inspection as it is kept."""
    monkeypatch.chdir(tmp_path)

    def run(model, settings=None):
        saved(model, tmp_path, settings)
        told = json.loads(json.dumps(child_tasks.inspect_model({})))
        inspection = Inspection.model_validate(told).model_dump(exclude_unset=True)
        shipped = {**json.loads((tmp_path / "model.json").read_text()), **inspection["component"]}
        (tmp_path / "model.json").write_text(json.dumps(shipped))
        return inspection

    return run


def answered(child_tasks, rows: np.ndarray) -> list[dict]:
    """Answers of the component in the working directory, as it was shipped."""
    model, settings = child_tasks.inference.load_model(Path.cwd())
    identifier = child_tasks._identifier(model, settings)
    names = child_tasks.inference.COLUMNS
    records = ({n: None if np.isnan(v) else float(v) for n, v in zip(names, row, strict=True)} for row in rows)
    return [answer for answer in map(identifier.process, records) if answer is not None]


def prepared(child_tasks, rows: np.ndarray, folder: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """What `prepare` leaves for these rows: features, windows, report."""
    with gzip_writer(folder / "records") as stream:
        for row in rows:
            names = child_tasks.inference.COLUMNS
            record = {n: None if np.isnan(v) else float(v) for n, v in zip(names, row, strict=True)}
            stream.write(json.dumps(record).encode() + b"\n")
    paths = {name: str(folder / f"{name}.npy") for name in ("features", "windows")}
    report = child_tasks.prepare({"records": str(folder / "records"), "count": len(rows), **paths})
    return np.load(paths["features"]), np.load(paths["windows"]), report


ESTIMATORS = {
    "mixture": GaussianMixture(3, random_state=0),
    "tied": GaussianMixture(3, covariance_type="tied", random_state=0),
    "bayesian": BayesianGaussianMixture(n_components=4, random_state=0),
    "birch": Birch(n_clusters=3, threshold=0.1),
    "birch_without_end": Birch(n_clusters=None, threshold=0.2),
    "bisecting": BisectingKMeans(3, random_state=0),
    "mini_batch": MiniBatchKMeans(3, n_init=3, random_state=0),
    "mean_shift": MeanShift(bandwidth=0.4),
    "affinity": AffinityPropagation(damping=0.9, max_iter=1000, random_state=0),
    "nested": make_pipeline(StandardScaler(), KMeans(3, n_init=3, random_state=0)),
    "outliers": IsolationForest(n_estimators=10, random_state=0),
}


@pytest.mark.parametrize("kind", sorted(ESTIMATORS))
def test_answers_are_what_the_model_predicts_of_the_recording(child_tasks, inspect, tmp_path, kind):
    model = build(ESTIMATORS[kind])
    inspection = inspect(model)
    rows = recording(400, seed=5)
    rows[7, 1] = rows[100:104, 0] = np.nan
    expected = model.predict(rows).tolist()
    answers = answered(child_tasks, rows)
    assert [answer["prediction"] for answer in answers] == expected
    features, windows, report = prepared(child_tasks, rows, tmp_path)
    assert windows[:, 1].tolist() == expected
    spec = package.MODEL_TYPE.component_spec(inspection)
    assert all(answer.keys() == {v.name for v in (*spec.outputs, *spec.metrics)} for answer in answers)
    has_inertia = hasattr(ESTIMATORS[kind], "inertia_")
    assert ("inertia" in inspection) == ("inertia" in answers[0]) == has_inertia
    assert set(expected) <= set(inspection.get("states") or range(inspection["clusters"]))
    # inference.py alone ships with what it could run before
    folders = package.MODEL_TYPE.component_folders(None, inspection)
    assert [folder.name for folder in folders] == ["component", *([] if has_inertia else ["component_general"])]
    assert report["features"] + (1 if "mixture" in inspection else 0) == features.shape[1]


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_bic_and_log_likelihood_are_the_models_own(child_tasks, inspect, tmp_path, covariance):
    mixture = GaussianMixture(3, covariance_type=covariance, random_state=0)
    model = build(mixture)
    inspection = inspect(model)
    assert inspection["mixture"]["free_parameters"] == mixture._n_parameters()
    rows = recording(600, seed=3)
    features, _, _ = prepared(child_tasks, rows, tmp_path)
    own = model.named_steps["preprocessing"].transform(rows)
    np.testing.assert_allclose(features[:, -1], mixture.score_samples(own))
    fit = package.scoring._fit(features[:, -1], inspection["mixture"]["free_parameters"])
    assert fit["bic"] == pytest.approx(mixture.bic(own))
    assert fit["mean_log_likelihood"] == pytest.approx(mixture.score(own))


def half(levels):
    return (levels + 0.5).astype(str)


LABELS = {
    "tens": (lambda levels: levels * 10, [0, 10, 20]),
    "names": (lambda levels: np.array([NAMES[level] for level in levels]), [0, 1, 2]),
    "digits": (lambda levels: levels.astype(str), [0, 1, 2]),
    "booleans": (lambda levels: levels > 0, [0, 1]),
    "floats": (lambda levels: levels.astype(float) - 1, [-1, 0, 1]),
    "halves": (half, [0, 1, 2]),
}


@pytest.mark.parametrize("kind", sorted(LABELS))
@pytest.mark.parametrize("classifier", [RandomForestClassifier(5, random_state=0), LogisticRegression()])
def test_a_classifier_answers_its_classes(child_tasks, inspect, tmp_path, classifier, kind):
    labels, states = LABELS[kind]
    model = build(classifier, name="classifier", labels=labels)
    inspection = inspect(model)
    rows = recording(300, seed=2)
    predicted = model.predict(rows)
    answers = answered(child_tasks, rows)
    known = inspection.get("states") or range(inspection["clusters"])
    assert list(known) == states
    names = dict(zip(known, inspection["classes"], strict=True))
    as_text = str if predicted.dtype.kind == "U" else lambda value: str(int(value))
    assert [names[answer["prediction"]] for answer in answers] == list(map(as_text, predicted))
    if predicted.dtype.kind == "U":
        assert [answer["state_name"] for answer in answers] == predicted.tolist()
    _, windows, _ = prepared(child_tasks, rows, tmp_path)
    assert windows[:, 1].tolist() == [answer["prediction"] for answer in answers]


UNFIT = {
    "dbscan": (DBSCAN(eps=0.3), "DBSCAN.*has no predict: it finds clusters among the windows that it was fitted on"),
    "optics": (OPTICS(), "OPTICS.*cannot say to which a new window belongs"),
    "hdbscan": (HDBSCAN(copy=True), "HDBSCAN.*has no predict"),
    "agglomerative": (AgglomerativeClustering(3), "AgglomerativeClustering.*has no predict.*train a classifier"),
    "spectral": (SpectralClustering(2, random_state=0), "SpectralClustering.*has no predict"),
    "hidden": (make_pipeline(StandardScaler(), DBSCAN()), "has no predict"),
    "regressor": (LinearRegression(), "LinearRegression.*regressor: it predicts numbers"),
    "several": (MultiOutputClassifier(KNeighborsClassifier()), "several answers to a window: train it on one label"),
}


@pytest.mark.parametrize("kind", sorted(UNFIT))
def test_what_cannot_answer_new_windows_is_refused_with_that_reason(child_tasks, inspect, kind):
    estimator, words = UNFIT[kind]
    labels = (lambda levels: np.column_stack([levels, levels])) if kind == "several" else lambda levels: levels
    with pytest.raises(child_tasks.UnfitModelError, match=words):
        inspect(build(estimator, labels=labels))


def test_an_estimator_without_training_and_one_that_did_not_converge_are_refused(child_tasks, inspect):
    model = build(KMeans(3, n_init=1))
    model.steps[-1] = ("clustering", GaussianMixture(3))
    with pytest.raises(child_tasks.UnfitModelError, match=r"'clustering' \(GaussianMixture\) is not fitted"):
        inspect(model)
    with pytest.warns(match="did not converge"):
        model = build(AffinityPropagation(damping=0.99, max_iter=1, random_state=0))
    with pytest.raises(child_tasks.UnfitModelError, match=r"did not converge in its.*another damping"):
        inspect(model)


class Fractions(ClusterMixin, BaseEstimator):
    """A project's own estimator, which answers with numbers that are no states."""

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y=None):
        return self

    def predict(self, X):
        return np.full(len(X), 0.5)


def test_a_projects_own_estimator_is_looked_at_by_what_it_predicts(child_tasks, inspect):
    model = build(KMeans(3, n_init=1))
    model.steps[-1] = ("own", Fractions())
    with pytest.raises(child_tasks.UnfitModelError, match="numbers with a fraction"):
        inspect(model)
    Fractions.predict = lambda self, X: np.where(X[:, 0] > 0.5, 7, -1)
    inspection = inspect(model)
    assert inspection["clusters"] is None
    rows = recording(300, seed=1)
    assert [answer["prediction"] for answer in answered(child_tasks, rows)] == model.predict(rows).tolist()


@pytest.mark.parametrize(("count", "kind"), [(1, "mixture"), (2, "bisecting"), (7, "birch")])
def test_other_channels(child_tasks, inspect, tmp_path, count, kind):
    names = [f"vibration-{at}" for at in range(count)]
    settings = StateIdentifierSettings.model_validate({"channels": names, "sampling_period_ms": 20})
    model = build(ESTIMATORS[kind], channels=count)
    inspection = inspect(model, settings)
    rows = recording(400, count, seed=9)
    rows[50, 0] = np.nan
    assert [answer["prediction"] for answer in answered(child_tasks, rows)] == model.predict(rows).tolist()
    _, windows, _ = prepared(child_tasks, rows, tmp_path)
    assert windows[:, 1].tolist() == model.predict(rows).tolist()
    spec = package.MODEL_TYPE.component_spec(inspection)
    assert [variable.name for variable in spec.inputs] == names
    assert spec.periodicity == 20
    entry = SimpleNamespace(settings=settings, gates={})
    assert all(row.passed for row in package.MODEL_TYPE.inspection_rows(inspection, entry))


def test_channels_of_a_frame_by_name_in_its_own_order(child_tasks, inspect, tmp_path):
    import pandas as pd

    names = ["x", "y"]
    frame = pd.DataFrame(recording(900, 2) * [1.0, 3.0], columns=["Y axis", "X axis"])
    model = Pipeline(
        [
            ("preprocessing", Pipeline([("scaling", MinMaxScaler().set_output(transform="pandas")),
                                        ("windowing", models.Windows(SIZE, STEP)), ("features", models.Features()),
                                        ("last", MinMaxScaler())])),
            ("clustering", GaussianMixture(3, random_state=0)),
        ]
    ).fit(frame)  # fmt: skip
    settings = StateIdentifierSettings.model_validate({"channels": names, "columns": {"X axis": "x", "Y axis": "y"}})
    saved(model, tmp_path, settings)
    given = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**given, "columns": ["x", "y"], "names": ["X axis", "Y axis"]}))
    told = Inspection.model_validate(child_tasks.inspect_model({})).model_dump(exclude_unset=True)
    assert told["component"]["columns"] == ["y", "x"]
    (tmp_path / "model.json").write_text(json.dumps({**given, **told["component"]}))
    rows = recording(300, 2, seed=4)
    expected = model.predict(pd.DataFrame({"Y axis": rows[:, 1], "X axis": rows[:, 0]})).tolist()
    assert [answer["prediction"] for answer in answered(child_tasks, rows)] == expected


@pytest.mark.parametrize(
    ("windowing", "windows"),
    [
        (SecondsWindows(1.2, 0.5), None),
        (SecondsWindows(1.2, 0.5), {"seconds": 1.2, "step_seconds": 0.5}),
        (SilentWindows((SIZE, STEP)), {"seconds": 1.2, "step_seconds": 0.5}),
        (SilentWindows((SIZE, STEP)), {"records": SIZE, "step_records": STEP}),
        (models.Windows(SIZE, STEP), {"seconds": 1.2, "step_seconds": 0.5}),
    ],
)
def test_windows_in_seconds_and_in_records(child_tasks, inspect, windowing, windows):
    settings = StateIdentifierSettings.model_validate({"sampling_period_ms": 100, "windows": windows})
    model = build(KMeans(3, n_init=1, random_state=0), windowing=windowing)
    inspection = inspect(model, settings)
    assert (inspection["window_size"], inspection["window_step"]) == (SIZE, STEP)
    rows = recording(300, seed=8)
    assert [answer["prediction"] for answer in answered(child_tasks, rows)] == model.predict(rows).tolist()


@pytest.mark.parametrize(
    ("windowing", "settings", "words"),
    [
        (SecondsWindows(1.25, 0.5), {}, r"window_seconds = 1.25, which is 12.5 records of 100 ms.*whole number"),
        (
            SecondsWindows(1.2, 0.5),
            {"sampling_period_ms": 1000},
            r"window_seconds = 1.2, which is 1.2 records",
        ),
        (
            SecondsWindows(1.2, 0.5),
            {"windows": {"seconds": 2}},
            "5 apart, and `windows`.*20 records, 20 apart",
        ),
        (
            models.Windows(SIZE, STEP),
            {"windows": {"records": 13}},
            "12 records, 5 apart.*13 records, 13 apart",
        ),
        (SilentWindows((SIZE, STEP)), {}, "window_size = None.*of one that says nothing, `windows` in"),
        (SilentWindows((SIZE, STEP)), {"windows": {"records": 13}}, "shape|other features|one window"),
    ],
)
def test_windows_that_do_not_fit_are_refused(child_tasks, inspect, windowing, settings, words):
    given = StateIdentifierSettings.model_validate({"sampling_period_ms": 100, **settings})
    with pytest.raises(child_tasks.UnfitModelError, match=words):
        inspect(build(KMeans(3, n_init=1, random_state=0), windowing=windowing), given)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"channels": ["a b"]}, "'a b' can be no input"),
        ({"channels": ["Timestamp"]}, "'Timestamp' is taken"),
        ({"channels": ["inertia"]}, "is taken"),
        ({"channels": ["a", "b", "a"]}, "names a twice"),
        ({"channels": []}, "at least 1"),
        ({"channels": ["a", "b"], "columns": ["a"]}, "must name each of a, b exactly once"),
        ({"channels": ["a", "b"], "columns": {"x": "a", "y": "ph1"}}, "must name each of a, b"),
        ({"channels": ["a"], "label_column": "a"}, "label_column: a is one of the channels"),
        ({"timestamp_column": "t", "label_column": "t"}, "the same column"),
        ({"windows": {}}, "by seconds or by records"),
        ({"windows": {"seconds": 1, "records": 4}}, "by seconds or by records"),
        ({"windows": {"records": 4, "step_seconds": 1}}, "step_seconds goes with seconds"),
        ({"sampling_period_ms": 0}, "greater than or equal to 1"),
        ({"sampling_period_ms": True}, "must be a number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        StateIdentifierSettings.model_validate(settings)


def test_a_gate_on_a_metric_that_the_model_does_not_have_fails_before_packaging(inspect):
    inspection = inspect(build(ESTIMATORS["mixture"]))
    gates = dict.fromkeys(["inertia", "bic", "accuracy", "silhouette"])
    entry = SimpleNamespace(settings=StateIdentifierSettings(), gates=gates)
    failed = {row.name: row for row in package.MODEL_TYPE.inspection_rows(inspection, entry) if not row.passed}
    assert failed.keys() == {"gate on inertia", "gate on accuracy"}
    assert failed["gate on inertia"].found == "GaussianMixture has no inertia"
    assert "bic, dunn_index, mean_log_likelihood, silhouette" in failed["gate on inertia"].wanted
    labelled = SimpleNamespace(settings=StateIdentifierSettings(label_column="state"), gates={"accuracy": None})
    assert all(row.passed for row in package.MODEL_TYPE.inspection_rows(inspection, labelled))


def test_a_child_that_tells_of_other_channels_is_found_out(inspect):
    settings = StateIdentifierSettings.model_validate({"channels": ["a", "b"]})
    inspection = inspect(build(ESTIMATORS["birch"], channels=2), settings)
    other = SimpleNamespace(settings=StateIdentifierSettings(), gates={})
    assert [row.name for row in package.MODEL_TYPE.inspection_rows(inspection, other) if not row.passed] == ["channels"]
    inspection["period_ms"] = 10
    rows = package.MODEL_TYPE.inspection_rows(inspection, SimpleNamespace(settings=settings, gates={}))
    assert [row.name for row in rows if not row.passed] == ["sampling period"]
