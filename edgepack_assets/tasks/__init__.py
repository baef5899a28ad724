"""The work of each asset as plain functions from artefacts and settings to artefacts. No Dagster in here.

Here are a module for each of the six assets and what these share. Each room's own docstring says what belongs in it;
which may import which is in pyproject.toml, under "Tasks import downward".
"""
