"""A request for a run, checked, and made into the run's directory.

`prepare` refuses what cannot work. Whatever happens later happens inside the directory, so nothing can be lost.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labkit.errors import BadInput, KernelProblem
from labkit.record import checkpoints, config, lab, provenance, version
from labkit.record.declared import Parameter
from labkit.record.files import dumps
from labkit.record.find import whereabouts
from labkit.record.process import Process
from labkit.record.rundir import RunDir, create
from labkit.record.secret import masked
from labkit.workbench.notebooks import literals, modes, notebook, outline, params, yamlfile
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.notebooks.params import Asked
from labkit.workbench.running import trackers


@dataclass(frozen=True)
class Job:
    """A run that has been made and can be executed, by this process or another one.

    Attributes:
        run: The run's directory.
        notebook: The notebook that it was made from; its folder is where the cells run.
        values: The parameters that the kernel is given.
        kernel: The kernel's name.
        language: The language of the notebook's code.
        timeout_s: Seconds that the run may take; None for no limit.
        grace_s: Seconds from a stop request to the kill.
        attempt: The number of the attempt.
    """

    run: str
    notebook: str
    values: dict[str, Any]
    kernel: str
    language: str = "python"
    timeout_s: float | None = None
    grace_s: float = 30.0
    attempt: int = 1

    @property
    def directory(self) -> RunDir:
        """The run's directory with the names of this attempt's files."""
        return RunDir(Path(self.run), self.attempt)

    def facts(self) -> dict[str, Any]:
        """Returns the job in what JSON can say; values as their source, which keeps NaN, tuples and long integers."""
        return asdict(self) | {"values": {name: literals.literal(value) for name, value in self.values.items()}}

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Job:
        """Returns the job that `facts` stand for."""
        values = {name: literals.read_literal(source) for name, source in facts["values"].items()}
        return cls(**facts | {"values": values})


def prepare(
    source: Path | Notebook,
    asked: Asked,
    *,
    kernel: str | None = None,
    timeout_s: float | None = None,
    grace_s: float | None = None,
    runs: Path | None = None,
    command: list[str] | None = None,
    labels: tuple[str, ...] = (),
    place: Path | None = None,
    **more: Any,
) -> Job:
    """Checks a request and makes the directory of its run.

    Args:
        source: The notebook; one that was read already is run as it was then.
        asked: The parameters asked for.
        kernel: The kernel; by default the one that the notebook names.
        timeout_s: Seconds that the run may take; None for no limit.
        grace_s: Seconds from a stop request to the kill; by default as the lab's settings say.
        runs: The folder of runs; by default the lab's.
        command: The command line, for the record.
        labels: Labels of the run.
        place: Where to make the directory of a run that is only to be looked at; by default the folder of runs.
        **more: Further keys of the manifest.

    Raises:
        BadInput: The notebook, a parameter, the kernel or the folder of runs cannot be used. Nothing was started or
            left over.
    """
    if not math.isfinite(grace_s or 0.0) or not math.isfinite(timeout_s or 0.0):
        raise BadInput(f"--grace {grace_s} and --timeout {timeout_s} must be numbers of seconds")
    if isinstance(source, Path):
        source = notebook.read(Path(os.path.abspath(source)))
    path = source.path
    readable = bool(asked) or source.is_plain_python()
    declared, computed = (source.parameters(), source.computed()) if readable else ([], {})
    given = params.admit(declared, asked, path.name, computed, source.written() if readable else [])
    folder = lab.runs_folder(path.parent, runs)
    if given.get("MODEL_PATH") and modes.names_checkpoint("MODEL_PATH", declared):
        # Refused now, not after the data were loaded; and `last` would be the new run itself, once that is made.
        more["model_path"] = str(checkpoints.locate(given["MODEL_PATH"], path, "best", folder).resolve())
    trackers.refuse_missing(trackers.asked(params.effective(declared, given)))
    kernel = kernel or source.kernel
    check_kernel(kernel)
    root = lab.root(path.parent)
    settings = config.settings(root)
    grace_s = float(settings["grace_s"].value) if grace_s is None else grace_s
    fills = source.language == "python"  # no other language is sure to have a translator of parameters
    values = given | (version.filled(params.effective(declared, given), given, root) if fills else {})
    manifest = {
        **_contents(source, root),
        **whereabouts(root, folder),
        **_parameters(declared, values, given),
        **_request(kernel, command),
    }
    is_debug = manifest["parameters"].get("DEBUG") is True
    manifest |= {"labels": [*(["debug"] if is_debug else []), *labels], **more}
    run = create(place or folder, source.name, manifest, _files(source, params_text(declared, values, given)))
    return Job(str(run.path), str(path), values, kernel, source.language, timeout_s, grace_s)


def _contents(source: Notebook, root: Path) -> dict[str, Any]:
    """Returns the part of a manifest that says which notebook it is, and in its own words what it is about."""
    prose = [cell["source"] for cell in source.cells if cell["cell_type"] == "markdown"]
    return {
        "notebook": os.path.relpath(source.path, root),
        "title": source.title,
        "question": outline.question(prose),
        "conclusion": outline.section(prose, "conclusion"),
        "next_steps": outline.next_steps(prose),
        "source_sha256": source.sha256,
    }


def _parameters(declared: list[Parameter], values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a manifest that says what the kernel has, and what of it was asked for."""
    return {
        "parameters": params.effective(declared, values),
        "given": given,
        "values": {name: literals.literal(value) for name, value in values.items()},
        "declared": [parameter.name for parameter in declared],
    }


def _request(kernel: str, command: list[str] | None) -> dict[str, Any]:
    """Returns the part of a manifest that says who asks for the run, where and how."""
    creator = Process.of(os.getpid())
    return {
        "user": provenance.user(),
        "host": creator.host,
        "command": command or [],
        "kernel": kernel,
        "creator": creator.facts(),
    }


def _files(source: Notebook, parameters: str) -> dict[str, bytes | str]:
    """Returns the files that a run's directory has from the beginning, beside the manifest."""
    return {
        "params.yaml": parameters,
        "environment.json": dumps(provenance.basics(), pretty=True),
        "source/notebook.ipynb": source.dumps(),
        "notebook.ipynb": source.dumps(),
    }


def params_text(declared: list[Parameter], values: dict[str, Any], given: dict[str, Any]) -> str:
    """Returns the parameters as a file to run again from.

    What labkit filled in is a remark: it is filled anew. So is a value that a file would change, as `{0: "cat"}`, whose
    key would be text: the notebook has it.

    Args:
        declared: What the notebook declares.
        values: The values that differ from the defaults.
        given: Those of them that were asked for.
    """
    whole, remarks = {}, []
    for parameter in declared:
        name = parameter.name
        value = values.get(name, parameter.default)
        if name in values and name not in given:
            remarks.append(f"# {name}: {value!a}, from git\n")
        elif params.comes_back(parameter, value):
            whole[name] = value
        else:
            origin = "given from Python" if name in given else "the notebook's default"
            remarks.append(f"# {name}: {_ascii(value)}, {origin}, which no file can give as it is\n")
    return yamlfile.yaml_text(whole) + "".join(remarks)


def _ascii(value: Any) -> str:
    try:
        return masked(ascii(value))[:200]
    except (ValueError, RecursionError):  # an integer of very many digits somewhere in it
        return type(value).__name__


def check_kernel(name: str) -> None:
    """Refuses a kernel that is not installed."""
    from jupyter_client.kernelspec import NoSuchKernel

    specs = kernel_specs()
    try:
        specs.get_kernel_spec(name)
    except (NoSuchKernel, ValueError, OSError):
        known = ", ".join(sorted(specs.find_kernel_specs())) or "none"
        raise KernelProblem(f"there is no kernel {name!r}; installed are: {known} (choose one with --kernel)") from None


def kernel_specs() -> Any:
    """Returns what knows the installed kernels; left to itself it imports IPython, 0.2 s, to ask for one folder."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_core.paths import jupyter_path

    ipython = Path(os.environ.get("IPYTHONDIR") or "~/.ipython").expanduser()
    return KernelSpecManager(kernel_dirs=[*jupyter_path("kernels"), str(ipython / "kernels")])
