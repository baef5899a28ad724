"""What speaks to Azure, shared by the Azure ML registry and the artefact store."""
