"""How long a report takes and what a page weighs beyond the notebook's own images, beside nbconvert's HTML page.

python benchmarks/report.py [--rounds 7] [--json]
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
import rounds
from nbconvert.exporters import HTMLExporter

import labkit.workbench  # noqa: F401  before nbformat: keeps a slow import out
from labkit.record.metrics import MetricsWriter
from labkit.record.rundir import RunDir, create
from labkit.record.summary import summarise
from labkit.workbench.pages import report

CELLS = 30
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def notebook() -> nbformat.NotebookNode:
    """Returns a notebook as an experiment leaves one: prose, formulas, code, text, tables and images."""
    cells = []
    for number in range(CELLS):
        formula = f"$L_{{{number}}} = \\frac{{1}}{{N}} \\sum_i x_i^2$"
        cells.append(nbformat.v4.new_markdown_cell(f"## Part {number}\n\nThe loss is {formula}."))
        text = nbformat.v4.new_output("stream", name="stdout", text="step 1: loss 0.5\n" * 40)
        rows = "".join(f"<tr><th>{row}</th><td>{row / 7:.4f}</td></tr>" for row in range(20))
        table = nbformat.v4.new_output("display_data", data={"text/html": f"<table>{rows}</table>", "text/plain": "…"})
        image = nbformat.v4.new_output("display_data", data={"image/png": base64.b64encode(PIXEL).decode()})
        code = "for step, (images, labels) in enumerate(batches):\n    loss = train(model, images, labels)\n" * 6
        cells.append(nbformat.v4.new_code_cell(code, outputs=[text, table, image], execution_count=number + 1))
    return nbformat.v4.new_notebook(cells=cells)


def run_of(folder: Path, document: nbformat.NotebookNode) -> RunDir:
    """Returns a run directory with this executed notebook and 2,000 steps of metrics."""
    run = create(folder, "bench", {"title": "Benchmark"}, {"notebook.ipynb": nbformat.writes(document)})
    writer = MetricsWriter(run.metrics)
    for step in range(2000):
        writer.log(step, {"loss": 1 / (step + 1), "accuracy": step / 2000})
    writer.close()
    summarise(run)
    return run


def page_overhead_bytes(page: str) -> int:
    """Returns the size of a page without the images and the record that it carries."""
    return len(re.sub(r"data:image/[^\"')]+|<template[^<]*</template>", "", page).encode())


def main() -> None:
    """Prints medians and sizes."""
    asked = rounds.parser(__doc__ or "").parse_args()
    document = notebook()
    empty = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Empty")])
    with rounds.own_runs() as folder:
        run, bare = run_of(folder, document), run_of(folder, empty)
        exporter = HTMLExporter()
        ways = {"labkit": lambda: report.render(run), "nbconvert": lambda: exporter.from_notebook_node(document)}
        wall, _ = rounds.interleaved(ways, asked.rounds)
        pages = {"labkit": report.render(bare), "nbconvert": exporter.from_notebook_node(empty)[0]}
    sizes = {f"{name}, KiB a page": page_overhead_bytes(page) / 1024 for name, page in pages.items()}
    result = rounds.medians(wall, f"ms for {CELLS} sections", 1e3)
    rounds.show(result | sizes | {"labkit / nbconvert": rounds.ratio(wall, "labkit", "nbconvert")}, as_json=asked.json)


if __name__ == "__main__":
    main()
