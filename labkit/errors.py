"""Every error that labkit raises on purpose.

LabkitError
├── BadInput                what the user gave cannot be used; nothing was started (exit status 2)
│   ├── NotebookProblem     a notebook is missing, malformed, conflicted or too large
│   ├── ParameterProblem    a parameter is unknown, of the wrong type or not a literal
│   ├── KernelProblem       the kernel asked for does not exist
│   ├── RunNotFound         no run goes by that name, or more than one does
│   ├── ConfigProblem       a setting is unknown or cannot have its value
│   ├── GitProblem          git is missing, refuses, or has not what was asked for
│   ├── CapsuleProblem      a report carries no record, or one that is damaged or not to be trusted
│   └── FolderProblem       a folder cannot be read or written
├── WorkFailed              the work itself failed; its run says how (exit status 1)
└── RunProblem              a run cannot do what its notebook asked of it
"""

from __future__ import annotations


class LabkitError(Exception):
    """The base of labkit's errors; the message says what, where and what to do next."""

    exit_status = 1


class BadInput(LabkitError):
    """What the user gave cannot be used; nothing was started."""

    exit_status = 2


class NotebookProblem(BadInput):
    """A notebook is missing, malformed, conflicted or too large."""


class ParameterProblem(BadInput):
    """A parameter is unknown, of the wrong type or not a literal."""


class KernelProblem(BadInput):
    """The kernel asked for does not exist."""


class RunNotFound(BadInput):
    """No run goes by that name, or more than one does."""


class ConfigProblem(BadInput):
    """A setting is unknown or cannot have its value."""


class GitProblem(BadInput):
    """Git is missing, refuses, or has not what was asked for."""


class CapsuleProblem(BadInput):
    """A report carries no record, or one that is damaged or not to be trusted."""


class FolderProblem(BadInput):
    """A folder cannot be read or written."""


class WorkFailed(LabkitError):
    """The work itself failed; the run's directory says how."""


class RunProblem(LabkitError):
    """A run cannot do what its notebook asked of it."""
