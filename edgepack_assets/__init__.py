"""Dagster assets that package, validate, score and register AI models for Siemens Industrial Edge."""

__version__ = "0.2.0"
