"""HTML for notebooks. Whatever users name is escaped."""

import html
import os
import sys
from collections.abc import Iterable

from ._printable import printable, redacted

# Address of the documentation unless SKDEEPFEAT_DOCS is set. It is also in
# pyproject.toml.
DOCUMENTATION = "https://skdeepfeat.readthedocs.io/en/stable"


def escaped(text: object) -> str:
    """Return text in one line for HTML, without secrets and control characters."""
    return html.escape(redacted(printable(text)))


def html_table(title: object, rows: Iterable[Iterable], head: Iterable = ()) -> str:
    """Return a table for a notebook.

    Parameters
    ----------
    title : object
    rows : iterable of iterable of object
        The first of each row names it.
    head : iterable of object, default=()
        The titles of the columns.

    Returns
    -------
    str
    """
    lines = ["<table>", f"<caption>{escaped(title)}</caption>"]
    if cells := [f"<th>{escaped(cell)}</th>" for cell in head]:
        lines.append(f"<thead><tr>{''.join(cells)}</tr></thead>")
    lines.append("<tbody>")
    for name, *values in rows:
        cells = [f"<td>{escaped(value)}</td>" for value in values]
        lines.append(f"<tr><th>{escaped(name)}</th>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


# -- HTML of estimators, which scikit-learn makes


def is_drawn_as_html() -> bool:
    """Return whether scikit-learn draws an estimator as HTML at the moment.

    It asks for the names of features and for every attribute then, also before `fit`,
    and what needs a network would take seconds, or raise.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "sklearn.utils._repr_html.estimator":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class DocumentationLinkMixin:
    """Mixin class that links the HTML of an estimator to its page.

    The environment variable ``SKDEEPFEAT_DOCS`` is the address of another copy of the
    documentation, such as ``file:///home/me/skdeepfeat/docs/_build/html``.
    """

    _doc_link_module = "skdeepfeat"

    @property
    def _doc_link_template(self):
        return "{site}/api/{page}.html"

    def _doc_link_url_param_generator(self):
        package, module, *_ = type(self).__module__.split(".")
        name = type(self).__name__
        is_at_the_top = name in sys.modules[package].__all__
        page = f"{package}.{name}" if is_at_the_top else f"{package}.{module}.{name}"
        site = os.environ.get("SKDEEPFEAT_DOCS") or DOCUMENTATION
        return {"site": html.escape(site.rstrip("/")), "page": page}
