"""Text from outside, made safe to show: no control characters and no secrets.

File names, labels and error texts may hold escape sequences, which move the cursor,
rename the window or hide what was printed, and newlines, which make one message look
like two. Addresses may hold passwords and signatures, and other people read logs. This
module imports nothing heavy, because the command line needs it at once.
"""

import re
from collections.abc import Mapping

__all__ = ["printable", "printable_lines", "redacted"]

# C0 and C1 controls and DEL; controls of text direction; separators of lines and
# paragraphs; lone surrogates, from names that are not UTF-8.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)

_HIDDEN = "<hidden>"
# What precedes the host of an address. In abfs://container@account it is not
# secret: there it has no colon.
_USER = re.compile(
    r"(?<=://)[^/?#\s'\"@]*:[^/?#\s'\"]*(?=@)|(?:(?<=ttp://)|(?<=tps://))[^/?#\s'\"@]+(?=@)",
    re.IGNORECASE,
)
_QUERY = re.compile(r"([?&;][^=&;#\s'\"]+=)[^&;#\s'\"]+")
_NAMED = re.compile(
    r"((?:secret|token|passw(?:or)?d|pwd|api_?key|access_?key|account_?key|credential|"
    r"signature|authorization)[\w-]*['\"]?\s*[=:]\s*(?:(?:bearer|basic)\s+)?['\"]?)"
    r"(?!anon\b)[^\s'\"&,;)}\]]+",
    re.IGNORECASE,
)


def redacted(text, options=()) -> str:
    """Return text without the secrets of addresses, and without the values of options.

    Parameters
    ----------
    text : object
        Its `str` is shown.
    options : mapping, default=()
        Storage options. Their values, also those of mappings and sequences in them, are
        hidden where they are text of at least four characters.
    """
    text = str(text)
    for value in sorted(_texts(options), key=len, reverse=True):
        text = text.replace(value, _HIDDEN)
    if "://" in text:
        text = _QUERY.sub(rf"\1{_HIDDEN}", _USER.sub(_HIDDEN, text))
    return _NAMED.sub(rf"\1{_HIDDEN}", text)


def _texts(value):
    """Return the pieces of text in the values of options."""
    if isinstance(value, str):
        return [value] if len(value) >= 4 else []
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple, set)):
        return []
    return [text for each in value for text in _texts(each)]


def printable(text) -> str:
    """Return text in one line, with escapes as Python writes them."""
    return _CONTROL.sub(_escape, str(text))


def printable_lines(text) -> str:
    """Return text that may have several lines; all but the first are indented.

    So none of them looks like a message of its own.
    """
    first, *others = str(text).split("\n")
    indented = [line if line[:1] in ("", " ") else f"  {line}" for line in others]
    return "\n".join(map(printable, [first, *indented]))


def _escape(found):
    # As Python writes it: \n, \x1b, \u202e, \udcff.
    return repr(found[0])[1:-1]
