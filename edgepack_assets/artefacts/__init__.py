"""Values of assets as content-addressed blobs, in a folder or in Azure storage."""
