"""Deployment packages and the registry: building one, giving it a version, its tags, and what the tags of all of them
say: history, stages, archive."""
