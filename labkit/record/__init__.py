"""The plain files of one run: their names, how they are written, and how they are read."""

ENDS = ("finished", "failed", "interrupted", "timeout", "killed", "unknown")  # what can have become of a run
STATES = ("queued", "running", *ENDS)
