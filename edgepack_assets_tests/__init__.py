"""Tests of edgepack_assets; the folders mirror the package."""
