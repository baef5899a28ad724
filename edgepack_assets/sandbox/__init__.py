"""Runs code that is not trusted in a child process, isolated from this machine."""
