"""The texts of the package's errors and warnings, from its source.

The site lists them, and a test looks in them for those that the pages quote.
"""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).parents[1] / "skdeepfeat"
VALUE = "\N{HORIZONTAL ELLIPSIS}"  # what stands for a value
# They are caught within the package.
_INTERNAL = (
    "CancelledError CompilationError NotEncodableError NotLinearError SyntaxError "
    "AttributeError NotImplementedError EOFError"
).split()
# What follows the name of an image or a file.
_CAUSES = ("BadImageError", "BadItemError", "BadFileError")
_SUBJECTS = {
    "images": "Images",
    "feature_extraction": "Features",
    "networks": "Networks and weights",
    "cache": "The cache",
    "training": "Training",
    "fine_tuning": "Fine-tuning",
    "compression": "Small networks",
    "self_supervised": "Without labels",
    "text": "Texts",
    "model_selection": "Deciding",
    "inspection": "Looking inside",
    "plotting": "Displays",
    "cli": "The command line",
    "_utils": "Parameters, devices, extras",
}


def text_of(node):
    """Return a text of the source, `VALUE` for each value in it; None if it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or VALUE for part in node.values)
    return None


def all_texts():
    """Return every text in the package's source."""
    trees = (ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py"))
    return {text for tree in trees for n in ast.walk(tree) if (text := text_of(n))}


def _name_of(call):
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _errors_of(tree):
    """Return (name of an error or a warning, its text) pairs."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name, text = _name_of(node), text_of(node.args[0])
        if name == "choice_error" and len(node.args) > 2:
            name, wanted = "ValueError", text_of(node.args[1])
            if text and wanted:
                text = f"The {text!r} parameter must be {wanted}. Got {VALUE} instead."
        if name == "warn":
            kinds = [arg.id for arg in node.args[1:] if isinstance(arg, ast.Name)]
            name = kinds[0] if kinds else "UserWarning"
        if not name.endswith(("Error", "Warning", "BadParameter")) or text is None:
            continue
        is_sentence = text[:1].isupper() or text.startswith(VALUE)
        is_shown = (is_sentence or name in _CAUSES) and text.count(" ") > 2
        if is_shown and name not in _INTERNAL:
            yield name, " ".join(text.split())


def error_table():
    """Return {subject: sorted (name, text) pairs}."""
    table = {}
    for folder, subject in _SUBJECTS.items():
        found = set()
        for path in (PACKAGE / folder).rglob("*.py"):
            found |= set(_errors_of(ast.parse(path.read_text("utf-8"))))
        if found:
            table[subject] = sorted(found, key=lambda pair: pair[1].lower())
    return table


def error_page():
    """Return the page in Markdown."""
    lines = ["# All error texts", "", "From the source. … stands for a value.", ""]
    for subject, errors in error_table().items():
        lines += [f"## {subject}", ""]
        lines += [f"* `{name}`: {_escaped(text)}" for name, text in errors]
        lines.append("")
    return "\n".join(lines)


def _escaped(text):
    return "".join("\\" + c if c in r"\`*_{}[]<>#$|~" else c for c in text)
