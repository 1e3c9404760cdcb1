"""The program that git calls for a notebook that both sides of a merge changed: `merge.labkit.driver`.

It merges cell by cell where nbdime's own driver would not do: that one aligns cells by their text before their ids, so
that two cells added under one id, or moved, end as two cells with one id, and two like ones as a cell whose id is an
object; both are no notebooks. What nobody can decide stays between marks, and `labkit merge` leads through it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from labkit.record.files import write_atomic
from labkit.record.text import counted
from labkit.workbench.git.cellmerge import flaws, merge, readable
from labkit.workbench.git.conflicts import resolved
from labkit.workbench.notebooks.clean import dumps

MERGED, CONFLICTED, UNREADABLE = 0, 10, 20  # any other status is a Python that could not even start


def main(base: str, ours: str, theirs: str, name: str) -> int:
    """Merges three files into the second, and returns how it went."""
    try:
        old = Path(base).read_bytes()
        first, second = (readable(json.loads(Path(path).read_bytes())) for path in (ours, theirs))
        merged = merge(readable(json.loads(old)) if old.strip() else None, first, second)
        made = resolved(merged, {})
        write_atomic(Path(ours), dumps(made), durable=False)
    except (ValueError, RecursionError) as error:
        print(f"labkit: {name} cannot be merged cell by cell: {error}", file=sys.stderr)
        return UNREADABLE
    left = [counted(len(merged.conflicts), "conflict")] if merged.conflicts else flaws(made, first, second)
    for text in (*merged.notes, *left):
        print(f"labkit: {name}: {text}", file=sys.stderr)
    if left:
        print(f"labkit: labkit merge {name} leads through", file=sys.stderr)
    return CONFLICTED if left else MERGED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
