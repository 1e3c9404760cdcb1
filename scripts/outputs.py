"""Name the notebooks in the given folders that carry outputs: results live in runs/, not in git."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def carried(path: Path) -> list[str]:
    """The ids (or numbers) of the cells of this notebook that hold an output or an execution count."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        cell.get("id", str(number))
        for number, cell in enumerate(cells)
        if cell.get("outputs") or cell.get("execution_count") is not None
    ]


def main() -> None:
    """Exit with 1 when a notebook carries outputs, naming its cells."""
    paths = sorted(path for folder in sys.argv[1:] for path in Path(folder).rglob("*.ipynb"))
    paths = [path for path in paths if ".ipynb_checkpoints" not in path.parts]
    problems = {path: cells for path in paths if (cells := carried(path))}
    for path, cells in problems.items():
        print(f"{path}: outputs in {', '.join(cells)}; remedy: jupyter nbconvert --clear-output FILE")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
