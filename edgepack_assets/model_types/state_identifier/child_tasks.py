"""Runs in the component's environment, beside the component's files: looks at the model, prepares data.

`inspect_model` tells what the packaging must know of a model, and refuses one that could not answer record by
record what it answers in one pass over a recording. `prepare` applies the fitted preprocessing to a payload.
"""

import contextlib
import gzip
import importlib.util
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inference
import numpy as np

_NAMES_LOST, _NAMES_UNKNOWN = ".*does not have valid feature names", ".*has feature names, but"
"""scikit-learn's warnings: a step that was fitted with names of columns gets none, and the other way round."""
_MOST_SHOWN, _DEEPEST = 20, 6


class UnfitModelError(ValueError):
    """The model cannot be packaged; the text says why."""

    is_for_user = True


def inspect_model(arguments: dict[str, Any]) -> dict[str, Any]:
    """Facts of the model in the working directory. Raises UnfitModelError saying why it is unfit."""
    model, settings = inference.load_model(Path.cwd())
    preprocessing, windowing, clustering = _known_steps(model)
    size, step = _positive(windowing, "window_size"), _positive(windowing, "window_step")
    with _names_are_kept():
        component = _input_of(model, settings, size, step)
        features = _transform(preprocessing, component, _recording(size, step, 1, 0))
        if features.ndim != 2 or features.shape[0] != 1:
            raise UnfitModelError(f"one window of {size} records gave features of shape {features.shape}, not one row")
        fills = _online_equals_batch(model, component, size, step)
    if settings["format"] == "skops":
        skops_io = importlib.import_module("skops.io")
        component["trusted_types"] = sorted(skops_io.get_untrusted_types(file=settings["file"]))
    return {
        "window_size": size,
        "window_step": step,
        "steps": [name for name, _ in preprocessing.steps],
        "features": int(features.shape[1]),
        "feature_names": _feature_names(preprocessing, int(features.shape[1])),
        "clusters": int(clustering.n_clusters),
        "clustering": type(clustering).__name__,
        "inertia": float(clustering.inertia_),
        "fills_missing_values": fills,
        "component": component,
        **({"state_names": settings["state_names"]} if "state_names" in settings else {}),
    }


def prepare(arguments: dict[str, Any]) -> dict[str, Any]:
    """Apply the fitted preprocessing to the payload's records and write the features as .npy.

    Returns the shape of the features. The batch predictions of finite windows are what answers are compared with.
    """
    model, settings = inference.load_model(Path.cwd())
    preprocessing, windowing, clustering = _known_steps(model)
    rows = _read_rows(Path(arguments["records"]), arguments["count"])
    size, step = int(windowing.window_size), int(windowing.window_step)
    if len(rows) < size:
        raise UnfitModelError(f"the payload has {len(rows)} records, fewer than one window of {size}")
    with _names_are_kept():
        settings = _with_columns(model, settings, size, step)
        prepared = preprocessing.transform(_reference_input(rows, settings))
        features = inference.as_features(prepared)
        windows = (len(rows) - size) // step + 1
        if features.ndim != 2 or features.shape[0] != windows:
            raise UnfitModelError(
                f"the preprocessing gave features of shape {features.shape} for {len(rows)} records; expected a row "
                f"for each of the {windows} windows of {size} records, {step} apart"
            )
        finite = np.isfinite(features).all(axis=1)
        predictions = np.full(windows, -1, dtype=np.int64)
        if finite.any():
            # a frame keeps its names: the clustering may have been fitted with them
            by_row = prepared if hasattr(prepared, "iloc") else np.asarray(prepared)
            predictions[finite] = clustering.predict(by_row[finite])
    last_records = np.arange(windows, dtype=np.int64) * step + size - 1
    np.save(arguments["features"], features.astype(np.float64), allow_pickle=False)
    np.save(arguments["windows"], np.column_stack([last_records, predictions]), allow_pickle=False)
    return {"windows": windows, "features": int(features.shape[1]), "unfilled": int((~finite).sum())}


def _known_steps(model: Any) -> "tuple[Any, Any, Any]":
    steps = getattr(model, "named_steps", None)
    if steps is None or "preprocessing" not in steps or "clustering" not in steps:
        found = ", ".join(steps) if steps is not None else type(model).__name__
        raise UnfitModelError(
            f"the model is not a scikit-learn Pipeline with the steps 'preprocessing' and 'clustering' (found: {found})"
        )
    working = [name for name, step in model.steps if step not in (None, "passthrough")]
    if working != ["preprocessing", "clustering"]:
        raise UnfitModelError(
            f"the model has the steps {', '.join(working)}, but the component runs 'preprocessing' and then "
            "'clustering' alone: move what the others do into 'preprocessing'"
        )
    preprocessing, clustering = steps["preprocessing"], steps["clustering"]
    inner = getattr(preprocessing, "named_steps", {})
    if "windowing" not in inner:
        raise UnfitModelError(f"the preprocessing has no step 'windowing' (found: {', '.join(inner) or 'no steps'})")
    if not hasattr(clustering, "inertia_") or not hasattr(clustering, "predict"):
        raise UnfitModelError(
            f"the clustering step ({type(clustering).__name__}) is no fitted KMeans: it has no inertia_"
        )
    return preprocessing, inner["windowing"], clustering


def _positive(windowing: Any, name: str) -> int:
    value = getattr(windowing, name, None)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise UnfitModelError(f"the step 'windowing' has {name} = {value!r}; it must be an integer from 1 up")
    return int(value)


@contextlib.contextmanager
def _names_are_kept() -> "Iterator[None]":
    """Columns without the names that a step was fitted with are taken by position: an error here, not a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_NAMES_LOST)
        try:
            yield
        except UserWarning as warning:
            raise UnfitModelError(
                f"a step of the model was fitted with names of columns and would get data without them ({warning}): "
                "it would take the columns by position. Let the steps before it keep the names "
                '(set_output(transform="pandas")), or fit it on an array'
            ) from warning


def _input_of(model: Any, settings: dict[str, Any], size: int, step: int) -> dict[str, Any]:
    """What model.json says of the model's input: `input` ("frame" or "array"), `columns` (the payload's variables in
    the model's own order) and, for a frame, the `names` that the model gives them.

    Names decide wherever the model has some, then those of MLmodel's `signature`. Raises UnfitModelError where they are
    other than the payload's and the configuration does not say which is which.
    """
    preprocessing = model.named_steps["preprocessing"]
    raw = _steps_on_columns(preprocessing)
    configured = settings.get("names")
    ours = dict(zip(configured or inference.COLUMNS, settings.get("columns", inference.COLUMNS), strict=True))
    own = _own_names(model, preprocessing, raw[0])
    inside = [names for part in raw for names in _names_inside(part, set(), 0) if sorted(names) == sorted(ours)]
    if own is not None and sorted(own) != sorted(ours):
        raise UnfitModelError(_other_names(own, configured))
    orders = [own] if own is not None else inside
    if orders and "columns" in settings and not configured:
        raise UnfitModelError(
            f"the model was fitted on columns with names ({_listed(orders[0])}), and `columns` in edgepack.yaml lists "
            "an order without names: leave it out, or let it map each name to ph1, ph2 or ph3"
        )
    signature = settings.get("signature")
    if not orders and signature and (configured or "columns" not in settings):
        if sorted(signature) != sorted(ours):
            raise UnfitModelError(_other_names(signature, configured, "the signature in MLmodel names"))
        ours = {name: ours[name] for name in signature}
    if own is None and (orders or configured):
        orders = [*orders, list(ours)]  # an inner step has names: scikit-learn itself refuses them in another order
    frames = [{"input": "frame", "columns": [ours[name] for name in names], "names": names} for names in orders]
    # scikit-learn's own steps keep the names that they were fitted with: without any it saw an array
    saw_array = type(raw[0]).__module__.startswith("sklearn.") and hasattr(raw[0], "n_features_in_")
    by_code = signature and not saw_array and "columns" not in settings  # which may treat names otherwise
    if (frames or by_code) and importlib.util.find_spec("pandas") is None:
        raise UnfitModelError(
            "the model was fitted on a frame, which takes pandas, and the component has none: add the version of its "
            "training under `requirements` of its model type, e.g. pandas==2.2.3"
            + (f", or, if it takes an array too, columns: [{', '.join(ours.values())}]" if not frames else "")
        )
    array = {"input": "array", "columns": list(ours.values())}
    rows = _recording(size, step, 3, 0)
    if frames or "columns" in settings or saw_array:
        return _first_that_works(model, frames or [array], rows)
    return _array_or_frame(model, array, {**array, "input": "frame", "names": list(ours)}, rows)


def _steps_on_columns(preprocessing: Any) -> "list[Any]":
    """The steps that take rows of columns: those up to the windowing."""
    count = list(preprocessing.named_steps).index("windowing") + 1
    return [step for _, step in preprocessing.steps[:count] if step not in (None, "passthrough")]


def _own_names(*parts: Any) -> "list[str] | None":
    """The names of the columns that the whole was fitted on, where it tells."""
    found = (getattr(part, "feature_names_in_", None) for part in parts)
    return next(([str(name) for name in names] for names in found if names is not None), None)


def _names_inside(part: Any, seen: "set[int]", depth: int) -> "Iterator[list[str]]":
    """The names that this step and the estimators inside it were fitted with, the outer ones first."""
    if id(part) in seen or depth > _DEEPEST:
        return
    seen.add(id(part))
    if isinstance(part, (list, tuple, dict)):
        inner = list(part.values() if isinstance(part, dict) else part)
    elif hasattr(part, "fit") and hasattr(part, "__dict__") and not isinstance(part, type):
        yield from filter(None, [_own_names(part)])
        inner = list(vars(part).values())
    else:
        return
    for value in inner:
        yield from _names_inside(value, seen, depth + 1)


def _other_names(own: "list[str]", configured: "list[str] | None", says: str = "the model was fitted on") -> str:
    ours = list(inference.COLUMNS)
    stated = f"{says} the columns {_listed(own)}"
    if len(own) != len(ours) or len(set(own)) != len(own):
        return f"{stated}; the payload has {_listed(ours)}: train it on three columns with three different names"
    example = ", ".join(f"{json.dumps(name)}: {column}" for name, column in zip(own, ours, strict=True))
    theirs = f"`columns` maps {_listed(configured)}" if configured else f"the payload has {_listed(ours)}"
    return (
        f"{stated}; {theirs}. Say under `columns` of its model type in edgepack.yaml which is which, in this form "
        f"(the pairs are an example): columns: {{{example}}}"
    )


def _listed(names: Any) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _MOST_SHOWN else ""
    return ", ".join(f"{name!s:.100}" for name in names[:_MOST_SHOWN]) + more


def _first_that_works(model: Any, inputs: "list[dict[str, Any]]", rows: "np.ndarray") -> dict[str, Any]:
    failures = []
    for component in inputs:
        if not (failure := _tried(model, component, rows)[1]):
            return component
        failures.append(f"as {_described(component)}: {failure}")
    raise UnfitModelError(
        f"the model does not take windows of ph1, ph2, ph3: {'; '.join(failures)}. If its columns have other names or "
        "another order, say so under `columns` of its model type in edgepack.yaml"
    )


def _array_or_frame(model: Any, array: dict[str, Any], frame: dict[str, Any], rows: "np.ndarray") -> dict[str, Any]:
    """For a model that tells no names: an array, or a frame where its code asks for names."""
    by_position, no_array = _tried(model, array, rows)
    by_name, no_frame = _tried(model, frame, rows, _NAMES_UNKNOWN)
    if no_array or no_frame:
        return _first_that_works(model, [array, frame], rows)
    if by_name.shape != by_position.shape or not np.allclose(by_name, by_position, rtol=1e-9, equal_nan=True):
        raise UnfitModelError(
            "the model takes both an array and a frame with the columns ph1, ph2, ph3, gives other features for each, "
            "and does not tell which one it was fitted on. Say so under `columns` of its model type in edgepack.yaml: "
            f"{{ph1: ph1, ph2: ph2, ph3: ph3}} for a frame, [{', '.join(array['columns'])}] for an array in that order"
        )
    return array


def _described(component: dict[str, Any]) -> str:
    names = component.get("names")
    return f"a frame with the columns {_listed(names)}" if names else f"an array of {_listed(component['columns'])}"


def _tried(model: Any, component: dict[str, Any], rows: "np.ndarray", as_errors: str = "$") -> "tuple[np.ndarray, str]":
    """(features, "") of the rows, or (nothing, why the model does not take them so)."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=as_errors)
            model.predict(_reference_input(rows, component))
            return _transform(model.named_steps["preprocessing"], component, rows), ""
    except Exception as error:  # noqa: BLE001 - the model's code may raise anything; the caller says so
        return np.empty(0), f"{type(error).__name__}: {error}"


def _reference_input(rows: "np.ndarray", component: dict[str, Any]) -> Any:
    """The rows as the model was fitted on them. The component's own way to do that is checked against this."""
    by_column = dict(zip(inference.COLUMNS, rows.T, strict=True))
    if component["input"] == "frame":
        pandas = importlib.import_module("pandas")
        named = zip(component["names"], component["columns"], strict=True)
        return pandas.DataFrame({name: by_column[column] for name, column in named})
    return np.column_stack([by_column[column] for column in component["columns"]])


def _with_columns(model: Any, settings: dict[str, Any], size: int, step: int) -> dict[str, Any]:
    """model.json with its columns. Raises UnfitModelError for a package of before they were recorded, if it gives the
    model its columns in another way than the model was fitted on."""
    if "columns" in settings:
        return settings
    kind, columns = settings.get("input", "array"), list(inference.COLUMNS)
    given = {"input": kind, "columns": columns, **({"names": columns} if kind == "frame" else {})}
    if given != (wanted := _input_of(model, {}, size, step)):
        raise UnfitModelError(
            f"this package gives the model {_described(given)}, and the model takes {_described(wanted)}: "
            "materialize config_package again"
        )
    return {**settings, **given}


def _recording(size: int, step: int, windows: int, seed: int) -> "np.ndarray":
    """A made-up power recording of that many windows: positive, noisy, with levels that change."""
    random = np.random.RandomState(seed)
    count = size + (windows - 1) * step
    levels = np.repeat(random.uniform(50.0, 5000.0, count // 7 + 1), 7)[:count]
    return levels[:, None] * random.uniform(0.8, 1.2, (count, len(inference.COLUMNS)))


def _online_equals_batch(model: Any, component: dict[str, Any], size: int, step: int) -> bool:
    """Whether the model fills missing values. Raises UnfitModelError if it cannot be answered record by record."""
    preprocessing = model.named_steps["preprocessing"]
    whole = _recording(size, step, 5, 1)
    _compare(model, component, whole, "")
    gaps = _with_gaps(whole, size, step)
    try:
        batch = _transform(preprocessing, component, gaps)
    except ValueError:
        return False  # it takes no missing values; the component leaves such windows unanswered
    if not np.isfinite(batch).all():
        return False
    # A change after a window must not change the window: else its gaps were filled from the future.
    future = gaps.copy()
    future[size:] = _recording(size, step, 5, 2)[size:] * 3.0
    if not np.allclose(_transform(preprocessing, component, future)[0], batch[0], rtol=1e-9, atol=1e-9):
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
        gaps[max(1, start - 1) : start + 1, (start // step) % 3] = np.nan
    random = np.random.RandomState(3)
    holes = random.uniform(size=gaps.shape) < 0.02
    gaps[holes] = np.nan
    gaps[0] = rows[0]
    return gaps


def _transform(preprocessing: Any, component: dict[str, Any], rows: "np.ndarray") -> "np.ndarray":
    return inference.as_features(preprocessing.transform(_reference_input(rows, component)))


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
    batch = _transform(model.named_steps["preprocessing"], component, rows)
    identifier = inference.StateIdentifier(model, component)
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
    if states != (expected := [int(state) for state in model.predict(_reference_input(rows, component))]):
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
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream):
            record = json.loads(line)
            rows[number] = [np.nan if record[c] is None else record[c] for c in inference.COLUMNS]
    return rows
