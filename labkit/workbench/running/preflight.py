"""A preflight: the notebook once with DEBUG=True, before the hours of a full run."""

from __future__ import annotations

from collections.abc import Mapping

from labkit.errors import ParameterProblem
from labkit.workbench.notebooks import params
from labkit.workbench.notebooks.notebook import Notebook
from labkit.workbench.notebooks.params import Asked, Source

LABEL = "preflight"


def asked(source: Notebook, full: Asked) -> list[Source]:
    """Returns what the preflight of a full run is asked for: the same, with DEBUG.

    Raises:
        BadInput: The full run would be refused, or is one in DEBUG itself; or the notebook declares no DEBUG.
    """
    name, parameters = source.path.name, source.parameters()
    values = params.admit(parameters, full, name, source.computed())
    debug = {parameter.name: parameter.default for parameter in parameters} | values
    if not isinstance(debug.get("DEBUG"), bool):
        raise ParameterProblem(
            f"--preflight runs a notebook once with DEBUG=True, and {name} declares no DEBUG; "
            "add `DEBUG: bool = False` to the cell tagged `parameters`, and have the notebook do little when it is set"
        )
    if debug["DEBUG"]:
        raise ParameterProblem("--preflight comes before a full run, and with DEBUG=True there is none; leave one out")
    sources = [Source("", tuple(full.items()))] if isinstance(full, Mapping) else list(full)
    return [*sources, Source("--preflight", (("DEBUG", True),))]
