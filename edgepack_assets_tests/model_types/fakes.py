"""Distributions with tiny model types, written as pip would install them, without installing anything."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

SOUND = """
import struct
import zlib
from edgepack_assets.model_types.interface import *

PNG = b"\\x89PNG\\r\\n\\x1a\\n"

class Report(UntrustedReport):
    factor: float

class Own(Section):
    factor: float = 2.0

class Fake(ModelType):
    interface_version = 1
    settings = Own
    metric_names = frozenset({"share"})
    inspection = Report

    def write_payload(self, raw, tags, writer, entry):
        for number in range(3):
            writer.add({"x": float(number)}, label="odd" if number % 2 else "even")
        return {"numbers": 3}

    def payload_rows(self, facts):
        return [CheckRow("numbers", facts["numbers"] > 0, str(facts["numbers"]), "at least 1")]

    def read_model(self, model, entry):
        return ModelSource({}, {"factor": entry.settings.factor}, (), None)

    def component_spec(self, inspection):
        return ComponentSpec("Multiplies", (Variable("x", "Double"),), (Variable("y", "Double"),))

    def score(self, payload, results, prepped, inspection):
        return Score({"share": 1.0}, (CheckRow("answers", True, "3", "3"),))

    def results_picture(self, payload, results, inspection):
        return PNG
"""

ENTRYPOINT = """
def process_input(record):
    return {"y": record["x"] * 2.0}
"""
CHILD_TASKS = """
import json
from pathlib import Path

def inspect_model(arguments):
    return {"factor": json.loads(Path("model.json").read_text())["factor"]}
"""


def install(
    site: Path, distribution: str, name: str, module: str, *, methods: str = "", source: str = SOUND,
    ends: str = "PLUGIN = Fake()", entrypoint: str = ENTRYPOINT,
) -> None:  # fmt: skip
    """Write the distribution with the model type `name` in the package `module`; `methods` replace those of Fake."""
    package = site / module
    (package / "component").mkdir(parents=True)
    (package / "__init__.py").write_text(f"{source}\n{indent(dedent(methods), '    ')}\n\n{ends}\n")
    (package / "component/entrypoint.py").write_text(entrypoint)
    (package / "child_tasks.py").write_text(CHILD_TASKS)
    info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[edgepack.model_types]\n{name} = {module}:PLUGIN\n")
