"""The packaged model: a record in, its score and alarm out."""

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np


def load_model(folder: Path) -> "tuple[Any, dict[str, Any]]":
    """(model, settings) of the component's folder."""
    settings = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return joblib.load(folder / settings["file"]), settings


class Detector:
    """Answers records one by one; one with a missing value gets no answer."""

    def __init__(self, model: Any, columns: "list[str]", threshold: float) -> None:
        self.model, self.columns, self.threshold = model, columns, threshold
        self.names = getattr(model, "feature_names_in_", None)

    def process(self, record: "dict[str, Any]") -> "dict[str, Any] | None":
        """Score a record."""
        values = [record[name] for name in self.columns if record.get(name) is not None]
        if len(values) < len(self.columns):
            return None
        score = -float(self.model.score_samples(self._rows(values))[0])
        return {"score": score, "alarm": score >= self.threshold}

    def _rows(self, values: "list[float]") -> Any:
        rows = np.array([values], dtype=np.float64)
        if self.names is None:
            return rows
        import pandas

        return pandas.DataFrame(rows, columns=self.columns)[list(self.names)]
