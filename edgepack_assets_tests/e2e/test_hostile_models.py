"""Registered models that mean harm when they are loaded, taken through a whole run: nothing leaks, nothing is
registered of those that fail, nothing of the plant changes, and the next run works."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from edgepack_assets_tests.e2e.conftest import Plant

pytestmark = pytest.mark.usefixtures("kept_helpers")

CANARY = "canary-7f3a9c"
TYPE = {"implementation": "state_identifier", "raw_data": {"name": "state_identifier_raw"}}


@dataclass
class Harm:
    """Python that a model's pickle runs when it is loaded."""

    code: str

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (self.code,)


def harmful(folder: Path, variants: Path, code: str, then: str = "sparse") -> Path:
    """A model folder whose pickle first runs `code` and then is the sound model of a variant."""
    path = folder / "model"
    shutil.copytree(variants / then, path)
    sound = (path / "model.pkl").read_bytes()
    # pickles follow one another on a stream; joblib and pickle give the first, so the harm loads the second itself
    script = folder / "pack.py"
    script.write_text(
        "import pickle, sys\n"
        "class Model:\n"
        "    def __init__(self, code, sound): self.code, self.sound = code, sound\n"
        "    def __reduce__(self):\n"
        "        both = {'code': self.code, 'sound': self.sound}\n"
        "        return eval, ('[exec(code, {}), __import__(\"pickle\").loads(sound)][1]', both)\n"
        "code, sound = open(sys.argv[1]).read(), open(sys.argv[2], 'rb').read()\n"
        "open(sys.argv[2], 'wb').write(pickle.dumps(Model(code, sound)))\n"
    )
    (folder / "code.py").write_text(code)
    (path / "model.pkl").write_bytes(sound)
    subprocess.run([sys.executable, script, folder / "code.py", path / "model.pkl"], check=True)
    return path


def partition_of(plant: Plant, name: str, model: Path) -> str:
    """The partition of the model, registered for a model type of its own."""
    plant.configure(**{name: {**TYPE, "model_name": name, "package_name": name}})
    return f"{name}:{plant.add_model(name, model)}"


def package(plant: Plant, name: str, model: Path) -> tuple[bool, str]:
    """(success, everything logged) of packaging the model."""
    done = plant.materialize(partition_of(plant, name, model), check=False)
    return done.returncode == 0, done.stdout


@pytest.fixture
def secret(plant: Plant) -> Iterator[None]:
    """A secret in the environment of the commands, as a pipeline's credential is."""
    plant.environment["AZURE_CLIENT_SECRET"] = CANARY
    yield
    del plant.environment["AZURE_CLIENT_SECRET"]


ESCAPES = """
import glob, os, pathlib, socket, subprocess
seen = [repr(dict(os.environ))]
for path in glob.glob('/proc/[0-9]*/environ'):
    try: seen.append(open(path, 'rb').read().decode(errors='replace'))
    except OSError: pass
for place in {places!r}:
    try: (pathlib.Path(place) / 'harm-was-here').write_text('x')
    except OSError: pass
reached = False
try:
    socket.create_connection(('127.0.0.1', {port}), 2).close()
    reached = True
except OSError: pass
subprocess.Popen(['sleep', {marker!r}], start_new_session=True, env={{}})
print('SEEN', ' '.join(seen), 'REACHED', reached)
"""


def test_a_model_that_tries_to_escape_gains_nothing(
    plant: Plant, environments: Path, variants: Path, tmp_path: Path, secret: None
) -> None:
    """The model works once loaded, so it is packaged; what it tried came to nothing."""
    marker = "600.314159265"
    state = plant.folder / ".edgepack"
    places = [str(plant.folder), str(tmp_path), *(str(path) for path in state.iterdir() if path.is_dir()), "/tmp",
              *(str(path) for path in environments.iterdir() if path.is_dir())]  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.settimeout(0)
        code = ESCAPES.format(places=places, port=port, marker=marker)
        partition = partition_of(plant, "escape", harmful(tmp_path, variants, code))
        # A command of its own: what it has in its environment, a secret too, is seen in /proc by who may look there.
        done = plant.run("dagster", "asset", "materialize", "--select", "*", "--partition", partition, check=False)
        said = done.stdout + done.stderr
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert done.returncode == 0, said[-4000:]
    assert "SEEN" in said
    assert "REACHED False" in said
    assert CANARY not in said
    assert [str(path) for place in places for path in Path(place).glob("harm-was-here")] == []
    assert subprocess.run(["pgrep", "-f", f"sleep {marker}"], check=False, capture_output=True).stdout == b""
    (made,) = plant.packages("escape-edge")
    assert CANARY not in repr(made.tags)
    for folder in (state / "artefacts", state / "registry", state / "dagster"):
        found = subprocess.run(["grep", "-rlaF", CANARY, str(folder)], check=False, capture_output=True, text=True)
        assert found.stdout == ""


GREEDY = {
    "bytearray(100 << 30)": "MemoryError",
    "f = open('big', 'wb')\nwhile True: f.write(b'x' * (1 << 20))": "File too large",
    "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass": "ran longer than 4 s",
    "import os\nos._exit(0)": "exited with code 0 before it gave a result",
    "import os\nfor n in range(1024): os.write(1, b'x' * (1 << 20))\n1 / 0": "further bytes of output",
}
"""What takes too much, and what the run says of it. What multiplies takes all processors until its limit of time."""


def test_models_that_take_too_much_fail_and_the_next_run_works(plant: Plant, variants: Path, tmp_path: Path) -> None:
    before = plant.config.read_text()
    document = yaml.safe_load(before)
    for number, (code, told) in enumerate(GREEDY.items()):
        limits = {"time_limit": 4 if "fork" in code else 10, "disk_limit": 0.25}
        plant.config.write_text(yaml.safe_dump({**document, "runtime": {**document["runtime"], **limits}}))
        folder = tmp_path / str(number)
        folder.mkdir()
        success, said = package(plant, "greedy", harmful(folder, variants, code))
        assert not success, code
        # Whoever looks at what it takes may be faster than the limit that it runs into itself.
        assert told in said or "(runtime." in said, code
    assert plant.packages("greedy-edge") == []
    plant.config.write_text(before)
    assert package(plant, "greedy", variants / "sparse")[0]
    (made,) = plant.packages("greedy-edge")
    assert made.tags["model_version"] == str(len(GREEDY) + 1)


def test_a_pickle_raises_in_the_room_and_not_here(plant: Plant, variants: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(variants / "sparse", path)
    code = (
        f"import os\ntry: open({str(tmp_path / 'ran')!r}, 'w')\nexcept OSError: pass\n"
        "raise ValueError(f'raised in {os.getpid()}')"
    )
    (path / "model.pkl").write_bytes(pickle.dumps(Harm(code)))
    success, said = package(plant, "raises", path)
    assert not success
    assert not (tmp_path / "ran").exists()
    raised_in = set(re.findall(r"ValueError: raised in (\d+)", said))
    assert raised_in and str(os.getpid()) not in raised_in, said[-4000:]
    assert plant.packages("raises-edge") == []
