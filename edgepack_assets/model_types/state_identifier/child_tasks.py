"""Runs in the component's environment, beside the component's files: looks at the model, prepares data.

`inspect_model` tells what the packaging must know of a model, and refuses one that could not answer record by
record what it answers in one pass over a recording. `prepare` applies the fitted preprocessing to a payload.
"""

import gzip
import importlib
import json
from pathlib import Path
from typing import Any

import inference
import numpy as np


def inspect_model(arguments: dict) -> dict:
    """Facts of the model in the working directory. Raises ValueError saying why it is unfit."""
    model, settings = inference.load_model(Path.cwd())
    preprocessing, windowing, clustering = _known_steps(model)
    size, step = _positive(windowing, "window_size"), _positive(windowing, "window_step")
    kind, features = _input_kind(model, size)
    online = _online_equals_batch(model, preprocessing, kind, size, step)
    component = {"input": kind}
    if settings["format"] == "skops":
        skops_io = importlib.import_module("skops.io")
        component["trusted_types"] = sorted(skops_io.get_untrusted_types(file=settings["file"]))
    return {
        "window_size": size,
        "window_step": step,
        "steps": [name for name, _ in preprocessing.steps],
        "features": features,
        "feature_names": _feature_names(preprocessing, features),
        "clusters": int(clustering.n_clusters),
        "clustering": type(clustering).__name__,
        "inertia": float(clustering.inertia_),
        "fills_missing_values": online,
        "component": component,
    }


def prepare(arguments: dict) -> dict:
    """Apply the fitted preprocessing to the payload's records and write the features as .npy.

    Returns the shape of the features, and what the model's clustering says of each finite window: the batch
    predictions that the package's answers are compared with.
    """
    model, settings = inference.load_model(Path.cwd())
    preprocessing, windowing, clustering = _known_steps(model)
    rows = _read_rows(Path(arguments["records"]), arguments["count"])
    size, step = int(windowing.window_size), int(windowing.window_step)
    if len(rows) < size:
        raise ValueError(f"the payload has {len(rows)} records, fewer than one window of {size}")
    features = _batch(preprocessing, settings["input"], rows)
    windows = (len(rows) - size) // step + 1
    if features.ndim != 2 or features.shape[0] != windows:
        raise ValueError(
            f"the preprocessing gave features of shape {features.shape} for {len(rows)} records; expected a row "
            f"for each of the {windows} windows of {size} records, {step} apart"
        )
    finite = np.isfinite(features).all(axis=1)
    predictions = np.full(windows, -1, dtype=np.int64)
    if finite.any():
        predictions[finite] = clustering.predict(features[finite])
    last_records = np.arange(windows, dtype=np.int64) * step + size - 1
    np.save(arguments["features"], features.astype(np.float64), allow_pickle=False)
    np.save(arguments["windows"], np.column_stack([last_records, predictions]), allow_pickle=False)
    return {"windows": windows, "features": int(features.shape[1]), "unfilled": int((~finite).sum())}


def _known_steps(model: Any) -> "tuple[Any, Any, Any]":
    steps = getattr(model, "named_steps", None)
    if steps is None or "preprocessing" not in steps or "clustering" not in steps:
        found = ", ".join(steps) if steps is not None else type(model).__name__
        raise ValueError(
            f"the model is not a scikit-learn Pipeline with the steps 'preprocessing' and 'clustering' (found: {found})"
        )
    preprocessing, clustering = steps["preprocessing"], steps["clustering"]
    inner = getattr(preprocessing, "named_steps", {})
    if "windowing" not in inner:
        raise ValueError(f"the preprocessing has no step 'windowing' (found: {', '.join(inner) or 'no steps'})")
    if not hasattr(clustering, "inertia_") or not hasattr(clustering, "predict"):
        raise ValueError(f"the clustering step ({type(clustering).__name__}) is no fitted KMeans: it has no inertia_")
    return preprocessing, inner["windowing"], clustering


def _positive(windowing: Any, name: str) -> int:
    value = getattr(windowing, name, None)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"the step 'windowing' has {name} = {value!r}; it must be an integer from 1 up")
    return int(value)


def _recording(size: int, step: int, windows: int, seed: int) -> "np.ndarray":
    """A made-up power recording of that many windows: positive, noisy, with levels that change."""
    random = np.random.RandomState(seed)
    count = size + (windows - 1) * step
    levels = np.repeat(random.uniform(50.0, 5000.0, count // 7 + 1), 7)[:count]
    return levels[:, None] * random.uniform(0.8, 1.2, (count, len(inference.COLUMNS)))


def _input_kind(model: Any, size: int) -> "tuple[str, int]":
    """Whether the preprocessing takes an array or a frame, and the number of its features."""
    preprocessing = model.named_steps["preprocessing"]
    named = hasattr(preprocessing.steps[0][1], "feature_names_in_")
    failures = []
    for kind in ("frame", "array") if named else ("array", "frame"):
        try:
            features = _batch(preprocessing, kind, _recording(size, 1, 1, 0))
            model.named_steps["clustering"].predict(features)
        except Exception as error:  # noqa: BLE001 - told below, for both kinds
            failures.append(f"as {kind}: {type(error).__name__}: {error}")
            continue
        if features.ndim != 2 or features.shape[0] != 1:
            raise ValueError(f"one window of {size} records gave features of shape {features.shape}, not one row")
        return kind, int(features.shape[1])
    raise ValueError("the model does not take one window of ph1, ph2, ph3: " + "; ".join(failures))


def _online_equals_batch(model: Any, preprocessing: Any, kind: str, size: int, step: int) -> bool:
    """Whether the model fills missing values. Raises ValueError if it cannot be answered record by record."""
    whole = _recording(size, step, 5, 1)
    _compare(model, preprocessing, kind, whole, "")
    gaps = _with_gaps(whole, size, step)
    try:
        batch = _batch(preprocessing, kind, gaps)
    except ValueError:
        return False  # it takes no missing values; the component leaves such windows unanswered
    if not np.isfinite(batch).all():
        return False
    # A change after a window must not change the window: else its gaps were filled from the future.
    future = gaps.copy()
    future[size:] = _recording(size, step, 5, 2)[size:] * 3.0
    if not np.allclose(_batch(preprocessing, kind, future)[0], batch[0], rtol=1e-9, atol=1e-9):
        raise ValueError(
            "the preprocessing looks ahead: what comes after a window changes how the window's missing values are "
            "filled (back-fill or interpolation). A device answers before that comes; fill forward or with a constant"
        )
    _compare(model, preprocessing, kind, gaps, " that has missing values")
    return True


def _with_gaps(rows: "np.ndarray", size: int, step: int) -> "np.ndarray":
    """Missing values at the end of the first window, around every later window's start, and in between."""
    gaps = rows.copy()
    run = max(1, min(3, size // 3))
    gaps[size - run : size + 1] = np.nan
    for start in range(step, len(rows), step):
        gaps[max(1, start - 1) : start + 1, (start // step) % 3] = np.nan
    random = np.random.RandomState(3)
    holes = random.uniform(size=gaps.shape) < 0.02
    holes[0] = False
    gaps[holes] = np.nan
    gaps[0] = rows[0]
    return gaps


def _batch(preprocessing: Any, kind: str, rows: "np.ndarray") -> "np.ndarray":
    return inference.as_features(preprocessing.transform(inference.as_input(rows, kind)))


class _Recorder:
    """Stands in for the clustering and keeps the features that the component computed."""

    def __init__(self, clustering: Any) -> None:
        self.inertia_ = clustering.inertia_
        self.predict_with = clustering.predict
        self.seen: list[np.ndarray] = []

    def predict(self, features: "np.ndarray") -> Any:
        """Note the window's features and answer as the clustering does."""
        self.seen.append(features[0])
        return self.predict_with(features)


def _compare(model: Any, preprocessing: Any, kind: str, rows: "np.ndarray", suffix: str) -> None:
    """Run the component itself over a made-up recording and hold its windows against one batch pass."""
    batch = _batch(preprocessing, kind, rows)
    component = inference.StateIdentifier(model, {"input": kind})
    recorder = component.clustering = _Recorder(component.clustering)
    for row in rows:
        component.process(
            {name: None if np.isnan(v) else float(v) for name, v in zip(inference.COLUMNS, row, strict=True)}
        )
    online = np.asarray(recorder.seen)
    if online.shape != batch.shape or not np.allclose(online, batch, rtol=1e-6, atol=1e-9):
        raise ValueError(
            f"answered record by record, a made-up recording{suffix} gives other features than in one pass "
            f"({online.shape[0]} windows online, {batch.shape[0]} in one pass): the preprocessing uses more than a "
            "window and the record before it, so it cannot run on the edge as it was trained"
        )


def _feature_names(preprocessing: Any, count: int) -> "list[str]":
    try:
        names = [str(name) for name in preprocessing.get_feature_names_out()]
    except (AttributeError, ValueError, NotImplementedError, TypeError):
        names = []  # a model's own transformers need not name their features
    return names if len(names) == count and len(set(names)) == count else [f"feature_{i}" for i in range(count)]


def _read_rows(path: Path, count: int) -> "np.ndarray":
    rows = np.empty((count, len(inference.COLUMNS)), dtype=np.float64)
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream):
            record = json.loads(line)
            rows[number] = [np.nan if record[c] is None else record[c] for c in inference.COLUMNS]
    return rows
