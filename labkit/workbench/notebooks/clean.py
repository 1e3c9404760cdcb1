"""What git stores of a notebook: all that people wrote in it, and nothing that a run left behind.

Git's clean filter runs this file as a program, once for each notebook that is added or looks changed. So it imports
neither labkit nor nbformat, which alone takes longer to load than a Python without `site` takes for the whole work.
nbstripout does not do: it drops or keeps a kernel's name where plain papermill needs a neutral one, loads nbformat,
asks git twice, gives cells other ids unless told not to, and stops `git add` at a file that it cannot read.
"""

from __future__ import annotations

import json
import sys
from typing import Any

NOTEBOOK_LEAVINGS = ("papermill", "signature", "widgets")
CELL_LEAVINGS = ("ExecuteTime", "collapsed", "execution", "heading_collapsed", "papermill", "scrolled", "trusted")
PYTHON = {"display_name": "Python 3", "language": "python", "name": "python3"}


def cleaned(notebook: dict[str, Any]) -> dict[str, Any]:
    """Returns a notebook of format 4 without what running it left; sources, ids, tags and attachments stay.

    Gone are outputs, execution counts and times, widget state, papermill's record, and what the kernel is called
    here: a kernel of Python is `python3` for everyone, and no version stays. Cleaning twice is cleaning once.
    """
    metadata = {name: value for name, value in notebook["metadata"].items() if name not in NOTEBOOK_LEAVINGS}
    return notebook | {"cells": [_cell(cell) for cell in notebook["cells"]], "metadata": metadata | _kernel(metadata)}


def _cell(cell: dict[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in cell.get("metadata", {}).items() if name not in CELL_LEAVINGS}
    shown = metadata.get("jupyter")
    if isinstance(shown, dict) and "outputs_hidden" in shown:
        metadata["jupyter"] = {name: value for name, value in shown.items() if name != "outputs_hidden"}
        metadata = {name: value for name, value in metadata.items() if name != "jupyter" or value}
    emptied: dict[str, Any] = {"outputs": [], "execution_count": None} if cell.get("cell_type") == "code" else {}
    return cell | {"metadata": metadata} | emptied


def _kernel(metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns the metadata on kernel and language as every machine would write it."""
    kernel, language = metadata.get("kernelspec"), metadata.get("language_info")
    named = language.get("name") if isinstance(language, dict) else None
    spoken = kernel.get("language", named) if isinstance(kernel, dict) else named
    if spoken == "python" or (spoken is None and isinstance(kernel, dict) and kernel.get("name") == PYTHON["name"]):
        return {"kernelspec": PYTHON, "language_info": {"name": "python"}}
    return {"language_info": {"name": named}} if isinstance(named, str) else {}


def dumps(notebook: dict[str, Any]) -> bytes:
    """Returns a notebook as the file that Jupyter would write.

    Raises:
        ValueError: It holds a number that JSON cannot say.
    """
    text = json.dumps(notebook, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True)
    return text.encode("utf-8", "backslashreplace") + b"\n"  # half a surrogate pair stays the escape that it was


def filtered(data: bytes) -> bytes:
    """Returns a notebook's file as git stores it.

    Raises:
        ValueError: The file is no notebook of format 4.
    """
    try:
        notebook = json.loads(data)
        if notebook["nbformat"] != 4:
            raise ValueError(f"it is in format {notebook['nbformat']!r:.20}, not 4")
        return dumps(cleaned(notebook))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no notebook ({type(error).__name__}: {error})") from error


def main() -> None:
    """Filters standard input; what cannot be read passes unchanged, since git must never be in anyone's way."""
    data = sys.stdin.buffer.read()
    try:
        data = filtered(data)
    except ValueError as error:
        name = sys.argv[1] if len(sys.argv) > 1 else "this file"
        print(f"labkit: git takes {name} as it is: {str(error).splitlines()[0]:.200}", file=sys.stderr)
    sys.stdout.buffer.write(data)


if __name__ == "__main__":
    main()
