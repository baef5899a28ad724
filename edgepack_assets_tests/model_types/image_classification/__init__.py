"""Tests of the image classification model type."""
