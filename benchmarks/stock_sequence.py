"""The reference's own sequence with the stock SDK, run as a process of its own: Pipeline.save, LocalPipelineRunner on
the config package over the whole payload, convert_package.

Arguments: the component's folder, its requirements.txt, the payload (gzipped JSON lines), a work folder.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("SIMATICAI_TELEMETRY", "deny")

from simaticai.deployment import Pipeline, PythonComponent, convert_package
from simaticai.testing.pipeline_runner import LocalPipelineRunner

INPUTS = ("ph1", "ph2", "ph3")


def main(component_folder: Path, requirements: Path, payload: Path, work: Path) -> None:
    """Run the sequence and print the seconds of its parts as JSON."""
    marks = [time.perf_counter()]
    component = PythonComponent(name="inference", python_version=f"{sys.version_info.major}.{sys.version_info.minor}")
    component.add_resources(component_folder, sorted(path.name for path in component_folder.iterdir()))
    component.set_entrypoint("entrypoint.py")
    component.set_requirements(requirements)
    for name in INPUTS:
        component.add_input(name, "Double")
    component.add_output("prediction", "Integer")
    component.add_output("inertia", "Double")
    for name in ("model_input_min", "model_input_max", "model_input_mean"):
        component.add_metric(name)
    pipeline = Pipeline.from_components([component], name="State Identifier", version="1")
    pipeline.add_parameter("step_size", 300, "Integer")
    package = pipeline.save(work)
    marks.append(time.perf_counter())
    with gzip.open(payload, "rt") as stream:
        records = [json.loads(line) for line in stream]
    with LocalPipelineRunner(package, path=work / "run") as runner:
        answers = runner.run_component("inference", records)
    marks.append(time.perf_counter())
    convert_package(package)
    marks.append(time.perf_counter())
    parts = dict(zip(("save", "run", "convert"), (b - a for a, b in itertools.pairwise(marks)), strict=True))
    (work / "told.json").write_text(json.dumps({**parts, "answers": len(answers or [])}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
