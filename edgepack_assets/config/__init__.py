"""The configuration, edgepack.yaml: its schema, and how it is found and read."""
