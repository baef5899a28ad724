"""Run in an environment of its own: copies of a state identifier whose clusters have other numbers, as another seed of
the training gives them, and one with a cluster more. Arguments: the model's MLflow folder, the folder to write into."""

import copy
import shutil
import sys
from pathlib import Path

import cloudpickle
import numpy as np

source, out = map(Path, sys.argv[1:])
sys.path.insert(0, str(source / "code"))
model = cloudpickle.loads((source / "model.pkl").read_bytes())


def write(name: str, centres: np.ndarray) -> None:
    """A copy of the model with these centres of clusters."""
    changed = copy.deepcopy(model)
    changed.named_steps["clustering"].cluster_centers_ = np.ascontiguousarray(centres)
    changed.named_steps["clustering"].n_clusters = len(centres)
    shutil.copytree(source, out / name)
    (out / name / "model.pkl").write_bytes(cloudpickle.dumps(changed))


centres = model.named_steps["clustering"].cluster_centers_
write("first", centres)
write("second", centres[[1, 2, 0]])
write("third", centres[[0, 2, 1]])
write("one_more", np.vstack([centres, centres[:1] * 0.999]))
