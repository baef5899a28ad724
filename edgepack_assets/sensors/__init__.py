"""The sensors: Dagster's side of what happens by itself."""
