"""Runs made for one test of a page, and a run in which everything that text can be is hostile."""

# ruff: noqa: E501  (rows of data stay rows)
from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

from labkit.record.rundir import RunDir

ATTACKS = (
    "<script>window.__xss=1</script>",
    "<img src=x onerror='window.__xss=1'>",
    "<img src='https://example.invalid/x.png'>",
    "<svg onload='window.__xss=1'><script>window.__xss=1</script><foreignObject><body onload='window.__xss=1'/></foreignObject></svg>",
    "<iframe srcdoc='<script>parent.__xss=1</script>'></iframe>",
    "<a href='javascript:window.__xss=1' id='body'>link</a>",
    "<a href='java&#x0A;script:window.__xss=1'>link</a>",
    "<style>@import 'https://example.invalid/x.css'; body{display:none}</style>",
    "<link rel=stylesheet href='https://example.invalid/x.css'><meta http-equiv=refresh content='0;url=https://example.invalid/'>",
    "<form action='https://example.invalid/'><input name=cookie autofocus onfocus='window.__xss=1'></form>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x onerror=window.__xss=1&gt;'>",
    "<details open ontoggle='window.__xss=1'><summary>x</summary></details>",
    "</pre></code></title></script></style><script>window.__xss=1</script>",
    '"><script>window.__xss=1</script>',
    "<base href='https://example.invalid/'><object data='https://example.invalid/'></object>",
    "<video src='https://example.invalid/x.mp4' autoplay></video><noscript><p title='</noscript><script>window.__xss=1</script>'>",
    "[l](javascript:window.__xss=1) [d](data:text/html,<script>window.__xss=1</script>) ![i](https://example.invalid/i.png)",
    r"$\href{javascript:window.__xss=1}{x} \text{<script>window.__xss=1</script>} \style{background:url(https://example.invalid)}{x}$",
    r"$$\text{</mtext></math><img src=x onerror=window.__xss=1>}$$",
)
EVERY_ATTACK = "\n\n".join(ATTACKS)


def png() -> str:
    """A picture of one grey pixel, as notebooks hold pictures."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return base64.b64encode(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")
    ).decode()


def prose(text: str, **more: Any) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text, **more}


def code(text: str, *outputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "execution_count": 1, "source": text, "outputs": list(outputs), **more}


def shown(**data: Any) -> dict[str, Any]:
    """A displayed output; `text_html="…"` gives `text/html`, `image_svg_xml` gives `image/svg+xml`."""
    names = {"image_svg_xml": "image/svg+xml", "widget": "application/vnd.jupyter.widget-view+json"}
    return {
        "output_type": "display_data",
        "metadata": {},
        "data": {names.get(name, name.replace("_", "/", 1)): value for name, value in data.items()},
    }


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def notebook(*cells: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    about = {"language_info": {"name": "python"}, **metadata}
    return {"nbformat": 4, "nbformat_minor": 4, "metadata": about, "cells": list(cells)}


TRACEBACK = (
    "\x1b[31m" + "-" * 75 + "\x1b[39m",
    "\x1b[31mValueError\x1b[39m                                Traceback (most recent call last)",
    "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[2]\x1b[39m\x1b[32m, line 1\x1b[39m\n\x1b[32m----> 1\x1b[39m train()",
    "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[1]\x1b[39m\x1b[32m, line 9\x1b[39m, in \x1b[36mtrain\x1b[39m\x1b[34m()\x1b[39m",
    "Cell In[7], line 4: \x1b[43mcolumns\x1b[49m " + "of_a_long_line " * 20,
    "\x1b[31mValueError\x1b[39m: no digits",
)


def failed_run(folder: Path, state: str = "failed", **pieces: Any) -> RunDir:
    """A run that ended in its third cell, `train`, and did not come to the fourth."""
    error = {"output_type": "error", "ename": "ValueError", "evalue": "no digits", "traceback": list(TRACEBACK)}
    cells = [
        prose("# Digits"),
        code("def train(): ...", id="define"),
        code("train()", stream("a long line of the log " * 12 + "x" * 300), error, id="train", execution_count=2),
        code("print(1)", id="last", execution_count=None, metadata={"papermill": {"status": "pending"}}),
    ]
    ended: dict[str, Any] = {"status": state, "reason": "stopped by SIGINT", "error": None}
    if state == "failed":
        ended["reason"] = "cell 3 (train) raised ValueError: no digits"
        ended["error"] = {"cell": 3, "cell_id": "train", "ename": "ValueError", "evalue": "no digits"}
    return make_run(folder, notebook(*cells), ended=ended, **pieces)


def make_run(
    folder: Path,
    content: Any = None,
    *,
    manifest: dict[str, Any] | None = None,
    ended: dict[str, Any] | None = None,
    metrics: str = "",
    environment: dict[str, Any] | None = None,
    counted: dict[str, Any] | None = None,
    git: dict[str, Any] | None = None,
) -> RunDir:
    """A finished run of the past with this notebook in it; each part can be replaced."""
    run = RunDir(folder / "runs" / "digits" / "20261121T101500.123Z-3f9a1c")
    (run.path / "attempts" / "1").mkdir(parents=True)
    run.source.mkdir()
    run.figures.mkdir()
    finished = {"status": "finished", "reason": "", "duration_s": 12.5, "error": None, "written_by": "supervisor"}
    known = {"format": 1, "id": run.id, "name": "digits", "title": "Digits", "created": "2026-11-21T10:15:00.123Z"}
    pieces = {
        run.manifest: known | (manifest or {}),
        run.exit: finished | (ended or {}),
        run.environment: {"torch": "2.13.0+cpu", "cpu": "model", "cores": 2} | (environment or {}),
        run.kernel: counted or {},
        run.source / "git.json": {"commit": "b53c605aa11bb22cc33", "dirty": False} | (git or {}),
        run.notebook: content if content is not None else notebook(prose("# Digits"), code("1", stream("out"))),
    }
    for path, piece in pieces.items():
        path.write_text(json.dumps(piece))
    run.metrics.write_text(metrics or '{"step": 1, "loss": 0.5, "t": 1.0}\n')
    return run


def hostile_run(folder: Path) -> RunDir:
    """A run whose every text attacks."""
    bad = EVERY_ATTACK
    cells = [
        prose(f"# {attack}\n\n{attack}\n\n## Goal {attack}\n\n> {attack}\n\n## Conclusion\n\n{attack}")
        for attack in ATTACKS
    ]
    cells += [
        prose("![a](attachment:x)", attachments={"x": {"image/svg+xml": bad, "text/html": bad, bad: bad}}),
        prose("![a](attachment:y)", attachments={bad: bad}),
        code(bad, stream(bad), stream(f"\x1b[31;38;5;{bad}m{bad}\x1b]8;;javascript:window.__xss=1\x07x", bad)),
        code("x", {"output_type": "error", "ename": bad, "evalue": bad, "traceback": [bad, f"\x1b[1m{bad}"]}),
        *(code("x", shown(text_html=attack, text_plain=attack)) for attack in ATTACKS),
        code("x", shown(image_svg_xml=bad), shown(text_latex=bad), shown(text_markdown=bad), shown(text_plain=bad)),
        code(
            "x", shown(image_png=bad), shown(image_png='" onerror="window.__xss=1'), shown(application_javascript=bad)
        ),
        code("x", shown(widget={"model_id": bad}, text_plain=bad), {"output_type": bad, "data": {bad: bad}}),
        code("x", {"output_type": "display_data", "data": {bad: bad}, "metadata": {"image/png": {"width": bad}}}),
        {"cell_type": "raw", "metadata": {"format": "text/html", "tags": [bad]}, "source": bad},
        {"cell_type": bad, "id": bad, "metadata": bad, "source": bad},
    ]
    content = notebook(
        *cells, title=bad, widgets={bad: {"state": bad}}, language_info={"name": bad, "pygments_lexer": bad}
    )
    run = make_run(
        folder,
        content,
        manifest={
            "title": bad, "name": bad, "notebook": bad, "author": bad, "user": bad, "labels": [bad, "explored"],
            "parameters": {bad: bad, "X": {bad: [bad]}}, "given": {bad: bad}, "created": bad,
        },
        ended={"status": "failed", "reason": bad, "error": {"ename": bad, "evalue": bad}},
        metrics=json.dumps({"step": 1, bad: 1.0}) + "\n" + json.dumps({"step": 2, bad: 2.0}) + "\n" + bad,
        environment={"cpu": bad, "torch": bad, bad: bad, "lock": {bad: [bad]}},
        git={"commit": bad, "dirty": True},
    )  # fmt: skip
    (run.figures / "<img src=x onerror=window.__xss=1>.png").write_text(bad)
    return run
