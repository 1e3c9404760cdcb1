"""The program that git calls to show how a notebook differs: `diff.jupyternotebook.command`.

It is nbdime's diff of both versions as git stores them, whether or not they are stored so. nbdime's own program takes
three seconds more to start, on what `labkit.workbench` keeps from being loaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from labkit.workbench.git.gitdiff import EMPTY, Changed, as_text, notebook_in


def main(path: str, old: str, new: str) -> int:
    """Prints how two files differ, and returns 1 where one of them is no notebook."""
    before, after = (EMPTY if name == os.devnull else notebook_in(Path(name).read_bytes()) for name in (old, new))
    if before is None or after is None:
        return 1
    colour = sys.stdout.isatty() or os.environ.get("GIT_PAGER_IN_USE") == "true"
    print(as_text(Changed(path, before, after), everything=True, colour=colour), end="", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[5]))  # beside them are names of objects, and modes
