"""Reading a registered model's folder without executing it: MLflow's files, requirements, Python, code."""
