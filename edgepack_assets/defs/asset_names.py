"""The names of the job and of its assets, for those that do not import Dagster."""

from __future__ import annotations

JOB = "package_model"
ASSETS = ("payload_data", "config_package", "prepped_data", "validation_results", "metrics", "deployment_package")
"""Of the job, in an order in which they can be made."""
