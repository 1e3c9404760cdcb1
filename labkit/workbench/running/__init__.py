"""Runs: asked for, executed through papermill, gone on with, mirrored to trackers."""
