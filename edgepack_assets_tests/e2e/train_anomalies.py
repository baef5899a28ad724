"""Makes a recording of a pump with labelled events, and an IsolationForest: RECORDING MODEL_FOLDER SEED."""

import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest

recording, folder, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
random = np.random.default_rng(7)
values = random.normal([2.0, 40.0, 60.0], [0.1, 1.0, 0.5], (600, 3))
event = np.zeros(600, dtype=bool)
event[[50, 51, 200, 201, 202, 430, 555]] = True
values[event] += [2.0, 15.0, 9.0]
columns = ["vibration", "current", "temperature"]
pd.DataFrame(values, columns=columns).assign(event=event, ignored="x").to_parquet(recording)
folder.mkdir(exist_ok=True)
model = IsolationForest(n_estimators=30, contamination=0.01, random_state=seed).fit(values[~event])
joblib.dump(model, folder / "model.joblib")
(folder / "requirements.txt").write_text("scikit-learn==1.5.2\nnumpy==1.26.4\n")
