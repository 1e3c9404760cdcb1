"""Notebooks before they run: read, checked, put in order, made from templates; and their parameters."""
