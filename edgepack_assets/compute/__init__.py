"""Where a run's work is done when it is not done on this machine: a service that runs jobs, and what it needs for them.

Belongs here: the interface of such a service (base.py), and its implementation for Azure ML (azure_ml/). Nothing here
knows Dagster: how a run becomes a job, and what comes back from it, is defs/remote/."""
