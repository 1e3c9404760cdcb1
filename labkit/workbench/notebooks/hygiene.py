"""Names what git would store of a run: outputs, counts, timings, kernels; `clean` takes it out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labkit.workbench.notebooks import clean
from labkit.workbench.notebooks.finding import Finding

Content = dict[str, Any]


def stored(content: Content) -> Iterator[Finding]:
    """Yields what a run has left in a notebook."""
    pure = clean.cleaned(content)
    for number, (cell, wanted) in enumerate(zip(content["cells"], pure["cells"], strict=True), 1):
        at = (number, cell["id"] if isinstance(cell.get("id"), str) else "")
        if cell.get("outputs", []) != wanted.get("outputs", []):
            yield Finding("the cell has outputs", "clear them: results live in runs/", *at)
        elif cell.get("execution_count") != wanted.get("execution_count"):
            yield Finding("the cell has an execution count", "clear it", *at)
        for name in _lost(cell["metadata"], wanted["metadata"]):
            yield Finding(f"the cell's metadata keeps `{name}` of a run", "remove it", *at)
    metadata, wanted = content["metadata"], pure["metadata"]
    for name in _lost(metadata, {"kernelspec": ..., "language_info": ...} | wanted):
        what = "the state of widgets" if name == "widgets" else f"`{name}` of a run"
        yield Finding(f"the notebook's metadata keeps {what}", "remove it")
    kernel = metadata.get("kernelspec")
    if isinstance(kernel, dict) and kernel != wanted["kernelspec"]:
        called = str(kernel.get("display_name") or kernel.get("name"))
        yield Finding(f"the kernel is called {called!r:.60} here", f"write {wanted['kernelspec']['display_name']!r}")
    if "language_info" in metadata and metadata["language_info"] != wanted["language_info"]:
        yield Finding("the notebook's metadata keeps the version of its language", "keep the name alone")


def _lost(metadata: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Returns the names that are gone from metadata, or of which a part is."""
    return [name for name in metadata if name not in wanted or (name == "jupyter" and metadata[name] != wanted[name])]
