"""HTML pages: their templates, and writing one."""
