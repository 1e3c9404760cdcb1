"""`python -m labkit.cli.make run`: `labkit run`, or report, with what make was given as NB, P, F and RERUN.

Make hands them over in the environment as they were typed, so that spaces, quotes and dollar signs in
paths and values pass through neither make's expansion nor the shell's. Arguments behind the command are labkit's own.
"""

from __future__ import annotations

import os
import shlex
import sys


def options(given: dict[str, str]) -> list[str]:
    """Returns the arguments of labkit: NB is one path; P is split as a shell does, quotes keep a value together."""
    arguments = [given["LABKIT_NB"]] if given.get("LABKIT_NB") else []
    for assignment in shlex.split(given.get("LABKIT_P", "")):
        arguments += ["-p", assignment]
    if given.get("LABKIT_F"):
        arguments += ["-f", given["LABKIT_F"]]
    if given.get("LABKIT_RERUN"):
        arguments += ["--rerun", given["LABKIT_RERUN"]]
    return arguments


def main() -> None:
    """Becomes the command."""
    command, *more = sys.argv[1:]
    try:
        arguments = options(dict(os.environ))
    except ValueError as problem:
        advice = "quotes keep a value together: P=\"NAME='two words'\""
        raise SystemExit(f"P: {problem.args[0].lower()}; {advice}") from None
    if command == "run" and not os.environ.get("LABKIT_NB"):
        raise SystemExit('which notebook? make run NB=notebooks/x.ipynb P="EPOCHS=3"')
    os.execvp("labkit", ["labkit", command, *arguments, *more])


if __name__ == "__main__":
    main()
