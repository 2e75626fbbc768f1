"""Texts with labels that installed packages ship: their docstrings.

Nothing is imported or run for it. The files are parsed.
"""

import ast
import importlib.util
import inspect
import pathlib
import re

# A class of texts, and where they come from.
TOPICS = {
    "statistics": ["scipy.stats"],
    "signals": ["scipy.signal"],
    "optimization": ["scipy.optimize"],
    "tables": ["pandas.core"],
    "machine learning": ["sklearn"],
    "neural networks": ["torch.nn"],
    "pictures": ["PIL"],
    "graphs": ["networkx"],
    "formulas": ["sympy.core", "sympy.functions"],
}

_SECTION = re.compile(r"\n[^\n]+\n[-=~]{3,}|\n *(?:Args|Example|Shape|Returns)\w*:")
_WORDS = re.compile(r"[A-Za-z]{2,}")


def load_docstrings(topics=TOPICS):
    """Return the prose of docstrings and their topics.

    Returns
    -------
    docstrings : list of list of str
        The sentences of each docstring, without examples, lists of parameters and code.
    labels : list of str
        The topic of each.
    """
    docstrings, labels, seen = [], [], set()
    for topic, modules in topics.items():
        for module in modules:
            for path in _files(module):
                for sentences in _docstrings_of(path):
                    # The same function is often documented in several places.
                    if sentences[0] not in seen:
                        seen.add(sentences[0])
                        docstrings.append(sentences)
                        labels.append(topic)
    return docstrings, labels


def _files(module):
    # find_spec imports the package that a module is in, but not the module.
    package, _, inside = module.partition(".")
    home = importlib.util.find_spec(package).submodule_search_locations[0]
    folder = pathlib.Path(home, *inside.split(".")) if inside else pathlib.Path(home)
    return sorted(
        path
        for path in folder.rglob("*.py")
        if not {"tests", "testing", "externals", "_vendor"} & set(path.parts)
    )


def _docstrings_of(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        is_documented = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        if not is_documented or node.name.startswith("_"):
            continue
        sentences = _sentences(ast.get_docstring(node) or "")
        if sentences:
            yield sentences


def _sentences(docstring):
    """Return the sentences of the prose before the first section."""
    docstring = inspect.cleandoc(docstring)
    prose = re.split(
        r"\n[^\n]+\n[-=~]{3,}|\n *(?:Args|Example|Shape|Returns)\w*:", docstring
    )[0]
    prose = re.sub(r">>>.*|\.\. .*|:\w+:|[`*]|\n\s+", " ", prose)
    sentences = re.split(r"(?<=[.!?])\s+|\n\n", prose)
    sentences = [" ".join(sentence.split()) for sentence in sentences]
    return [one for one in sentences if len(_WORDS.findall(one)) >= 4]
