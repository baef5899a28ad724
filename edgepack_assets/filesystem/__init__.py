"""Files and their formats: atomic writes, temporary folders, Parquet, YAML and zips with reproducible bytes."""
