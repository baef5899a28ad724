"""Checks of the machine and the configuration, garbage, and which locks are in use."""
