"""From a recording to a model that edgepack packages: docs/training.md.

    python train.py recording.parquet

trains a state identifier, logs it with MLflow (`MLFLOW_TRACKING_URI` says where; without it, below ./mlruns), and
prints the folder of the logged model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow
import pandas as pd
from power_features import Features, Windows
from sklearn.cluster import KMeans
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

COLUMNS = ["ph1", "ph2", "ph3"]
HERE = Path(__file__).parent


def train(recording: Path, states: int = 3) -> Pipeline:
    """A fitted pipeline of the two steps that a state identifier has: `preprocessing`, whose step `windowing` tells
    size and step of the windows, and `clustering`."""
    readings = pd.read_parquet(recording, columns=COLUMNS)
    preprocessing = Pipeline([("windowing", Windows()), ("features", Features()), ("scaling", StandardScaler())])
    clustering = KMeans(n_clusters=states, n_init=10, random_state=0)
    return Pipeline([("preprocessing", preprocessing), ("clustering", clustering)]).fit(readings)


def log(model: Pipeline, recording: Path) -> Path:
    """Log the model with its own code and an example of its input, and return the folder of the logged model."""
    example = pd.read_parquet(recording, columns=COLUMNS).head(600)
    with mlflow.start_run(run_name="state identifier"):
        mlflow.log_metric("inertia", model["clustering"].inertia_)
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            code_paths=[str(HERE / "power_features")],
            signature=mlflow.models.infer_signature(example, model.predict(example)),
            # MLflow 3 would save with skops, which must be told that these classes are trusted.
            serialization_format="cloudpickle",
        )
    return Path(mlflow.artifacts.download_artifacts(logged.model_uri))


if __name__ == "__main__":
    given = Path(sys.argv[1])
    print(log(train(given), given))
