"""What `labkit check --fix` writes into a file, and which file it leaves as it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from repositories import labkit
from tiny import write

PAGE = "{name} is read-only; chmod u+w {name} lets it be written"


@pytest.mark.parametrize("command", [["check", "--fix"], ["adopt", "--force"]], ids=lambda command: command[0])
def test_a_file_for_reading_only_is_not_written_not_even_for_root(lab: Path, command: list[str]):
    path = write(lab / "notebooks" / "old.ipynb", "x = 1")
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    path.chmod(0o444)
    before, name = path.read_bytes(), os.path.relpath(path)
    result = labkit(*command, name)
    assert result.exit_code == 2 and PAGE.format(name=name) in result.output
    assert path.read_bytes() == before and path.stat().st_mode & 0o777 == 0o444
    path.chmod(0o640)
    labkit(*command, name)
    assert path.read_bytes() != before and path.stat().st_mode & 0o777 == 0o640
