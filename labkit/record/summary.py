"""What a run came to, kept in the manifest: the summary of its metrics, the verdicts on its expectations, its claim."""

from __future__ import annotations

from typing import Any

from labkit.errors import FolderProblem
from labkit.record import claims, expectations, metrics
from labkit.record.expectations import Verdict
from labkit.record.files import read_json
from labkit.record.rundir import RunDir
from labkit.record.status import status


def summarise(run: RunDir, state: str | None = None) -> None:
    """Writes summary, verdicts, labels and claim of a run that is over into its manifest.

    Where that fails, readers make their own.

    Args:
        run: The run.
        state: How it ended, where its exit record is not written yet.
    """
    found = metrics.read(run.metrics)
    try:
        # A manifest that cannot be read just now is refused, not replaced.
        labels = [*run.read_manifest()["labels"], *_stated_labels(run)]
        judged = [one.facts() for one in verdicts(run, found, state)]
        changes: dict[str, Any] = {"labels": list(dict.fromkeys(labels)), "verdicts": judged}
        if found.rows or found.torn:  # else none, or none that could be read just now
            changes["summary"] = found.summary()
        if (claim := claims.of_run(run)) is not None:
            changes["claim"] = claim.facts()
        run.update_manifest(**changes)
    except (OSError, FolderProblem):
        pass


def all_held(run: RunDir) -> bool:
    """Tells whether everything that a run's notebook expected and concluded held, and nothing of it was lost."""
    if ((read_json(run.kernel) or {}).get("statements") or {}).get("lost"):
        return False
    return all(one.verdict == "held" for one in verdicts(run))


def labels_of(run: RunDir) -> list[str]:
    """Returns the labels that a run was made with and those that its notebook added."""
    return list(dict.fromkeys([*_labels(read_json(run.manifest)), *_stated_labels(run)]))


def _stated_labels(run: RunDir) -> list[str]:
    return _labels(read_json(run.stated))


def _labels(record: dict[str, Any] | None) -> list[str]:
    listed = (record or {}).get("labels")
    return [label for label in listed if isinstance(label, str)] if isinstance(listed, list) else []


def kept_verdicts(run: RunDir, manifest: dict[str, Any]) -> list[Verdict]:
    """Returns the verdicts in a manifest; of a run that has none yet, those of the moment."""
    found = []
    for facts in manifest.get("verdicts") or []:
        try:
            one = Verdict(**facts)
        except TypeError:
            continue
        if one.verdict in expectations.VERDICTS:
            found.append(one)
    return found or verdicts(run)


def verdicts(run: RunDir, found: metrics.Metrics | None = None, state: str | None = None) -> list[Verdict]:
    """Returns the verdicts on what a run's notebook expected and concluded, from the record as it is now.

    Args:
        run: The run.
        found: Its metrics, where they have been read already.
        state: What to take for its state; by default what it is.
    """
    stated = read_json(run.stated)
    if stated is None:
        return []
    expected = expectations.read_facts(stated.get("expectations"))
    found = metrics.read(run.metrics) if found is None and expected else found or metrics.Metrics()
    state, marks = state or status(run).state, labels_of(run)
    judged = [expectations.judge(one, found, state, marks) for one in expected]
    return judged + expectations.concluded(stated.get("conclusions"), state, marks)
