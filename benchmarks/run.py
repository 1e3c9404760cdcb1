"""What `labkit run` costs: a trivial notebook from the command line, beside papermill's own command line.

    python benchmarks/run.py [--rounds 7] [--json]

The commands take turns, in another order each round; compared are the medians of their wall times.

    labkit       labkit run, record and report included
    bare         labkit run --no-report
    papermill    papermill IN OUT
    lean         papermill IN OUT without rfc3987_syntax, whose import alone takes a second; for information
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import rounds

NOTEBOOK = Path(__file__).resolve().parent.parent / "tests" / "notebooks" / "minimal.ipynb"
LEAN = "import sys; sys.modules['rfc3987_syntax'] = None; from papermill.cli import papermill; papermill()"


def commands(folder: Path) -> dict[str, list[str]]:
    """Returns the command lines by name."""
    notebook = str(shutil.copy(NOTEBOOK, folder))
    labkit = [sys.executable, "-m", "labkit.cli", "run", notebook, "--runs", str(folder / "runs")]
    arguments = [notebook, str(folder / "out.ipynb")]
    return {
        "labkit": labkit,
        "bare": [*labkit, "--no-report"],
        "papermill": [sys.executable, "-m", "papermill", *arguments],
        "lean": [sys.executable, "-c", LEAN, *arguments],
    }


def main() -> None:
    """Prints seconds and ratios."""
    asked = rounds.parser(__doc__ or "").parse_args()
    with rounds.own_runs() as folder:
        ways = {
            name: partial(subprocess.run, command, check=True, capture_output=True, cwd=folder)
            for name, command in commands(folder).items()
        }
        wall, _ = rounds.interleaved(ways, asked.rounds)
    ratios = {f"labkit / {name}": rounds.ratio(wall, "labkit", name) for name in ("papermill", "lean")}
    rounds.show(rounds.medians(wall, "s") | ratios, as_json=asked.json)


if __name__ == "__main__":
    main()
