"""Runs and sweeps as jobs of a Slurm cluster."""
