"""Model registries behind one interface (base.py): a local folder (local.py)."""
