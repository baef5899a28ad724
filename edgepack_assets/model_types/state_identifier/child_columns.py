"""How a state identifier's model takes its columns: by which names, in which order, as a frame or as an array.

Belongs to child_tasks.py: runs in the component's environment, beside the component's files.
"""

import contextlib
import importlib
import importlib.util
import json
import warnings
from collections.abc import Iterator
from typing import Any

import inference
import numpy as np

_NAMES_LOST, _NAMES_UNKNOWN = ".*does not have valid feature names", ".*has feature names, but"
"""scikit-learn's warnings: a step that was fitted with names of columns gets none, and the other way round."""
_MOST_SHOWN, _DEEPEST = 20, 6


class UnfitModelError(ValueError):
    """The model cannot be packaged; the text says why."""

    is_for_user = True


@contextlib.contextmanager
def names_are_kept() -> "Iterator[None]":
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


def input_of(model: Any, settings: dict[str, Any], size: int, step: int) -> dict[str, Any]:
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
            f"an order without names: leave it out, or let it map each name to one of {_listed(inference.COLUMNS)}"
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
    rows = recording(size, step, 3, 0)
    if frames or "columns" in settings or saw_array:
        return _first_that_works(model, frames or [array], rows)
    return _array_or_frame(model, array, {**array, "input": "frame", "names": list(ours)}, rows)


def _steps_on_columns(preprocessing: Any) -> "list[Any]":
    """The steps that take rows of columns: those up to the windowing."""
    count = list(preprocessing.named_steps).index("windowing") + 1
    return [step for _, step in preprocessing.steps[:count] if step not in (None, "passthrough")]


def _own_names(*parts: Any) -> "list[str] | None":
    """The names of the columns that the whole was fitted on, where it tells."""
    fitted = (getattr(part, "feature_names_in_", None) for part in parts)
    return next(([str(name) for name in names] for names in fitted if names is not None), None)


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
    columns = f"{says} the columns {_listed(own)}"
    if len(own) != len(ours) or len(set(own)) != len(own):
        count = "three" if len(ours) == 3 else len(ours)
        return (
            f"{columns}; the payload has {_listed(ours)}: train it on {count} columns with "
            f"{count} different names, or name others under `channels` of its model type in edgepack.yaml"
        )
    example = ", ".join(f"{json.dumps(name)}: {column}" for name, column in zip(own, ours, strict=True))
    theirs = f"`columns` maps {_listed(configured)}" if configured else f"the payload has {_listed(ours)}"
    return (
        f"{columns}; {theirs}. Say under `columns` of its model type in edgepack.yaml which is which, in this form "
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
        f"the model does not take windows of {_listed(inference.COLUMNS)}: {'; '.join(failures)}. If its columns "
        "have other names or another order, say so under `columns` of its model type in edgepack.yaml"
    )


def _array_or_frame(model: Any, array: dict[str, Any], frame: dict[str, Any], rows: "np.ndarray") -> dict[str, Any]:
    """For a model that tells no names: an array, or a frame where its code asks for names."""
    by_position, no_array = _tried(model, array, rows)
    by_name, no_frame = _tried(model, frame, rows, _NAMES_UNKNOWN)
    if no_array or no_frame:
        return _first_that_works(model, [array, frame], rows)
    if by_name.shape != by_position.shape or not np.allclose(by_name, by_position, rtol=1e-9, equal_nan=True):
        raise UnfitModelError(
            f"the model takes both an array and a frame with the columns {_listed(frame['names'])}, gives other "
            "features for each, and does not tell which one it was fitted on. Say so under `columns` of its "
            "model type in edgepack.yaml: "
            f"{{{', '.join(f'{name}: {name}' for name in array['columns'])}}} for a frame, "
            f"[{', '.join(array['columns'])}] for an array in that order"
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
            model.predict(reference_input(rows, component))
            return transform(model.named_steps["preprocessing"], component, rows), ""
    except Exception as error:  # noqa: BLE001 - the model's code may raise anything; the caller says so
        return np.empty(0), f"{type(error).__name__}: {error}"


def reference_input(rows: "np.ndarray", component: dict[str, Any]) -> Any:
    """The rows as the model was fitted on them. The component's own way to do that is checked against this."""
    by_column = dict(zip(inference.COLUMNS, rows.T, strict=True))
    if component["input"] == "frame":
        pandas = importlib.import_module("pandas")
        named = zip(component["names"], component["columns"], strict=True)
        return pandas.DataFrame({name: by_column[column] for name, column in named})
    return np.column_stack([by_column[column] for column in component["columns"]])


def with_columns(model: Any, settings: dict[str, Any], size: int, step: int) -> dict[str, Any]:
    """model.json with its columns. Raises UnfitModelError for a package of before they were recorded, if it gives the
    model its columns in another way than the model was fitted on."""
    if "columns" in settings:
        return settings
    kind, columns = settings.get("input", "array"), list(inference.COLUMNS)
    given = {"input": kind, "columns": columns, **({"names": columns} if kind == "frame" else {})}
    if given != (wanted := input_of(model, {}, size, step)):
        raise UnfitModelError(
            f"this package gives the model {_described(given)}, and the model takes {_described(wanted)}: "
            "materialize config_package again"
        )
    return {**settings, **given}


def recording(size: int, step: int, windows: int, seed: int) -> "np.ndarray":
    """A made-up power recording of that many windows: positive, noisy, with levels that change."""
    random = np.random.RandomState(seed)
    count = size + (windows - 1) * step
    levels = np.repeat(random.uniform(50.0, 5000.0, count // 7 + 1), 7)[:count]
    return levels[:, None] * random.uniform(0.8, 1.2, (count, len(inference.COLUMNS)))


def transform(preprocessing: Any, component: dict[str, Any], rows: "np.ndarray") -> "np.ndarray":
    """The features of the rows' windows."""
    return inference.as_features(preprocessing.transform(reference_input(rows, component)))
