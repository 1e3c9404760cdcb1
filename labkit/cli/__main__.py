"""`python -m labkit.cli`."""

from labkit.cli import main

main(prog_name="labkit")
