"""Whether two runs had the same source: the notebook's cells, the lab's modules, labkit itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from labkit.errors import FolderProblem
from labkit.record.files import open_record, read_json
from labkit.record.provenance import MODULE_LIMIT_BYTES
from labkit.record.rundir import RunDir
from labkit.workbench.notebooks.outline import is_parameters
from labkit.workbench.reproducing import codechange
from labkit.workbench.reproducing.chain import Difference, Link, here_then, lacking, link, mapping
from labkit.workbench.wording import cell_name, short

NOTEBOOK_BYTES = 200 * 2**20
HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """What a run's record says of its source; None where it does not say it.

    Attributes:
        run: The run.
        cells: The notebook's cells by a key that is the same for the same cell.
        modules: The record of first-party modules.
        labkit: The record of labkit itself.
        manifest: The manifest; empty where it cannot be read.
    """

    run: RunDir
    cells: dict[str, Cell] | None
    modules: dict[str, Any] | None
    labkit: dict[str, Any] | None
    manifest: dict[str, Any] = field(default_factory=dict)

    def imports(self) -> set[str]:
        """Returns the names of the packages that the notebook and its modules import."""
        found: set[str] = set()
        for cell in (self.cells or {}).values():
            found |= codechange.imported(cell.source) if cell.is_code else set()
        for entry in (self.modules or {}).values():
            found |= codechange.imported(_content(self.run, mapping(entry).get("path")) or "")
        return found


@dataclass(frozen=True)
class Cell:
    """One cell: what a reader calls it, and what it holds."""

    name: str
    source: str
    is_code: bool
    is_parameters: bool


def read(run: RunDir) -> Source:
    """Returns what a run's record says of its source."""
    labkit = read_json(run.source / "labkit.json")
    if labkit is None:
        version = (read_json(run.environment) or {}).get("labkit")
        labkit = {"version": version} if isinstance(version, str) else None
    try:
        manifest = run.read_manifest()
    except FolderProblem:
        manifest = {}
    return Source(run, _cells(run), read_json(run.source / "modules.json"), labkit, manifest)


def compared(then: Source, now: Source) -> Link:
    """Returns the first link of the chain."""
    differences: list[Difference] = []
    notes: list[str] = []
    if then.cells is not None and now.cells is not None:
        differences += _notebook(then, now)
    elif then.manifest.get("source_sha256") and now.manifest.get("source_sha256"):
        if then.manifest["source_sha256"] != now.manifest["source_sha256"]:
            differences.append(Difference("the notebook differs; where, is not recorded", "source"))
    else:
        notes.append(lacking("the notebook's source", then.cells, now.cells))
    if then.modules is not None and now.modules is not None:
        differences += _modules(then, now)
    else:
        notes.append(lacking("the imported modules", then.modules, now.modules))
    if then.labkit is not None and now.labkit is not None:
        differences += _labkit(then.labkit, now.labkit)
    else:
        notes.append(lacking("labkit's version", then.labkit, now.labkit))
    return link("source", differences, notes)


def _cells(run: RunDir) -> dict[str, Cell] | None:
    listed = (read_json(run.source / "notebook.ipynb", NOTEBOOK_BYTES) or {}).get("cells")
    if not isinstance(listed, list):
        return None
    found: dict[str, Cell] = {}
    for number, cell in enumerate(listed, 1):
        cell = mapping(cell)
        source = cell.get("source")
        text = "".join(map(str, source)) if isinstance(source, list) else str(source or "")
        identity = cell.get("id")
        key = identity if isinstance(identity, str) and identity not in found else f"number {number}"
        name = cell_name(number, identity)
        is_code = cell.get("cell_type") == "code"
        found[key] = Cell(name, text, is_code, is_code and _is_parameters(cell))
    return found


def _is_parameters(cell: dict[str, Any]) -> bool:
    try:
        return bool(is_parameters(cell))
    except (TypeError, AttributeError):
        return False


def _notebook(then: Source, now: Source) -> Iterator[Difference]:
    old, new = then.cells or {}, now.cells or {}
    if not old.keys() & new.keys():  # other ids all over: the cells' places say which is which
        old, new = ({str(place): cell for place, cell in enumerate(cells.values())} for cells in (old, new))
    has_parameters = "parameters" in then.manifest and "parameters" in now.manifest
    for key, cell in new.items():
        if key not in old:
            yield _added(cell, "is new")
        elif cell.source != old[key].source or cell.is_code != old[key].is_code:
            yield _cell(old[key], cell, has_parameters)
    yield from (_added(cell, "is missing here") for key, cell in old.items() if key not in new)
    both = {key for key, cell in new.items() if cell.is_code and key in old and old[key].is_code}
    orders = [[key for key in one if key in both] for one in (old, new)]
    if orders[0] != orders[1]:
        place = next(key for key, other in zip(orders[1], orders[0], strict=False) if key != other)
        yield Difference(f"the cells are in another order, from {new[place].name} on", "source")


def _added(cell: Cell, what: str) -> Difference:
    is_harmless = not cell.is_code or codechange.does_nothing(cell.source)
    return Difference(f"{cell.name} {what}", "source", "harmless" if is_harmless else "cause")


def _cell(old: Cell, new: Cell, has_parameters: bool) -> Difference:
    if old.is_code != new.is_code:
        return Difference(f"{new.name} is {'code' if new.is_code else 'no code'} here, and was not so then", "source")
    if not new.is_code:
        return Difference(f"{new.name}: only its text differs", "source", "harmless")
    change = codechange.first_change(old.source, new.source)
    if change is None:
        return Difference(f"{new.name}: only comments or layout differ", "source", "harmless")
    has_values = new.is_parameters and has_parameters
    if has_values and codechange.differs_in_defaults_only(old.source, new.source):
        text = f"{new.name}: only defaults differ; what held stands under settings"
        return Difference(text, "source", "harmless")
    return Difference(f"{new.name}, {change}", "source")


def _modules(then: Source, now: Source) -> Iterator[Difference]:
    old, new = then.modules or {}, now.modules or {}
    in_one = old.keys() ^ new.keys()
    for name in old | new:
        if name in in_one and re.match(r"labkit[./]|labkit\Z", name):  # they belong to a lab in labkit's clone only
            continue
        before, after = mapping(old.get(name)), mapping(new.get(name))
        path = short(after.get("path") or before.get("path") or name)
        if name not in old:
            yield Difference(f"module {short(name)} ({path}) is imported here, and was not then", "source")
        elif name not in new:
            yield Difference(f"module {short(name)} ({path}) was imported then, and is not here", "source")
        elif before.get("sha256") != after.get("sha256"):
            yield _module(then.run, now.run, short(name), before.get("path"), after.get("path"), path)


def _module(then: RunDir, now: RunDir, name: str, before: object, after: object, path: str) -> Difference:
    what = f"module {name}" if name != path else f"script {name}"
    old, new = _content(then, before), _content(now, after)
    if old is None or new is None or old == new:  # what is kept is not what was fingerprinted
        return Difference(f"{what} differs ({path}; where, is not recorded)", "source")
    change = codechange.first_change(old, new)
    if change is None:
        return Difference(f"{what}: only comments or layout differ ({path})", "source", "harmless")
    return Difference(f"{what}, {path} {change}", "source")


def _content(run: RunDir, inside: object) -> str | None:
    """Returns the kept content of a module; None where it is not kept, or its path leads elsewhere."""
    if not isinstance(inside, str) or not inside or "\0" in inside:
        return None
    parts = PurePosixPath(inside).parts
    if PurePosixPath(inside).is_absolute() or ".." in parts:
        return None
    folder = run.source / "modules"
    for part in ("", *parts[:-1]):  # no link on the way leads out of the run
        folder = folder / part
        if folder.is_symlink():
            return None
    file = open_record(folder / parts[-1]) if parts else None
    if file is None:
        return None
    with file:
        try:
            return file.read(MODULE_LIMIT_BYTES + 1).decode("utf-8", "replace")
        except OSError:
            return None


def _labkit(then: dict[str, Any], now: dict[str, Any]) -> Iterator[Difference]:
    versions = [short(facts.get("version")) for facts in (then, now)]
    prints = [facts.get("sha256") for facts in (then, now)]
    if versions[0] != versions[1]:
        yield Difference(here_then("labkit", *versions), "labkit")
    elif prints[0] != prints[1] and all(isinstance(one, str) and HEX.fullmatch(one) for one in prints):
        yield Difference(f"labkit {versions[1]} has other code here than then", "labkit")
