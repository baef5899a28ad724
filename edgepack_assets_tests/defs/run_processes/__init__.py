"""Tests of defs/run_processes/."""
