"""A run's work as one job on another machine: what is between Dagster and the job service of `compute/`.

    executor.py           the executor that Dagster runs here, and where a run is done
    remote_run.py         one run and its job
    watch.py              when a job is given up
    mailbox.py            messages through the artefact store
    request.py            what the job is given
    code_folder.py        the code that the job runs; bootstrap.py starts it
    output_files.py       files that a run writes here
    inside.py             what runs in the job
    worker.py             which process follows a run's job
    dagster_internals.py  what this side needs of Dagster that is no public interface; dagster_in_job.py: the job's

How it works: docs/design/remote-runs.md."""
