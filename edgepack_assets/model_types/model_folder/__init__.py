"""Reads the folder of a registered model without executing any of it: bounded, checked, and as MLflow, pip and conda mean it."""
