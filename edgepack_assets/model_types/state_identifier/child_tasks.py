"""Runs in the component's environment, beside the component's files: looks at the model, prepares data.

`inspect_model` tells what the packaging must know of a model, and refuses one that could not answer record by
record what it answers in one pass over a recording. `prepare` applies the fitted preprocessing to a payload. How the
model takes its columns is in child_columns.py, what its last step is in child_estimators.py.
"""

import contextlib
import gzip
import importlib
import json
from pathlib import Path
from typing import Any

import child_columns
import child_estimators
import child_window_envelope
import edgepack_progress
import inference
import numpy as np
from child_columns import UnfitModelError, names_are_kept, reference_input, transform

_LOOK_AT_CLOCK_EVERY = 1024


def inspect_model(arguments: dict[str, Any]) -> dict[str, Any]:
    """Facts of the model in the working directory. Raises UnfitModelError saying why it is unfit."""
    model, settings = inference.load_model(Path.cwd())
    _use_channels(settings)
    steps = child_estimators.known_steps(model, settings)
    preprocessing, estimator = steps.preprocessing, steps.estimator
    known = child_estimators.states_of(estimator)
    with names_are_kept():
        component = child_columns.input_of(model, settings, steps.size, steps.step)
        component |= child_estimators.component_part(steps, settings)
        features = transform(preprocessing, component, child_columns.recording(steps.size, steps.step, 1, 0))
        if features.ndim != 2 or features.shape[0] != 1:
            raise UnfitModelError(
                f"one window of {steps.size} records gave features of shape {features.shape}, not one row"
            )
        fills = _online_equals_batch(model, component, steps.size, steps.step)
    if settings["format"] == "skops":
        skops_io = importlib.import_module("skops.io")
        component["trusted_types"] = sorted(skops_io.get_untrusted_types(file=settings["file"]))
    parameters = child_estimators.free_parameters(estimator)
    is_counted = known.states is not None and known.states == list(range(len(known.states)))
    return {
        "window_size": steps.size,
        "window_step": steps.step,
        "steps": [name for name, _ in preprocessing.steps],
        "features": int(features.shape[1]),
        "feature_names": _feature_names(preprocessing, int(features.shape[1])),
        "clusters": None if known.states is None else len(known.states),
        "clustering": type(estimator).__name__,
        "fills_missing_values": fills,
        "component": component,
        **({"state_names": settings["state_names"]} if "state_names" in settings else {}),
        **({"inertia": float(estimator.inertia_)} if steps.has_inertia else {}),
        **({"period_ms": settings["period_ms"]} if "period_ms" in settings else {}),
        **({"states": known.states} if known.states is not None and not is_counted else {}),
        **({"classes": known.classes} if known.classes is not None else {}),
        **({"mixture": {"free_parameters": parameters}} if child_estimators.is_mixture(estimator) else {}),
    }


def prepare(arguments: dict[str, Any]) -> dict[str, Any]:
    """Apply the fitted preprocessing to the payload's records and write the features as .npy.

    Returns the shape of the features, and what the model's estimator says of each finite window: the batch
    predictions that the package's answers are compared with, and of a mixture the log likelihood, as a last column of
    the features.
    """
    model, settings = inference.load_model(Path.cwd())
    _use_channels(settings)
    steps = child_estimators.known_steps(model, settings)
    preprocessing, estimator, size, step = steps.preprocessing, steps.estimator, steps.size, steps.step
    rows = _read_rows(Path(arguments["records"]), arguments["count"])
    count = len(rows)
    if count < size:
        raise UnfitModelError(f"the payload has {count} records, fewer than one window of {size}")
    with names_are_kept():
        settings = child_columns.with_columns(model, settings, size, step)
        given = reference_input(rows, settings)
        del rows  # of a long recording it is a quarter of what this process takes, and `given` is a copy
        prepared = preprocessing.transform(given)
        del given
        features = inference.as_features(prepared)
        windows = (count - size) // step + 1
        if features.ndim != 2 or features.shape[0] != windows:
            raise UnfitModelError(
                f"the preprocessing gave features of shape {features.shape} for {count} records; expected a row "
                f"for each of the {windows} windows of {size} records, {step} apart"
            )
        finite = np.isfinite(features).all(axis=1)
        predictions = np.full(windows, -1, dtype=np.int64)
        likelihoods = np.full((windows, 1 if child_estimators.is_mixture(estimator) else 0), np.nan)
        if finite.any():
            # a frame keeps its names: the clustering may have been fitted with them
            by_row = prepared if hasattr(prepared, "iloc") else np.asarray(prepared)
            predictions[finite] = _as_states(estimator.predict(by_row[finite]), settings)
            if likelihoods.size:
                likelihoods[finite, 0] = estimator.score_samples(by_row[finite])
    last_records = np.arange(windows, dtype=np.int64) * step + size - 1
    features = np.column_stack([features.astype(np.float64), likelihoods])
    np.save(arguments["features"], features, allow_pickle=False)
    np.save(arguments["windows"], np.column_stack([last_records, predictions]), allow_pickle=False)
    return {
        "windows": windows,
        "features": features.shape[1] - likelihoods.shape[1],
        "unfilled": int((~finite).sum()),
    }


def learn_envelope(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the component learns from the payload's records."""
    model, settings, rows = _model_and_rows(arguments)
    return child_window_envelope.learn(_identifier(model, settings), rows, inference.COLUMNS)


def probe_faults(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the component answers to the payload's records with faults."""
    model, settings, rows = _model_and_rows(arguments)

    def make() -> Any:
        if "envelope" in settings:
            return importlib.import_module("enveloped").enveloped(model, settings)
        return _identifier(model, settings)

    return child_window_envelope.probe(make, rows, inference.COLUMNS)


def _model_and_rows(arguments: dict[str, Any]) -> "tuple[Any, dict[str, Any], np.ndarray]":
    model, settings = inference.load_model(Path.cwd())
    _use_channels(settings)
    return model, settings, _read_rows(Path(arguments["records"]), arguments["count"])


def _use_channels(settings: dict[str, Any]) -> None:
    """The module is there when a model is inspected, and in the packages that need it."""
    if "channels" in settings:
        importlib.import_module("general_inference").use_channels(settings)


def _as_states(answers: Any, settings: dict[str, Any]) -> Any:
    """Answers of `predict` as the component gives them."""
    if "estimator" not in settings:  # a KMeans, which gives whole numbers
        return answers
    try:
        return importlib.import_module("general_inference").as_states(answers, settings.get("classes"))
    except ValueError as error:
        raise UnfitModelError(f"the model answers no states: {error}") from None


def _identifier(model: Any, component: dict[str, Any]) -> Any:
    """The component itself."""
    if "estimator" not in component:
        return inference.StateIdentifier(model, component)
    return importlib.import_module("general_inference").GeneralStateIdentifier(model, component)


def _online_equals_batch(model: Any, component: dict[str, Any], size: int, step: int) -> bool:
    """Whether the model fills missing values. Raises UnfitModelError if it cannot be answered record by record."""
    preprocessing = model.named_steps["preprocessing"]
    whole = child_columns.recording(size, step, 5, 1)
    _compare(model, component, whole, "")
    gaps = _with_gaps(whole, size, step)
    try:
        batch = transform(preprocessing, component, gaps)
    except ValueError:
        return False  # it takes no missing values; the component leaves such windows unanswered
    if not np.isfinite(batch).all():
        return False
    # A change after a window must not change the window: else its gaps were filled from the future.
    future = gaps.copy()
    future[size:] = child_columns.recording(size, step, 5, 2)[size:] * 3.0
    if not np.allclose(transform(preprocessing, component, future)[0], batch[0], rtol=1e-9, atol=1e-9):
        raise UnfitModelError(
            "the preprocessing looks ahead: what comes after a window changes how the window's missing values are "
            "filled (back-fill or interpolation). A device answers before that comes; fill forward or with a constant"
        )
    _compare(model, component, gaps, " that has missing values")
    return True


def _with_gaps(rows: "np.ndarray", size: int, step: int) -> "np.ndarray":
    """Missing values at the end of the first window, around every later window's start, and in between."""
    gaps = rows.copy()
    run = max(1, min(3, size // 3))
    gaps[size - run : size + 1] = np.nan
    for start in range(step, len(rows), step):
        gaps[max(1, start - 1) : start + 1, (start // step) % gaps.shape[1]] = np.nan
    random = np.random.RandomState(3)
    holes = random.uniform(size=gaps.shape) < 0.02
    gaps[holes] = np.nan
    gaps[0] = rows[0]
    return gaps


class _Recorder:
    """Stands in for the clustering and keeps the features that the component computed."""

    def __init__(self, clustering: Any) -> None:
        self.inertia_ = clustering.inertia_
        self.predict_with = clustering.predict
        self.seen: list[np.ndarray] = []

    def predict(self, features: Any) -> Any:
        """Note the window's features and answer as the clustering does."""
        self.seen.append(inference.as_features(features)[0])
        return self.predict_with(features)


def _compare(model: Any, component: dict[str, Any], rows: "np.ndarray", suffix: str) -> None:
    """Run the component itself over a made-up recording and hold it against the model in one pass."""
    batch = transform(model.named_steps["preprocessing"], component, rows)
    expected = [int(state) for state in _as_states(model.predict(reference_input(rows, component)), component)]
    identifier = _identifier(model, component)
    recorder = identifier.clustering = _Recorder(identifier.clustering)
    answers = [
        identifier.process(
            {name: None if np.isnan(v) else float(v) for name, v in zip(inference.COLUMNS, row, strict=True)}
        )
        for row in rows
    ]
    online = np.asarray(recorder.seen)
    if online.shape != batch.shape or not np.allclose(online, batch, rtol=1e-6, atol=1e-9):
        raise UnfitModelError(
            f"answered record by record, a made-up recording{suffix} gives other features than in one pass "
            f"({online.shape[0]} windows online, {batch.shape[0]} in one pass): the preprocessing uses more than a "
            "window and the record before it, so it cannot run on the edge as it was trained"
        )
    states = [answer["prediction"] for answer in answers if answer is not None]
    if states != expected:
        raise UnfitModelError(
            f"answered record by record, a made-up recording{suffix} gives other states than the model's own predict: "
            f"{states} instead of {expected}"
        )


def _feature_names(preprocessing: Any, count: int) -> "list[str]":
    names: list[str] = []  # a model's own transformers need not name their features
    with contextlib.suppress(AttributeError, ValueError, NotImplementedError, TypeError):
        names = [str(name) for name in preprocessing.get_feature_names_out()]
    return names if len(names) == count and len(set(names)) == count else [f"feature_{i}" for i in range(count)]


def _read_rows(path: Path, count: int) -> "np.ndarray":
    rows = np.empty((count, len(inference.COLUMNS)), dtype=np.float64)
    progress = edgepack_progress.Progress(print, "records read", count)
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream):
            record = json.loads(line)
            try:
                rows[number] = [np.nan if record[c] is None else record[c] for c in inference.COLUMNS]
            except KeyError:
                raise UnfitModelError(
                    f"record {number} of the payload has {', '.join(record)}, and the package takes "
                    f"{', '.join(inference.COLUMNS)}: the channels were configured anew since. Materialize "
                    "payload_data and config_package again"
                ) from None
            if number % _LOOK_AT_CLOCK_EVERY == 0:
                progress.at(number)
    return rows
