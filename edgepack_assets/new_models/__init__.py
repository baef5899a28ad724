"""Which model versions are to be packaged: what a sensor has seen, and what it does about it. No Dagster here."""
