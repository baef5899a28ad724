"""The work of each asset as plain functions from artefacts and settings to artefacts. No Dagster in here."""
