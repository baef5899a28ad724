"""Dagster's UI for this project: the web server that refuses requests of foreign web pages, and how it is started."""
