"""Trains the state identifier. Runs in the training environment, with this folder first on sys.path.

    python train_state_identifier.py RECORDING MODEL

RECORDING is a .npy file of raw readings (rows x phases), MODEL the pickle to write. Prints, as JSON, the
Python it was trained with and the types that the model takes and gives.
"""

import json
import platform
import sys
from pathlib import Path

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
from si_training.preprocessing import (  # type: ignore[import-not-found]  # lies beside this script
    FeatureTransformer,
    FillMissingValues,
    SumColumnsTransformer,
    WindowTransformer,
)
from sklearn.cluster import KMeans
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler


def main(recording: Path, model: Path) -> None:
    """Fit the pipeline and save it as MLflow does by default, with cloudpickle."""
    readings = np.load(recording)
    preprocessing = Pipeline(
        [
            ("fillmissing", FillMissingValues("ffill")),
            ("summarization", SumColumnsTransformer()),
            ("windowing", WindowTransformer(window_size=300, window_step=300)),
            ("featurization", FeatureTransformer()),
            ("scaling", MinMaxScaler()),
        ]
    )
    clustering = KMeans(n_clusters=3, random_state=0, n_init=10)
    pipeline = Pipeline([("preprocessing", preprocessing), ("clustering", clustering)]).fit(readings)
    with model.open("wb") as stream:
        cloudpickle.dump(pipeline, stream)
    told = {
        "python": platform.python_version(),
        "input": str(readings.dtype),
        "columns": readings.shape[1],
        "output": str(pipeline.predict(readings).dtype),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
