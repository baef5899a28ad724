"""Fits an IsolationForest on rows of numbers, with each seed: ROWS.npy FOLDER SEED... writes FOLDER/model-SEED."""

import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.ensemble import IsolationForest

rows = np.load(sys.argv[1])
for seed in sys.argv[3:]:
    folder = Path(sys.argv[2]) / f"model-{seed}"
    folder.mkdir()
    model = IsolationForest(n_estimators=30, contamination=0.01, random_state=int(seed)).fit(rows)
    joblib.dump(model, folder / "model.joblib")
    pins = "cloudpickle==3.1.1\nnumpy==1.26.4\nscikit-learn==1.5.2\nscipy==1.14.1\n"  # the quickstart's
    (folder / "requirements.txt").write_text(pins)
