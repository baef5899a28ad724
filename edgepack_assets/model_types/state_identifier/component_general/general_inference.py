"""State identifiers with channels, windows or an estimator that inference.py does not know by itself.

Ships beside inference.py, which does the work, and only with models that need it: what other models ship stays byte for
byte as it is. model.json says what is different: `channels` (names of the inputs), `windows` (`size` and `step` in
records), `estimator` (the name of the model's last step), `classes` (of a classifier whose classes are no whole
numbers: the state is the place in this list).
"""

from types import SimpleNamespace
from typing import Any

import inference
import numpy as np


def use_channels(settings: dict) -> None:
    """Let inference.py read the channels of model.json, for the whole process: a component is one process."""
    inference.COLUMNS = tuple(settings["channels"])


def as_states(answers: Any, classes: "list[str] | None" = None) -> "np.ndarray":
    """What `predict` gave, as whole numbers. Raises ValueError for what is no list of states.

    With `classes` (texts) an answer becomes the place of its text in them."""
    answers = np.asarray(answers)
    if answers.ndim != 1:
        raise ValueError(f"predict gave an array of shape {answers.shape}, not one state for each window")
    if classes is not None:
        places = {name: place for place, name in enumerate(classes)}
        return np.array([places[str(answer)] for answer in answers], dtype=np.int64)
    if answers.dtype.kind not in "iufbO":
        raise ValueError(f"predict gave {answers.dtype}, not whole numbers")
    states = answers.astype(np.int64)
    if not (states == answers).all():
        raise ValueError("predict gave numbers with a fraction, which are no states: the estimator is a regressor")
    return states


class States:
    """The estimator as inference.py takes one: `predict` gives whole numbers."""

    def __init__(self, estimator: Any, classes: "list[str] | None") -> None:
        self.estimator, self._classes = estimator, classes
        self.inertia_ = getattr(estimator, "inertia_", 0.0)  # removed from the answers where the estimator has none

    def predict(self, features: Any) -> "np.ndarray":
        """The state of each window."""
        return as_states(self.estimator.predict(features), self._classes)


class Windowing:
    """The model's windowing with its sizes in records."""

    def __init__(self, step: Any, windows: dict) -> None:
        self._step = step
        self.window_size, self.window_step = windows["size"], windows["step"]

    def transform(self, data: Any) -> Any:
        """What the model's own step gives."""
        return self._step.transform(data)


class GeneralStateIdentifier(inference.StateIdentifier):
    """As StateIdentifier, with what model.json says."""

    def __init__(self, model: Any, settings: dict) -> None:
        use_channels(settings)
        steps = model.named_steps
        inner = dict(steps["preprocessing"].named_steps)
        inner["windowing"] = Windowing(inner["windowing"], settings["windows"])
        estimator = steps[settings["estimator"]]
        self._has_inertia = hasattr(estimator, "inertia_")
        self._classes = settings.get("classes")
        parts = {
            "preprocessing": SimpleNamespace(named_steps=inner),
            "clustering": States(estimator, self._classes),
        }
        super().__init__(SimpleNamespace(named_steps=parts), settings)

    def _answer(self) -> "dict | None":
        answer = super()._answer()
        if answer is None:
            return None
        if not self._has_inertia:
            del answer["inertia"]
        if self._classes is not None:
            answer["state_name"] = self._classes[answer["prediction"]]
        return answer
