"""Progress bars on terminals and in notebooks."""

import os
import pty
import select
import sys

import pytest

from skdeepfeat._utils._progress import progress_bar


def test_terminal_without_columns(monkeypatch):
    reading, writing = pty.openpty()
    with os.fdopen(writing, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with progress_bar(total=4, desc="epochs") as bar:
            bar.update(4)
        shown = ""
        while "4/4" not in shown and select.select([reading], [], [], 5)[0]:
            shown += os.read(reading, 10_000).decode()
    os.close(reading)
    assert "epochs: 100%" in shown


@pytest.mark.slow
@pytest.mark.parametrize("has_widgets", [True, False])
def test_notebook(has_widgets):
    reason = "Jupyter is not installed"
    nbformat = pytest.importorskip("nbformat", reason=reason)
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    pytest.importorskip("ipywidgets", reason=reason)
    source = "from skdeepfeat._utils._progress import progress_bar\n"
    source += "for _ in progress_bar(range(3), desc='epochs'): pass"
    if not has_widgets:
        source = f"import sys; sys.modules['ipywidgets'] = None\n{source}"
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source)]
    nbclient.NotebookClient(notebook, timeout=120).execute()
    outputs = notebook.cells[0].outputs
    text = "".join(one.get("text", "") for one in outputs)
    widgets = [one for one in outputs if "widget-view" in " ".join(one.get("data", {}))]
    assert bool(widgets) == has_widgets
    assert "Warning" not in text
    assert has_widgets or "epochs: 100%" in text
