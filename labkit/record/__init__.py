"""The plain files of one run: their names, how they are written, and how they are read."""

STATES = ("queued", "running", "finished", "failed", "interrupted", "timeout", "killed", "unknown")
