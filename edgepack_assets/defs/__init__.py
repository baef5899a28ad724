"""Everything that imports Dagster: assets, sensors, jobs, resources and the instance."""
