"""What the last step of a state identifier's model is: whether it can answer new windows, which states, how scored.

Belongs to child_tasks.py: runs in the component's environment, beside the component's files.
"""

import importlib
import math
from dataclasses import dataclass
from typing import Any

import inference
import numpy as np
from child_columns import UnfitModelError

_PERIOD_MS = 250
_MOST_STATES = 10_000
_CAN_PREDICT = "KMeans, MiniBatchKMeans, BisectingKMeans, GaussianMixture, BayesianGaussianMixture, Birch, MeanShift"
_TRANSDUCTIVE = ("DBSCAN", "OPTICS", "HDBSCAN", "AgglomerativeClustering", "FeatureAgglomeration", "SpectralClustering")


@dataclass(frozen=True)
class Steps:
    """The parts of a model. `name` is that of the step `estimator`; `size` and `step` are a window's in records.

    `is_general`: the component needs general_inference.py to run it."""

    preprocessing: Any
    windowing: Any
    name: str
    estimator: Any
    size: int
    step: int
    is_general: bool

    @property
    def has_inertia(self) -> bool:
        """Whether the estimator tells the inertia of its fit."""
        return hasattr(self.estimator, "inertia_")


def known_steps(model: Any, settings: dict[str, Any]) -> Steps:
    """The parts of the model, given model.json. Raises UnfitModelError for a model of another build."""
    steps = getattr(model, "named_steps", None)
    working = [name for name, step in model.steps if step not in (None, "passthrough")] if steps is not None else []
    if steps is None or "preprocessing" not in steps or working[-1:] == ["preprocessing"]:
        parts = ", ".join(steps) if steps is not None else type(model).__name__
        raise UnfitModelError(
            "the model is not a scikit-learn Pipeline with the steps 'preprocessing' and then an estimator, such as "
            f"'clustering' (found: {parts})"
        )
    if len(working) != 2 or working[0] != "preprocessing":
        raise UnfitModelError(
            f"the model has the steps {', '.join(working)}, but the component runs 'preprocessing' and then one "
            "estimator alone: move what the others do into 'preprocessing'"
        )
    preprocessing, estimator = steps["preprocessing"], steps[working[1]]
    inner = getattr(preprocessing, "named_steps", {})
    if "windowing" not in inner:
        raise UnfitModelError(f"the preprocessing has no step 'windowing' (found: {', '.join(inner) or 'no steps'})")
    _check_estimator(working[1], estimator)
    windowing = inner["windowing"]
    size, step, from_step = _windows(windowing, settings)
    is_general = (
        "channels" in settings or not from_step or working[1] != "clustering" or not hasattr(estimator, "inertia_")
    )
    return Steps(preprocessing, windowing, working[1], estimator, size, step, is_general)


def _check_estimator(name: str, estimator: Any) -> None:
    kind = type(estimator).__name__
    subject = f"the step '{name}' ({kind})"
    if not hasattr(estimator, "predict"):
        why = (
            "it finds clusters among the windows that it was fitted on, and cannot say to which a new window belongs"
            if kind in _TRANSDUCTIVE or hasattr(estimator, "fit_predict")
            else "it cannot say which state a window belongs to"
        )
        raise UnfitModelError(
            f"{subject} has no predict: {why}. Use one that can ({_CAN_PREDICT}), or train a classifier on the labels "
            "that it found"
        )
    if not type(estimator).__module__.startswith("sklearn."):
        return  # a project's own need not follow scikit-learn's conventions; what it predicts is looked at
    base, validation = importlib.import_module("sklearn.base"), importlib.import_module("sklearn.utils.validation")
    exceptions = importlib.import_module("sklearn.exceptions")
    try:
        validation.check_is_fitted(estimator)
    except exceptions.NotFittedError:
        raise UnfitModelError(f"{subject} is not fitted: register the model after its training") from None
    if isinstance(_last(estimator), base.RegressorMixin):
        raise UnfitModelError(
            f"{subject} is a regressor: it predicts numbers, not states. Use a clustering or a classifier"
        )
    centres = getattr(_last(estimator), "cluster_centers_indices_", None)
    if centres is not None and len(centres) == 0:
        raise UnfitModelError(
            f"{subject} did not converge in its training, so it has no clusters and would answer -1 to everything: fit "
            "it again with another damping, preference or max_iter"
        )


def _windows(windowing: Any, settings: dict[str, Any]) -> "tuple[int, int, bool]":
    """Size and step of a window in records, and whether the step itself says them so."""
    configured = _configured_windows(settings)
    if hasattr(windowing, "window_size") or not (hasattr(windowing, "window_seconds") or configured):
        windows, from_step = (_positive(windowing, "window_size"), _positive(windowing, "window_step")), True
    elif hasattr(windowing, "window_seconds"):
        names = ("window_seconds", "window_step_seconds")
        seconds = [getattr(windowing, name, None) for name in names]
        windows, from_step = (
            (
                _in_records(f"the step 'windowing' has {names[0]}", seconds[0], settings),
                _in_records(f"the step 'windowing' has {names[1]}", seconds[1], settings),
            ),
            False,
        )
    else:
        assert configured is not None
        return (*configured, False)
    if configured is not None and configured != windows:
        raise UnfitModelError(
            f"the step 'windowing' has windows of {windows[0]} records, {windows[1]} apart, and `windows` in "
            f"edgepack.yaml means {configured[0]} records, {configured[1]} apart: correct it, or remove it"
        )
    return (*windows, from_step)


def _configured_windows(settings: dict[str, Any]) -> "tuple[int, int] | None":
    windows = settings.get("windows_setting")
    if windows is None:
        return None
    if windows.get("records") is not None:
        return int(windows["records"]), int(windows.get("step_records") or windows["records"])
    seconds = windows["seconds"]
    return (
        _in_records("`windows` in edgepack.yaml has seconds", seconds, settings),
        _in_records("`windows` in edgepack.yaml has step_seconds", windows.get("step_seconds") or seconds, settings),
    )


def _in_records(subject: str, seconds: Any, settings: dict[str, Any]) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float, np.integer, np.floating)) or not seconds > 0:
        raise UnfitModelError(f"{subject} = {seconds!r}; it must be a number above 0")
    period = settings.get("period_ms", _PERIOD_MS)
    records = float(seconds) * 1000 / period
    if not math.isfinite(records) or abs(records - round(records)) > 1e-6 * records or round(records) < 1:
        raise UnfitModelError(
            f"{subject} = {seconds}, which is {records:.6g} records of {period} ms (`sampling_period_ms`): it must be "
            "a whole number of records"
        )
    whole: int = round(records)
    return whole


def _positive(windowing: Any, name: str) -> int:
    value = getattr(windowing, name, None)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise UnfitModelError(
            f"the step 'windowing' has {name} = {value!r}; it must be an integer from 1 up. (A step whose windows are "
            "in seconds has window_seconds and window_step_seconds instead; of one that says nothing, `windows` in "
            "edgepack.yaml can.)"
        )
    return int(value)


def component_part(steps: Steps, settings: dict[str, Any]) -> dict[str, Any]:
    """What model.json gets of it, for general_inference.py; empty where inference.py does alone."""
    if not steps.is_general:
        return {}
    known = states_of(steps.estimator)
    return {
        "channels": list(settings.get("channels", inference.COLUMNS)),
        "windows": {"size": steps.size, "step": steps.step},
        "estimator": steps.name,
        **({"classes": known.classes} if known.are_places else {}),
    }


@dataclass(frozen=True)
class KnownStates:
    """The states that `predict` can give, None where that is not known; of a classifier also the text of each class.

    `are_places`: the classes are no whole numbers, and a state is the place of its class."""

    states: "list[int] | None" = None
    classes: "list[str] | None" = None
    are_places: bool = False


def states_of(estimator: Any) -> KnownStates:
    """What the estimator tells of its states. Raises UnfitModelError for classes that are no states."""
    last = _last(estimator)
    if (classes := getattr(estimator, "classes_", None)) is not None:
        return _states_of_classes(estimator, classes)
    if hasattr(last, "offset_") and hasattr(last, "fit_predict"):
        return KnownStates([-1, 1])  # scikit-learn's detectors of outliers
    if (labels := getattr(last, "subcluster_labels_", None)) is not None:
        states = sorted({int(label) for label in np.asarray(labels).ravel()})
    else:
        parts = (getattr(last, "weights_", None) if is_mixture(last) else None, getattr(last, "cluster_centers_", None))
        count = next((len(part) for part in parts if part is not None), getattr(last, "n_clusters", None))
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
            return KnownStates()
        states = list(range(int(count)))
    if len(states) > _MOST_STATES:
        raise UnfitModelError(f"the model has {len(states)} states; at most {_MOST_STATES} are taken")
    return KnownStates(states)


def _last(estimator: Any) -> Any:
    """The estimator that answers, where it is the end of a pipeline or the best of a search."""
    while True:
        inner = getattr(estimator, "best_estimator_", None)
        steps = getattr(estimator, "steps", None)
        if inner is None and isinstance(steps, list) and steps:
            inner = steps[-1][1]
        if inner is None:
            return estimator
        estimator = inner


def _states_of_classes(estimator: Any, classes: Any) -> KnownStates:
    if isinstance(classes, list) or np.asarray(classes).ndim != 1:
        raise UnfitModelError(
            f"the estimator ({type(estimator).__name__}) gives several answers to a window: train it on one label"
        )
    array = np.asarray(classes)
    values = array.tolist()
    if len(values) > _MOST_STATES:
        raise UnfitModelError(f"the classifier has {len(values)} classes; at most {_MOST_STATES} are taken")
    if array.dtype.kind in "iub" or (array.dtype.kind == "f" and all(value.is_integer() for value in values)):
        numbers = [int(value) for value in values]
        return KnownStates(numbers, [str(number) for number in numbers])
    texts = [str(value) for value in values]
    if len(set(texts)) != len(texts):
        raise UnfitModelError(f"two classes of the classifier read alike: {', '.join(sorted(texts)[:20])}")
    return KnownStates(list(range(len(texts))), texts, are_places=True)


def free_parameters(estimator: Any) -> "int | None":
    """The number of a Gaussian mixture's free parameters, which its BIC counts; None for other estimators."""
    if not (is_mixture(estimator) and hasattr(estimator, "bic")):
        return None
    means = np.asarray(estimator.means_)
    points = np.vstack([means, means])  # BIC = -2 * log likelihood + parameters * log(points)
    count = len(points)
    count_of_all: int = round((estimator.bic(points) + 2 * count * estimator.score(points)) / math.log(count))
    return count_of_all


def is_mixture(estimator: Any) -> bool:
    """Whether it is a mixture of scikit-learn, which tells the log likelihood of a window."""
    return any(base.__module__.startswith("sklearn.mixture") for base in type(estimator).__mro__)
