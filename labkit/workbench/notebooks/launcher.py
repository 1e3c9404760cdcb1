"""JupyterLab's launcher offers the lab's templates and labkit's: an extension of the Jupyter server.

jupyterlab-templates draws the tile and opens the notebook. Its server half knows folders only: it would show a template
twice that a lab has changed, and fill nothing. So labkit's configuration (launcher.json, which the wheel installs) puts
this in its place.
"""

from __future__ import annotations

import logging
from datetime import date
from pathlib import Path
from typing import Any

from labkit.errors import NotebookProblem
from labkit.record import lab
from labkit.record.provenance import author
from labkit.workbench.git import saved
from labkit.workbench.notebooks import lint, template, tidy
from labkit.workbench.notebooks.hygiene import Content
from labkit.workbench.notebooks.notebook import bytes_of

TITLE = "TODO title: what was tried, in a line"
Offered = tuple[dict[str, list[dict[str, str]]], dict[str, dict[str, str]]]


class Templates:
    """What the launcher offers, as the handlers of jupyterlab-templates ask for it.

    Attributes:
        template_label: The name of the tile.
    """

    def __init__(self, folder: Path, others: Any = None, label: str = "Template") -> None:
        self.template_label = label
        self._folder = folder
        self._others = others

    def get_templates(self) -> Offered:
        """Returns the names in each group, and each template by its name, with author and date of now."""
        groups, by_name = self._of_others()
        root = lab.root(self._folder)
        values = {"title": TITLE, "author": author(root), "date": date.today().isoformat()}
        for name, path in template.templates(root).items():
            content = _content(path)
            if content is None:
                continue
            group, _, stem = name.rpartition("/")
            shown = f"/{name}.ipynb"
            text = tidy.dumps(template.filled(content, values)).decode()
            groups.setdefault(group or root.name, []).append({"name": shown})
            by_name[shown] = {
                "path": str(path), "name": shown, "dirname": group, "filename": f"{stem}.ipynb", "content": text,
            }  # fmt: skip
        return groups, by_name

    def _of_others(self) -> Offered:
        try:
            return self._others.get_templates() if self._others is not None else ({}, {})
        except (OSError, ValueError) as error:  # one of them is not UTF-8
            logging.getLogger(__name__).warning("labkit: templates outside of the lab cannot be read: %s", error)
            return {}, {}


def _content(path: Path) -> Content | None:
    """Returns the notebook in a template's file; None where there is none, which must not hide the others."""
    try:
        return lint.parse(bytes_of(path))[0]
    except NotebookProblem:
        return None


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Answers the launcher's questions, by the settings of jupyterlab-templates too; git hears of what is saved."""
    from jupyter_core.paths import jupyter_path
    from jupyter_server.utils import url_path_join
    from jupyterlab_templates import extension

    settings = server.config.get("JupyterLabTemplates", {})
    named = list(settings.get("template_dirs", []))
    if settings.get("include_core_paths", True):
        named += jupyter_path("notebook_templates")
    label = settings.get("template_label") or "Template"
    offered = {"loader": Templates(Path(server.root_dir), extension.TemplatesLoader(named), label)}
    base = server.web_app.settings["base_url"]
    handlers = {"templates/names": extension.TemplateNamesHandler, "templates/get": extension.TemplatesHandler}
    server.web_app.add_handlers(
        ".*$", [(url_path_join(base, path), handler, offered) for path, handler in handlers.items()]
    )
    server.contents_manager.register_post_save_hook(saved.after_save)
