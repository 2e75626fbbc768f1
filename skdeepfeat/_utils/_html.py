"""HTML for notebooks. Whatever users name is escaped."""

import html
from collections.abc import Iterable

from ._printable import printable, redacted


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
