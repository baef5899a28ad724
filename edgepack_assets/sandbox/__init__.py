"""Running code that we don't trust: find its Python, lock and build its environment, run it in a child."""
