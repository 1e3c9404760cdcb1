"""Sweeps and searches: many runs of one notebook, what came of them, and their page."""
