"""Objects by their names, so that a parameter can choose a model, a loss or a data set."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from labkit.errors import RunProblem
from labkit.kernel import cells
from labkit.record import lab


def by_name(name: str) -> Any:
    """Returns the object that a dotted name names, importing its module: a class, a function, a module.

    >>> loss = labkit.by_name("torch.nn.CrossEntropyLoss")()
    >>> model = labkit.by_name("models.SimpleCNN")(classes=10)  # models.py beside the notebook, or in the lab

    The lab's own modules come before installed ones, and their source is recorded with the run.

    Args:
        name: A name and nothing else, never an expression; `module:attribute` says where the module's name ends.

    Raises:
        RunProblem: There is no such thing, or its module cannot be imported.
    """
    module, colon, attributes = name.partition(":") if isinstance(name, str) else ("", "", "")
    steps = [(part, bool(colon)) for part in module.split(".")]
    steps += [(part, False) for part in attributes.split(".") if colon]
    if not all(part.isidentifier() for part, _ in steps):
        raise RunProblem(f"by_name({name!r:.80}): write a dotted name, such as 'torch.nn.CrossEntropyLoss'")
    _let_import_from_the_lab()
    reached = steps[0][0]
    found: Any = _import(reached, name)
    for part, is_module in steps[1:]:
        found = _below(found, part, reached, name, is_module)
        reached += f".{part}"
    return found


def _let_import_from_the_lab() -> None:
    """Puts the notebook's folder and the lab first on the path of imports; a module may need them later too."""
    beside = cells.notebook_path().parent
    own = [str(beside), str(lab.root(beside))]
    sys.path[:] = [*dict.fromkeys(own), *(entry for entry in sys.path if entry not in own)]


def _below(owner: Any, part: str, reached: str, name: str, is_module: bool) -> Any:
    """Returns an attribute, or a module of a package that has not been imported yet."""
    if not is_module:
        try:
            return getattr(owner, part)
        except AttributeError:
            pass
        except Exception as error:  # a module's own `__getattr__` may import
            raise RunProblem(f"by_name({name!r:.80}): {reached}.{part} raised {_told(error)}") from error
    if isinstance(owner, ModuleType) and _is_there(f"{reached}.{part}"):
        return _import(f"{reached}.{part}", name)
    what = "module" if is_module else "name"
    raise RunProblem(f"by_name({name!r:.80}): {reached} has no {what} {part!r}{_near(part, _names(owner))}")


def _import(module: str, name: str) -> ModuleType:
    if not _is_there(module):
        near = _near(module, _top_names()) or ("" if "." in name else "; begin with the module: 'torch.nn.ReLU'")
        raise RunProblem(f"by_name({name!r:.80}): there is no module {module!r:.80}{near}")
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise RunProblem(f"by_name({name!r:.80}): importing {module} raised {_told(error)}") from error


def _is_there(module: str) -> bool:
    importlib.invalidate_caches()  # a file written a moment ago counts
    try:
        return module in sys.modules or importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False  # below what is no package


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _near(wrong: str, known: Iterable[str]) -> str:
    by_case = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(wrong.casefold(), by_case, 1, 0.6)
    return f"; did you mean {by_case[near[0]]!r}?" if near else ""


def _names(owner: Any) -> list[str]:
    paths = getattr(owner, "__path__", None)
    return [*dir(owner), *(found.name for found in pkgutil.iter_modules(list(paths) if paths else []))]


def _top_names() -> list[str]:
    return [*(found.name for found in pkgutil.iter_modules()), *sys.stdlib_module_names]
