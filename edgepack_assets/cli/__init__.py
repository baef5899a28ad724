"""The `edgepack` command."""
