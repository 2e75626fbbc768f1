"""The site: `make docs` builds it, after which it needs no connection."""

import importlib.metadata
import pathlib
import re
import shutil
import sys

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))

from error_texts import error_page  # noqa: E402

project = "skdeepfeat"
author = "the skdeepfeat developers"
copyright = f"2026, {author}"
release = version = importlib.metadata.version("skdeepfeat")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]  # the gallery's settings hold functions

# Other projects' names: their inventories are not on this machine. A name that ends in
# an underscore is an attribute. FeatureCache is listed in its own package.
nitpick_ignore_regex = [
    ("py:.*", r"(sklearn|torch)\..*"),
    ("py:obj", r"\w+_|FeatureCache"),
]

autosummary_generate = True
autodoc_typehints = "none"
# Methods are listed by autodoc.
numpydoc_show_class_members = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

_EXAMPLES = ROOT / "examples"
_GALLERY = DOCS / "_build" / "examples"
_GALLERY_HEADER = """
Examples
========

Each runs as it is, with no connection. Some need an extra or a file, as their first
lines say. Pictures are those that the script draws. Some take minutes, so they are not
run when the site is built.
"""


def _write_gallery_sources():
    """Copy the examples in the form that sphinx-gallery reads.

    It wants the first sentence of each as a title in reStructuredText, and takes the
    pictures of scripts that it does not run from elsewhere.
    """
    shutil.rmtree(_GALLERY, ignore_errors=True)
    _GALLERY.mkdir(parents=True)
    (_GALLERY / "GALLERY_HEADER.rst").write_text(_GALLERY_HEADER, encoding="utf-8")
    for path in _EXAMPLES.glob("[a-z]*.py"):
        text = path.read_text(encoding="utf-8")
        title, rest = text.removeprefix('"""').split(".\n", 1)
        picture = f"images/{path.stem}.png"
        if (DOCS / picture).exists():
            text, code = rest.split('"""', 1)
            rest = f'{text}\n.. image:: ../{picture}\n\n"""{code}'
            rest += f"\n# sphinx_gallery_thumbnail_path = '{picture}'\n"
        title = f"{title}\n{'=' * len(title)}\n"
        (_GALLERY / path.name).write_text(f'"""{title}{rest}', encoding="utf-8")


_write_gallery_sources()

sphinx_gallery_conf = {
    "examples_dirs": "_build/examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "/no_example_runs_here",  # matches none
    "ignore_pattern": r"(^|/)_",
    "within_subsection_order": "FileNameSortKey",
    "show_signature": False,
    "download_all_examples": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "skdeepfeat"
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": False,
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
    # Two columns of code, in coming_from, need the width.
    "secondary_sidebar_items": {
        pages: ["page-toc"] for pages in ("*", "api/*", "gallery/*")
    },
}

# The Markdown pages link to files of the repository; on the site these are pages.
_LINKS = [
    (r"\]\(\.\./benchmarks/README\.md", "](benchmarks.md"),
    (r"\]\(\.\./\.\./benchmarks/README\.md", "](../benchmarks.md"),
    (r"\]\(\.\./CONTRIBUTING\.md", "](contributing.md"),
    (r"\]\(\.\./examples/(\w+)\.py\)", r"](gallery/\1.rst)"),
    (r"\]\(\.\./examples/README\.md\)", "](gallery/index.rst)"),
]
# From pages that stand outside of docs, and are included into one.
_INCLUDED_LINKS = [
    (r"\]\((?:\.\./)?docs/", "]("),
    (r"\]\((?:\.\./)?CHANGELOG\.md", "](changelog.md"),
    (r"\]\((?:\.\./)?examples/?\)", "](gallery/index.rst)"),
    (r"\]\((?:\.\./)?examples/(\w+)\.py\)", r"](gallery/\1.rst)"),
    (r"\]\((?:\.\./)?benchmarks/README\.md", "](benchmarks.md"),
]
_INCLUDED = {
    "benchmarks": "benchmarks/README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
}


def _read_source(app, docname, source):
    if docname in _INCLUDED:
        source[0] = (ROOT / _INCLUDED[docname]).read_text(encoding="utf-8")
    elif docname == "errors":
        source[0] = error_page()
    for pattern, replacement in _INCLUDED_LINKS if docname in _INCLUDED else _LINKS:
        source[0] = re.sub(pattern, replacement, source[0])


def _skip_member(app, what, name, member, skip, options):
    # scikit-learn makes these, and they link into its own documentation.
    return True if name.startswith("set_") and name.endswith("_request") else None


def _escape_attributes(app, what, name, obj, options, lines):
    # A word that ends in an underscore is a link in reStructuredText. numpydoc takes
    # care of the names of attributes, and not of those in types and in the text.
    lines[:] = [
        re.sub(r"(?<=[(\s])(\w+)_(?=[,.;)]|$| [^:])", r"\1\\_", line) for line in lines
    ]


def setup(app):
    """Register what reads the pages and selects the methods."""
    # Before numpydoc, which listens with the same priority.
    app.connect("autodoc-process-docstring", _escape_attributes, priority=400)
    app.connect("source-read", _read_source)
    app.connect("autodoc-skip-member", _skip_member)
