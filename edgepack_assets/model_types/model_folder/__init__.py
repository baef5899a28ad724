"""Reads the folder of a registered model, without executing any of it, as MLflow, pip and conda mean its files."""
