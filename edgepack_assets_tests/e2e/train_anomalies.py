"""Fits an IsolationForest on rows of numbers: ROWS.npy MODEL_FOLDER SEED."""

import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.ensemble import IsolationForest

rows, folder, seed = np.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
folder.mkdir()
model = IsolationForest(n_estimators=30, contamination=0.01, random_state=seed).fit(rows)
joblib.dump(model, folder / "model.joblib")
(folder / "requirements.txt").write_text("scikit-learn==1.5.2\nnumpy==1.26.4\n")
