"""The site: `make docs` builds it, after which it needs no connection."""

import importlib.metadata
import json
import pathlib
import re
import shutil
import sys
import xml.sax.saxutils

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))

import run_examples  # noqa: E402
from error_texts import error_page  # noqa: E402
from run_examples import COURSE, FOLDERS  # noqa: E402

project = "skdeepfeat"
author = "the skdeepfeat developers"
copyright = f"2026, {author}"
release = version = importlib.metadata.version("skdeepfeat")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
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

# Other projects' names: their inventories are not on this machine. A name in small
# letters is that of a parameter or an attribute. FeatureCache is listed in its own
# package.
nitpick_ignore_regex = [
    ("py:.*", r"(sklearn|torch|numpy|pandas|polars|pyarrow|joblib|PIL)\..*"),
    ("py:obj", r"[a-z]\w*|(FeatureCache|Store)(\.\w+)?"),
]

autosummary_generate = True
autodoc_typehints = "none"
# Names in the docstrings are links, where they are those of objects.
default_role = "autolink"
toc_object_entries_show_parents = "hide"
# Methods are listed by autodoc.
numpydoc_show_class_members = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

_EXAMPLES = ROOT / "examples"
_GALLERY = DOCS / "_build" / "examples"
_SHORT = list(filter(run_examples.is_executed, FOLDERS))
_GALLERY_HEADER = """
Examples
========

A course, from features to scaling. Each example runs as it is, with no connection. Some
need an extra or a file, as their first lines say.
"""
_STORED_OUTPUT = """
# %%
# Output
# ------
# This is what ``python docs/run_examples.py {command}`` stored, in {seconds} seconds of
# CPU time.{reason}
#
# .. code-block:: none
#
{output}
"""


def _write_gallery_sources(app, config):
    """Copy the examples in the form that sphinx-gallery reads.

    It wants the first sentence of each as a title in reStructuredText. Pictures, and
    what scripts print that it does not run, come from docs/run_examples.py.
    """
    shutil.rmtree(_GALLERY, ignore_errors=True)
    _GALLERY.mkdir(parents=True)
    (_GALLERY / "GALLERY_HEADER.rst").write_text(_GALLERY_HEADER, encoding="utf-8")
    for folder, (title, listed) in COURSE.items():
        (_GALLERY / folder).mkdir()
        header = f"{title}\n{'-' * len(title)}\n"
        (_GALLERY / folder / "GALLERY_HEADER.rst").write_text(header, encoding="utf-8")
        for helper in _EXAMPLES.glob("_*.py"):
            shutil.copy(helper, _GALLERY / folder)
        for name in listed.split():
            runs = config.plot_gallery != "0" and run_examples.is_executed(name)
            text = _gallery_source(name, runs)
            (_GALLERY / folder / f"{name}.py").write_text(text, encoding="utf-8")


def _gallery_source(name, runs):
    text = (_EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    title, rest = text.removeprefix('"""').split(".\n", 1)
    text, code = rest.split('"""', 1)
    picture = run_examples.picture_of(name)
    if picture.exists():
        path = picture.relative_to(DOCS)
        text += f"\n.. image:: /{path}\n   :alt: What the example shows.\n\n"
        code += f"\n# sphinx_gallery_thumbnail_path = '{path}'\n"
    record = run_examples.stored(name)
    if record and not runs:
        lines = record["output"].splitlines()
        long = record["seconds"] > run_examples.MAX_SECONDS
        given = record.get("arguments")
        code += _STORED_OUTPUT.format(
            command=f'{name} --arguments "{given}"' if given else name,
            seconds=record["seconds"],
            reason=" That is too long to be run when the site is built." * long,
            output="\n".join(f"#     {line}".rstrip() for line in lines),
        )
    return f'"""{title}\n{"=" * len(title)}\n{text}"""{code}'


sphinx_gallery_conf = {
    "examples_dirs": "_build/examples",
    "gallery_dirs": "gallery",
    # Each page of the reference shows the examples that use its object.
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("skdeepfeat",),
    "reference_url": {"skdeepfeat": None},
    # CI builds with plot_gallery=0, and runs all of them as tests.
    "filename_pattern": rf"/({'|'.join(_SHORT)})\.py$",
    "abort_on_example_error": True,
    "image_scrapers": (),
    "ignore_pattern": r"(^|/)_",
    "within_subsection_order": "FileNameSortKey",
    "show_signature": False,
    "download_all_examples": False,
    # Its table loads scripts from other hosts.
    "write_computation_times": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "skdeepfeat"
html_show_sourcelink = False
# Summaries are fetched, which browsers refuse for files.
html_show_search_summary = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Without a section there is nothing to list beside the page.
html_sidebars = dict.fromkeys(
    ["coming_from/*", "install", "first_steps", "tutorial", "benchmarks"], []
)
html_baseurl = "https://skdeepfeat.readthedocs.io/en/stable/"
# The theme's switcher fetches its list, which browsers refuse for files.
html_context = {
    "version": release,
    "versions": json.loads((DOCS / "_static" / "versions.json").read_text()),
}
html_theme_options = {
    "navbar_end": ["versions", "theme-switcher"],
    "show_prev_next": False,
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
    # Two columns of code, in coming_from, need the width.
    "secondary_sidebar_items": {
        pages: ["page-toc"] for pages in ("*", "api/*", "gallery/*")
    },
}


def _gallery_link(match):
    return f"](gallery/{FOLDERS[match[1]]}/{match[1]}.rst)"


# The Markdown pages link to files of the repository; on the site these are pages.
_LINKS = [
    (r"\]\(\.\./benchmarks/README\.md", "](benchmarks.md"),
    (r"\]\(\.\./\.\./benchmarks/README\.md", "](../benchmarks.md"),
    (r"\]\(\.\./CONTRIBUTING\.md", "](contributing.md"),
    (r"\]\(\.\./examples/(\w+)\.py\)", _gallery_link),
    (r"\]\(\.\./examples/README\.md\)", "](gallery/index.rst)"),
]
# From pages that stand outside of docs, and are included into one.
_INCLUDED_LINKS = [
    (r"\]\((?:\.\./)?docs/", "]("),
    (r"\]\((?:\.\./)?CHANGELOG\.md", "](changelog.md"),
    (r"\]\((?:\.\./)?examples/?\)", "](gallery/index.rst)"),
    (r"\]\((?:\.\./)?examples/(\w+)\.py\)", _gallery_link),
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
    # scikit-learn's methods link into its own documentation.
    method = getattr(member, "fget", member)
    is_foreign = callable(method) and not (
        getattr(method, "__module__", None) or ""
    ).startswith("skdeepfeat")
    is_made = name.startswith("set_") and name.endswith("_request")
    return True if is_foreign or is_made else None


def _escape_attributes(app, what, name, obj, options, lines):
    # A word that ends in an underscore is a link in reStructuredText. numpydoc takes
    # care of the names of attributes, and not of those in types and in the text.
    lines[:] = [
        re.sub(r"(?<=[(\s])(\w+)_(?=[,.;)]|$| [^:])", r"\1\\_", line) for line in lines
    ]


def _write_sitemap(app, error):
    if error is None and app.builder.name == "html":
        addresses = (
            html_baseurl + app.builder.get_target_uri(name)
            for name in sorted(app.env.found_docs)
        )
        listed = "".join(
            f"<url><loc>{xml.sax.saxutils.escape(one)}</loc></url>\n"
            for one in addresses
        )
        (pathlib.Path(app.outdir) / "sitemap.xml").write_text(
            '<?xml version="1.0" encoding="utf-8"?>\n'
            '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
            f"{listed}</urlset>\n",
            encoding="utf-8",
        )


def setup(app):
    """Register what reads the pages and selects the methods."""
    # Before numpydoc, which listens with the same priority.
    app.connect("autodoc-process-docstring", _escape_attributes, priority=400)
    app.connect("source-read", _read_source)
    # Before sphinx-gallery reads them.
    app.connect("config-inited", _write_gallery_sources, priority=5)
    app.connect("autodoc-skip-member", _skip_member)
    app.connect("build-finished", _write_sitemap)
