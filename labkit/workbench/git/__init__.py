"""Notebooks in git: the filter, differences, merges."""
