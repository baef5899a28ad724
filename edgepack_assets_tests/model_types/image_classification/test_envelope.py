"""The envelope of an image classifier, learned from cuttings of two photographs, in a process of its own."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from edgepack_assets.model_types import envelope
from edgepack_assets.model_types.envelope.fault_probes import FaultProbes
from edgepack_assets.sandbox.untrusted_values import parse_report

from .helpers import MODEL_TYPE, encoded

CLASSIFIER = '''
class Classifier:
    """Which of red and blue there is more of."""

    def classify(self, image):
        red, _, blue = image.resize((1, 1)).getpixel((0, 0))
        return int(red > blue), 0.9


def load(folder):
    return Classifier()
'''
RUN = """
import importlib, json, sys
sys.path[:0] = ["."]
task = importlib.import_module("child_image_envelope")
print(json.dumps(getattr(task, sys.argv[1])(json.loads(sys.argv[2])), allow_nan=False))
"""
ANSWER = """
import gzip, importlib, json, sys
sys.path[:0] = ["."]
entrypoint = importlib.import_module("entrypoint")
print(json.dumps([entrypoint.process_input(json.loads(line)) for line in gzip.open(sys.argv[1])]))
"""
SIDE = 96


@pytest.fixture
def component(tmp_path: Path) -> Path:
    """A component with an envelope and a classifier that needs no runtime."""
    own = MODEL_TYPE.folder
    for folder in (own / "component", envelope.FOLDER, own / "component_envelope"):
        for file in folder.glob("*.py"):
            shutil.copyfile(file, tmp_path / file.name)
    (tmp_path / "inference.py").write_text(CLASSIFIER)
    shutil.copyfile(own / MODEL_TYPE.envelope_tasks, tmp_path / MODEL_TYPE.envelope_tasks)
    (tmp_path / "model.json").write_text("{}")
    return tmp_path


def cuttings(seed: int, count: int) -> list[Image.Image]:
    """Of nearly the same place of each photograph, as a camera above a line sees it."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        photo = load_sample_images().images[number % 2]
        top, left = random.integers(100, 140, 2)
        found.append(Image.fromarray(photo[top : top + SIDE, left : left + SIDE]))
    return found


def records(file: Path, images: list[Image.Image]) -> dict[str, Any]:
    with gzip.open(file, "wt") as stream:
        for image in images:
            uri = "data:image/png;base64," + base64.b64encode(encoded(image)).decode()
            stream.write(json.dumps({"vision_payload": json.dumps({"image": uri})}) + "\n")
    return {"records": str(file), "count": len(images)}


def in_child(component: Path, script: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=component, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.long
def test_what_is_learned_notices_faults_and_no_other_images_of_the_kind(component: Path) -> None:
    task = records(component / "records", cuttings(1, 200))
    learned = in_child(component, RUN, "learn_envelope", json.dumps(task))
    parse_report("learning", envelope.LearnedEnvelope, learned)
    plain = in_child(component, RUN, "probe_faults", json.dumps(task))
    (component / "model.json").write_text(json.dumps({"envelope": learned}))
    noticed = in_child(component, RUN, "probe_faults", json.dumps(task))
    probes = FaultProbes(Path("records"), 200, warns=False)
    assert {row.name: row.passed for row in probes.rows(noticed)[0]}["images as they are lie in the envelope"]
    assert not probes.rows(plain)[0][0].passed
    by_name = {probe["name"]: probe for probe in noticed["probes"]}
    for name in ("dark: brightness times 0.3", "noise of 25 of 255", "a quarter of the rows black"):
        assert by_name[name]["noticed"] >= 0.9 * by_name[name]["records"], by_name[name]
    stuck = by_name["one image for all: the camera is stuck"]
    assert stuck["unnoticed"] <= 2 < stuck["changed"]
    later = cuttings(2, 60)
    records(component / "later", [*later, *(image.point(lambda value: value // 4) for image in later)])
    answers = in_child(component, ANSWER, "later")
    assert {tuple(answer) for answer in answers} == {
        ("prediction", "ic_probability", "envelope_distance", "envelope_repeated")
    }
    far = np.array([json.loads(answer["envelope_distance"])["value"] for answer in answers]) > 1
    assert far[:60].mean() <= 0.1
    assert far[60:].mean() >= 0.9


def test_a_record_without_an_image_has_no_answer(component: Path) -> None:
    task = records(component / "records", cuttings(3, 20))
    learned = in_child(component, RUN, "learn_envelope", json.dumps(task))
    (component / "model.json").write_text(json.dumps({"envelope": learned}))
    with gzip.open(component / "bad", "wt") as stream:
        stream.write('{"vision_payload": null}\n{}\n')
    assert in_child(component, ANSWER, "bad") == [None, None]
