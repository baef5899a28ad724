"""A run's work as one job on another machine: what is between Dagster and the job service of `compute/`.

executor.py is the executor that Dagster runs here; inside.py is what runs in the job. They exchange messages through
the artefact store (mailbox.py). request.py is what the job is given, code_folder.py the code that it runs, watch.py when a
job is given up, output_files.py the files that a run writes here. What both sides need of Dagster that is no public
interface is in dagster_internals.py, and nowhere else. How it works: docs/design/remote-runs.md.
"""
