"""Trains the sample models, and writes each as a registry would hold it.

Training runs in its own environment, with a Python that the edge supports and the versions that are pinned in
training/requirements.txt. So the models are the same, whatever Python this project is installed on.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.uv import uv_command, uv_environment
from edgepack_assets.errors import EdgepackError
from edgepack_assets.quickstart import samples
from edgepack_assets.quickstart.mlflow_folder import Tensor, write_mlflow_folder

TRAINING = Path(__file__).parent / "training"
TRAINING_ROWS = 48_000

# What the pickle needs where it is loaded, in the order in which MLflow writes it. The rest of
# training/requirements.txt follows from these, or is for the other model.
_SAVED = ("cloudpickle", "numpy", "scikit-learn", "scipy")


@dataclass(frozen=True)
class Trainer:
    """The training environment: its interpreter, and where its packages come from."""

    interpreter: Path
    runtime: RuntimeSettings

    @classmethod
    def find(cls, runtime: RuntimeSettings, python_version: str | None = None) -> Trainer:
        """With a Python of this machine that the edge runs. Raises EnvironmentBuildError if there is none."""
        return cls(find_python(python_version, runtime.pythons)[1], runtime)

    def state_identifier(self, destination: Path) -> Path:
        """Train the state identifier and write its MLflow folder into `destination`; return the folder."""
        import numpy as np

        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            frame = samples.power_recording(samples.TRAINING_SEED, TRAINING_ROWS).frame
            np.save(work / "recording.npy", frame[list(samples.PHASES)].to_numpy())
            report = json.loads(self._run("train_state_identifier.py", work / "recording.npy", work / "model.pkl"))
            pins = pinned_versions()
            return write_mlflow_folder(
                destination / "state_identifier",
                pickle=work / "model.pkl",
                code=[TRAINING / "si_training"],
                requirements=[f"{name}=={pins[name]}" for name in _SAVED],
                python_version=report["python"],
                sklearn_version=pins["scikit-learn"],
                signature=(Tensor(report["input"], (-1, report["columns"])), Tensor(report["output"], (-1,))),
            )

    def digits_classifier(self, destination: Path) -> Path:
        """Train the classifier of digits and write `digits.onnx` into `destination`; return the file."""
        import numpy as np

        with tempfile.TemporaryDirectory() as name:
            images = Path(name) / "images.npz"
            training, _ = samples.digits()
            np.savez(images, images=training.images, labels=training.labels)
            self._run("train_digits.py", images, destination / "digits.onnx")
        return destination / "digits.onnx"

    def _run(self, script: str, *arguments: Path) -> str:
        index = [f"--extra-index-url={url}" for url in self.runtime.extra_index_urls]
        if self.runtime.index_url:
            index.append(f"--index-url={self.runtime.index_url}")
        command = uv_command(
            "run", "--no-project", "--no-python-downloads", "--no-build", *index,
            f"--python={self.interpreter}", f"--with-requirements={TRAINING / 'requirements.txt'}",
            str(TRAINING / script), *map(str, arguments),
        )  # fmt: skip
        limit = self.runtime.time_limit
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=uv_environment(), cwd=TRAINING, check=False,
                timeout=limit,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise EdgepackError(
                f"training the sample model with {script} took longer than runtime.time_limit, {limit:g} s"
            ) from None
        if done.returncode != 0:
            output = done.stderr.strip()[-2000:]
            raise EdgepackError(f"training the sample model with {script} failed:\n{output}")
        return done.stdout


def pinned_versions() -> dict[str, str]:
    """Package -> version of the training environment."""
    lines = (TRAINING / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if "==" in line)
    return {name: version.strip() for name, version in pins}
