"""Whether two runs had the same data and weights, by their fingerprints."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson

from labkit.record.files import open_record, read_json
from labkit.record.metrics import LONGEST_LINE
from labkit.record.rundir import RunDir
from labkit.record.text import counted
from labkit.workbench.reproducing.began import ORIGINS, began_with
from labkit.workbench.reproducing.chain import Difference, Link, lacking, link, mapping
from labkit.workbench.wording import short


@dataclass(frozen=True)
class Print:
    """One fingerprint: of what, when, and of how much."""

    kind: str
    name: str
    at: str
    fingerprint: str
    lines: int | None = None
    samples: int | None = None


def prints(run: RunDir) -> list[Print] | None:
    """Returns the fingerprints of a run in order; None where they are damaged or were not taken."""
    file = open_record(run.fingerprints)
    if file is None:
        return [] if _had_nothing(run, run.fingerprints) else None
    with file:
        try:
            found = [_print(line) for line in iter(lambda: file.readline(LONGEST_LINE), b"")]
        except OSError:
            return None
    whole = [one for one in found if one is not None]
    return whole if len(whole) == len(found) else None


def _inputs(run: RunDir) -> dict[str, Any] | None:
    """Returns the record of the files that a run read; None where it is damaged or was not made."""
    found = read_json(run.inputs)
    return {} if found is None and _had_nothing(run, run.inputs) else found


def _had_nothing(run: RunDir, path: Path) -> bool:
    """Tells whether a file is not there because there was nothing to write: its run did write what goes with it."""
    return not os.path.lexists(path) and run.machine.is_file()


def _print(line: bytes) -> Print | None:
    try:
        facts = mapping(orjson.loads(line))
    except ValueError:
        return None
    kind, name, mark = facts.get("kind"), facts.get("name"), facts.get("fingerprint")
    if kind not in ("data", "weights", "value") or not isinstance(name, str) or not isinstance(mark, str):
        return None
    numbers = [facts[key] if type(facts.get(key)) is int else None for key in ("lines", "samples")]
    at = facts.get("at")
    return Print(kind, short(name), at if isinstance(at, str) else "", mark, *numbers)


def data(then: RunDir, now: RunDir, old: list[Print] | None, new: list[Print] | None) -> Link:
    """Returns the link of the files that were read, and of the data as they were loaded."""
    differences: list[Difference] = []
    notes: list[str] = []
    read_then, read_now = _inputs(then), _inputs(now)
    if read_then is None or read_now is None:
        notes.append(lacking("the data files", read_then, read_now))
    else:
        checkpoints = {known[0] for run in (then, now) for name in ORIGINS if (known := began_with(run, name))}
        files = (
            {path: facts for path, facts in mapping(read.get("files")).items() if path not in checkpoints}
            for read in (read_then, read_now)
        )
        differences += _files(*files)  # the checkpoint that a run began with is among the weights
        for path, why in {**mapping(read_then.get("left_out")), **mapping(read_now.get("left_out"))}.items():
            notes.append(f"{short(path)} was not fingerprinted: {short(why)}")
    if old is None or new is None:
        notes.append(lacking("the data as loaded", old, new))
    else:
        differences += _loaded(_of(old, "data"), _of(new, "data"))
        early, early_now = ([one for one in prints if one.lines == 0] for prints in (old, new))
        differences += _values(early, early_now, "data")
    return link("data", differences, notes)


def initial_weights(then: RunDir, now: RunDir, old: list[Print] | None, new: list[Print] | None) -> Link:
    """Returns the link of the weights that the training began with."""
    differences: list[Difference] = []
    before, after = (_weights_file(run) for run in (then, now))
    if isinstance(before, str) and isinstance(after, str) and before != after:
        text = "the file of weights that the run began with has other content"
        differences.append(Difference(text, "weights file"))
    return _weights("initial weights", "start", "initial weights", old, new, differences)


def _one_a_name(found: list[Print], first: bool) -> list[Print]:
    """Returns the first or last fingerprint of each name: a resumed run has more."""
    return list({one.name: one for one in (reversed(found) if first else found)}.values())


def _weights_file(run: RunDir) -> object:
    """Returns the fingerprint of the file that MODEL_PATH named."""
    restored = read_json(run.restored) or {}
    return restored.get("sha256") if "model_from" in restored else None


def final_weights(old: list[Print] | None, new: list[Print] | None) -> Link:
    """Returns the link of the weights at the end."""
    return _weights("final weights", "end", "final weights", old, new, [])


def _weights(
    name: str, at: str, words: str, old: list[Print] | None, new: list[Print] | None, known: list[Difference]
) -> Link:
    if old is None or new is None:
        return link(name, known, [lacking(f"the {words}", old, new)])
    before, after = (_one_a_name(_of(prints, "weights", at), at == "start") for prints in (old, new))
    if not before and after:
        return link(name, known, [f"the {words} of the recorded run were not fingerprinted"])
    return link(name, known + list(_weights_of(before, after, f"the {words}")))


def checkpoints(old: list[Print] | None, new: list[Print] | None) -> list[Difference]:
    """Returns where the weights at the checkpoints that both runs have first differ."""
    before = {(one.name, one.lines): one for one in _of(old or [], "weights", "checkpoint")}
    for after in _of(new or [], "weights", "checkpoint"):
        known = before.get((after.name, after.lines))
        if known is not None and known.fingerprint != after.fingerprint:
            text = f"the weights of {after.name} at a checkpoint differ{_how(known, after)}"
            return [Difference(text, "weights", "derived")]
    return []


def values(old: list[Print] | None, new: list[Print] | None) -> list[Difference]:
    """Returns where what the notebook gave to `run.fingerprint` differs."""
    return list(_values(old, new, "weights")) if old is not None and new is not None else []


def _values(old: list[Print], new: list[Print], topic: str) -> Iterator[Difference]:
    """Yields for each name where its fingerprints, in the order of the calls, first differ."""
    before, after = (_by_name(one for one in prints if one.at == "given") for prints in (old, new))
    for name in before | after:
        for one, other in zip_longest(before.get(name, []), after.get(name, [])):
            if one is None or other is None:
                when = "then, and not here" if other is None else "here, and not then"
                yield Difference(f"the value {name} was fingerprinted {when}", topic, "derived")
            elif one.fingerprint != other.fingerprint:
                yield Difference(f"the value {name} differs{_how(one, other)}", topic, "derived")
            else:
                continue
            break


def _by_name(prints: Iterable[Print]) -> dict[str, list[Print]]:
    found: dict[str, list[Print]] = {}
    for one in prints:
        found.setdefault(one.name, []).append(one)
    return found


def _of(found: list[Print], kind: str, at: str = "") -> list[Print]:
    return [one for one in found if one.kind == kind and (kind == "data" or one.at == at)]


def _loaded(old: list[Print], new: list[Print]) -> Iterator[Difference]:
    """Yields what differs of the data in the order of their use; what a resumed run used twice counts once."""
    before, after = ({(one.name, one.fingerprint): one for one in prints}.values() for prints in (old, new))
    for one, other in zip_longest(before, after):
        if one is None or other is None:
            when = "then, and not here" if other is None else "here, and not then"
            yield Difference(f"data were used {when}: {(one or other).name}", "data", "derived")
        elif one.name != other.name:
            yield Difference(f"the data differ: {other.name} here, {one.name} then", "data", "derived")
        elif one.fingerprint != other.fingerprint:
            yield Difference(f"the data differ: {other.name}{_how(one, other)}", "data", "derived")


def _weights_of(old: list[Print], new: list[Print], words: str) -> Iterator[Difference]:
    """Yields for each name how the weights differ."""
    before, after = ({one.name: one for one in prints} for prints in (old, new))
    for name in before | after:
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            when = "then, and not here" if other is None else "here, and not then"
            yield Difference(f"{words} of {name} were fingerprinted {when}", "weights", "derived")
        elif one.fingerprint != other.fingerprint:
            yield Difference(f"{words} of {name} differ{_how(one, other)}", "weights", "derived")


def _how(before: Print, after: Print) -> str:
    if before.samples is not None and after.samples is not None:
        if before.samples != after.samples:
            return f": {counted(after.samples, 'sample')} here, {before.samples:,} then"
        return f" ({counted(after.samples, 'sample')}, as then)"
    if before.lines and before.lines == after.lines:
        return f" after {counted(after.lines, 'line')} of metrics"
    return ""


def _files(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Difference]:
    before = {path: mapping(facts) for path, facts in old.items()}
    after = {path: mapping(facts) for path, facts in new.items()}
    only_new = {str(facts.get("blake3")): path for path, facts in after.items() if path not in before}
    moved = set()
    for path, facts in before.items():
        other = after.get(path)
        if other is not None:
            yield from _file(path, facts, other)
        elif (place := only_new.get(str(facts.get("blake3")), "")) and "blake3" in facts:
            moved.add(place)
            yield Difference(f"{short(path)} was read from {short(place)}", "files", "harmless")
        else:
            yield Difference(f"{short(path)} was read then, and was missing or not read here", "files")
    for path in after:
        if path not in before and path not in moved:
            yield Difference(f"{short(path)} was read here, and was not then", "files")


def _file(path: str, then: dict[str, Any], now: dict[str, Any]) -> Iterator[Difference]:
    if then.get("blake3") == now.get("blake3"):
        return
    sizes = [facts.get("bytes") for facts in (then, now)]
    if all(type(size) is int for size in sizes) and sizes[0] != sizes[1]:
        yield Difference(f"{short(path)} has other content: {sizes[1]:,} bytes here, {sizes[0]:,} then", "files")
    else:
        text = f"{short(path)} has other content of the same size: other values, or another order"
        yield Difference(text, "files")
