"""A retrained clustering numbers its states anew: on the line they keep their numbers."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import open_store
from edgepack_assets.config.loader import load_settings
from edgepack_assets.model_types.interface import Results
from edgepack_assets.registry.base import RegisteredVersion
from edgepack_assets_tests.e2e.conftest import OF_VARIANTS, Plant, run_with

pytestmark = pytest.mark.usefixtures("kept_helpers")

TYPE = {"implementation": "state_identifier", "model_name": "numbered", "package_name": "numbered",
        "raw_data": {"name": "state_identifier_raw"}}  # fmt: skip
RUN_IS_TAKEN = "this package was run over this payload to compare its numbers: that run is taken"


def load(plant: Plant, asset: str, partition: str) -> Artefact:
    return open_store(load_settings(plant.config)).load(asset, partition)


def states(plant: Plant, partition: str) -> list[int]:
    store = open_store(load_settings(plant.config))
    file = store.fetch(load(plant, "validation_results", partition).parts["results"])
    return [answer.outputs["prediction"] for answer in Results(file).answers()]


def shipped_json(package: RegisteredVersion) -> tuple[set[str], dict[str, Any]]:
    """Files of the component in a registered package, and its model.json."""
    place = Path(package.location)
    with zipfile.ZipFile(place if place.is_file() else next(place.rglob("*.zip"))) as archive:
        (inside,) = (name for name in archive.namelist() if name.startswith("components/") and name.endswith(".zip"))
        with archive.open(inside) as stream, zipfile.ZipFile(stream) as component:
            return set(component.namelist()), json.loads(component.read("model.json"))


def test_states_keep_their_numbers_over_retrainings(plant: Plant, variants: Path, tmp_path: Path) -> None:
    run_with(OF_VARIANTS, "renumber_states.py", variants / "overlapping", tmp_path)
    plant.configure(numbered=TYPE)
    first, second, third = (f"numbered:{plant.add_model('numbered', tmp_path / name)}"
                            for name in ("first", "second", "third"))  # fmt: skip
    plant.materialize(first)
    plant.materialize(second)
    assert states(plant, second) == states(plant, first)
    assert len(set(states(plant, first))) == 3
    packages = plant.packages("numbered-edge")
    files, model_json = shipped_json(packages[0])
    assert "model_entrypoint.py" not in files and "renumbering" not in model_json
    files, model_json = shipped_json(packages[1])
    assert "model_entrypoint.py" in files
    assert model_json["renumbering"] == {"output": "prediction", "numbers": [[0, 1], [1, 2], [2, 0]]}
    assert packages[1].tags["content_digest"] != packages[0].tags["content_digest"]
    # The same again gives the same package.
    plant.materialize(second, "config_package")
    plant.materialize(second)
    assert plant.packages("numbered-edge") == packages

    # Nothing is left of the run that made the package before: the registered package itself is asked.
    root = Path(load_settings(plant.config).artefacts.root)
    for manifests in (root / "manifests").iterdir():
        shutil.rmtree(manifests / "numbered")
    assert RUN_IS_TAKEN not in plant.materialize(third).stdout  # another package was compared than ships
    _, model_json = shipped_json(plant.packages("numbered-edge")[2])
    assert model_json["renumbering"]["numbers"] == [[0, 0], [1, 2], [2, 1]]

    # One state more has no number on the line: a person decides.
    fourth = f"numbered:{plant.add_model('numbered', tmp_path / 'one_more')}"
    done = plant.materialize(fourth, check=False)
    assert done.returncode != 0
    assert "states keep their numbers: 4 states, and 3 before" in done.stdout
    assert RUN_IS_TAKEN in done.stdout
    assert len(plant.packages("numbered-edge")) == 3
    done = plant.materialize(fourth, "deployment_package", check=False)
    assert done.returncode != 0 and "states keep their numbers" in done.stdout
    plant.materialize(fourth, "deployment_package", override_gates_reason="the PLC knows state 3")
    package = plant.packages("numbered-edge")[3]
    assert package.tags["gates_overridden"] == "the PLC knows state 3"
    assert "states keep their numbers: 4 states" in package.tags["gates_overridden_failed"]
