"""Remove control characters and secrets from text of unknown origin.

File names, labels and error texts may contain escape sequences, which move the cursor,
rename the window or hide what was printed, and newlines, which make one message look
like two. Addresses may contain passwords and signatures, and other people read logs.
This module imports nothing heavy, because the command line needs it at once.
"""

import re
from collections.abc import Mapping

# C0 and C1 controls and DEL; controls of text direction; separators of lines and
# paragraphs; lone surrogates, from names that are not UTF-8.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)

_HIDDEN = "<hidden>"
# A user and password without a scheme, as curl and scp take them, at the beginning of a
# word: /a/T10:x@cam.jpg is a file. Digits after the colon are a port or a time of day.
_USER_OF_HOST = (
    r"(?<![^\s'\"`(\[{<,;=|])(?!hf[-_]hub:)[^\s'\"`()\[\]{}<>,;=|/\\:@?#]{1,999}:"
    r"(?!\d*(?:[/?#\s'\"]|$)|\d\d?(?::\d\d)*(?:\.\d+)?@)"
    r"[^\s'\"/\\:][^\s'\"]{0,1999}(?=@)"
)
# Keys with a known prefix: those of Hugging Face, GitHub, GitLab, Slack and AWS, and
# JSON web tokens. A word after "Bearer" counts as a token if it contains a digit.
_TOKEN = (
    r"(?<![a-z0-9])(?:hf_[a-z0-9]{20,99}|gh[opsur]_[a-z0-9]{20,255}|"
    r"github_pat_[a-z0-9_]{20,255}|glpat-[\w-]{20,99}|xox[a-z]-[\w-]{10,255}|"
    r"(?-i:A[KS]IA[A-Z0-9]{16})(?![a-z0-9])|"
    r"eyj[\w-]{10,300}\.[\w-]{10,4000}\.[\w-]*|"
    r"(?<=bearer )(?=[^\s\d]{0,99}\d)[\w.~+/=-]{16,})"
)
_TOKENS = re.compile(_TOKEN, re.IGNORECASE)
# An address that is percent-encoded as a whole, possibly several times.
_SIGN_OF_QUOTED = "%(?:25){0,9}3a(?:%(?:25){0,9}2f){2}"
_QUOTED = re.compile(rf"[a-z0-9+.-]{{2,20}}{_SIGN_OF_QUOTED}[^\s'\"]*", re.IGNORECASE)
# Found in addresses, also if pathlib has merged two slashes, or after "hf-hub:".
_SIGN = re.compile(
    rf"[a-z0-9+.-]{{2}}:/|//|\\\\|[_-]hub:|[?&]sig=|{_USER_OF_HOST}|{_TOKEN}|"
    rf"{_SIGN_OF_QUOTED}",
    re.IGNORECASE,
)
# The user and password of an address. Keys may have an unescaped / or @. A number
# after the colon is a port. In abfs://container@account the part before the @ is not
# secret, and has no colon.
_USER = re.compile(
    r"(?:(?<=[:/\\][/\\])|(?<=[_-]hub:))[^/\\:?#\s'\"@]{0,999}:"
    r"(?!\d*(?:[/?#\s'\"]|$))[^\s'\"]{0,1999}(?=@)|"
    r"(?:(?<=ttp:/)|(?<=tps:/)|(?<=ttp://)|(?<=tps://)|(?<=//)(?<![^\s'\"(]//))"
    r"[^/?#\s'\"@]+(?=@)|"
    rf"{_USER_OF_HOST}",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(r"[?&](?:sig|[\w-]*signature)=", re.IGNORECASE)
_QUERY = re.compile(r"([?&;][^=&;#\s'\"]+=)[^&;#\s'\"]+")
# A query that consists of a key alone.
_BARE_QUERY = re.compile(r"(?<=[\w./-]\?)[\w.~%+/-]{8,}(?=[&;#\s'\")\]>]|$)")
_NAMED = re.compile(
    r"((?:secret|token|passw(?:or)?d|pwd|api_?key|access_?key|account_?key|credential|"
    r"signature|authorization|(?<=[?&])sig(?==))[\w-]*['\"]?\s*[=:]\s*"
    r"(?:(?:bearer|basic)\s+)?['\"]?)"
    r"(?!anon\b)[^\s'\"&,;)}\]]+",
    re.IGNORECASE,
)


def redacted(text, options=()) -> str:
    """Return text without secrets in addresses and without the values of options.

    Parameters
    ----------
    text : object
        Converted by `str`.
    options : mapping, default=()
        Storage options. Text values of at least four characters are hidden, including
        those in nested mappings and sequences.
    """
    text = str(text)
    for value in sorted(_texts(options), key=len, reverse=True):
        text = text.replace(value, _HIDDEN)
    if has_address(text):
        text = _QUOTED.sub(_redacted_address, text)
        text = _QUERY.sub(rf"\1{_HIDDEN}", _USER.sub(_HIDDEN, text))
        text = _TOKENS.sub(_HIDDEN, _BARE_QUERY.sub(_HIDDEN, text))
    return _NAMED.sub(rf"\1{_HIDDEN}", text)


def _redacted_address(found):
    """Return an encoded address unchanged, or decoded if something must be hidden."""
    from urllib.parse import unquote

    plain = unquote(found[0])
    hidden = redacted(plain)
    return found[0] if hidden == plain else hidden


def has_address(text: str) -> bool:
    """Return whether text may contain an address or a key."""
    return _SIGN.search(text) is not None


def has_password(text: str) -> bool:
    """Return whether text holds the password or the signature of an address."""
    return _USER.search(text) is not None or _SIGNATURE.search(text) is not None


def _texts(value):
    """Return the text values of options."""
    if isinstance(value, str):
        return [value] if len(value) >= 4 else []
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple, set)):
        return []
    return [text for each in value for text in _texts(each)]


def printable(text) -> str:
    """Return text in one line, with control characters escaped as in Python."""
    return _CONTROL.sub(_escape, str(text))


def printable_lines(text) -> str:
    """Return text of several lines, with control characters escaped.

    All lines but the first are indented, so that none looks like a separate message.
    """
    first, *others = str(text).split("\n")
    indented = [line if line[:1] in ("", " ") else f"  {line}" for line in others]
    return "\n".join(map(printable, [first, *indented]))


def _escape(found):
    return repr(found[0])[1:-1]
