"""Locks, wheels and the Python environments that are built from them."""
