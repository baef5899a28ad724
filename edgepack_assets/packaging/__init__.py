"""Packages by simaticai: the pipeline configuration package, and the deployment package built from it."""
