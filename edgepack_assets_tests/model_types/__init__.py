"""Tests of the model types."""
