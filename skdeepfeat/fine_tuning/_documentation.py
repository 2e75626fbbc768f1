"""Documentation that both estimators have in common, from one source."""

import inspect
import re


def document(base):
    """Return a decorator that completes the docstring of a class by that of its base.

    The docstring of the class has only the parameters and attributes that the base does
    not have. Parameters come in the order of the signature.

    Parameters
    ----------
    base : type
    """

    def decorate(cls):
        if cls.__doc__ is None:  # python -OO
            return cls
        own, common = _sections(cls.__doc__), _sections(base.__doc__)
        entries = _entries(common["Parameters"]) | _entries(own["Parameters"])
        names = [name for name in inspect.signature(cls).parameters if name in entries]
        merged = {
            **common,
            "": own[""],
            "Parameters": "\n\n".join(entries[name] for name in names),
            "Attributes": own.get("Attributes", "") + common["Attributes"],
            "Examples": own["Examples"],
        }
        cls.__doc__ = "\n\n".join(
            f"{title}\n{'-' * len(title)}\n{text.strip()}" if title else text.strip()
            for title, text in merged.items()
        )
        return cls

    return decorate


def _sections(docstring):
    """Return the sections of a numpydoc docstring by title, the summary as ``""``."""
    parts = re.split(r"^(.+)\n-{3,}\n", inspect.cleandoc(docstring), flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def _entries(section):
    """Return the entries of a section by name."""
    entries = re.split(r"\n(?=\w+ : )", section.strip())
    return {entry.partition(" : ")[0]: entry.strip() for entry in entries}
