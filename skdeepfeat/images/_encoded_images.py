"""Encoded images in wrappings: base64, dicts of Hugging Face datasets, open files."""

import base64
import io
import os
import threading
import urllib.parse
from collections.abc import Mapping

from skdeepfeat._utils._forks import released_after_fork
from skdeepfeat._utils._shown import shown, shown_path
from skdeepfeat.exceptions import BadImageError

from ._image_limits import check_length

__all__ = [
    "Unreadable",
    "decode_base64",
    "decode_data_uri",
    "describe_file",
    "is_data_uri",
    "is_open_file",
    "read_open_file",
    "read_until",
    "unwrapped",
]

_CHUNK = 2**20  # bytes

# The first bytes of files that a text without a name may hold. Texts with fewer than
# this many characters are not images.
_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
    b"\0\0\1\0",
    b"8BPS",
    b"DDS ",
    b"qoif",
    b"icns",
)
_SHORTEST = 32

_AS_TEXT = "the file is open as text: open it with mode 'rb'"

# The position of an open file belongs to whoever reads it, and one file can be in
# several rows: the same object always gets the same lock.
_LOCKS = tuple(released_after_fork(threading.Lock()) for _ in range(64))


class Unreadable:
    """What a worker gets instead of an open file that could not be read.

    Parameters
    ----------
    cause : str
    """

    def __init__(self, cause: str):
        self.cause = cause


def unwrapped(element):
    """Return what is in a dict ``{"bytes": ..., "path": ...}``, or the element itself.

    Raises
    ------
    BadImageError
        If it is another dict.
    """
    if isinstance(element, Unreadable):
        raise BadImageError(element.cause)
    if not isinstance(element, Mapping):
        return element
    if "bytes" not in element and "path" not in element:
        raise BadImageError(
            "a dict must have the key 'bytes' or 'path', as in Hugging Face datasets. "
            f"Got the keys {shown(list(element))}"
        )
    data = element.get("bytes")
    if data is None:
        return element.get("path")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise BadImageError(
            "the 'bytes' of a dict must be the bytes of an image file. "
            f"Got {type(data).__name__}"
        )
    return data


# -- Texts


def is_data_uri(text: str) -> bool:
    """Return whether a text is a ``data:`` URI, which is never taken for a path."""
    return text[:5].lower() == "data:"


def decode_data_uri(text: str, limit: int | None) -> bytes:
    """Return the content of a ``data:`` URI (RFC 2397).

    Raises
    ------
    BadImageError
        If it is damaged, or of more than `limit` bytes.
    """
    head, comma, content = text[5:].partition(",")
    if not comma:
        raise BadImageError("the data URI has no comma before its data")
    is_base64 = head.rstrip().lower().endswith(";base64")
    check_length(len(content) * 3 // 4 if is_base64 else len(content) // 3, limit)
    data = urllib.parse.unquote_to_bytes(content)
    if not is_base64:
        return data
    data = b"".join(data.split()).translate(bytes.maketrans(b"-_", b"+/"))
    try:
        # As browsers do, which take it without its padding, too.
        data = data.rstrip(b"=")
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except ValueError as error:
        raise BadImageError(f"the base64 of the data URI is damaged ({error})") from (
            error
        )


def decode_base64(text: str, limit: int | None) -> bytes | None:
    """Return the image that a text holds in base64, None if it does not.

    Raises
    ------
    BadImageError
        If it is of more than `limit` bytes.
    """
    if len(text) < _SHORTEST:
        return None
    if "\n" in text[:100]:  # as MIME breaks it
        text = text.replace("\r", "").replace("\n", "")
    try:
        if not _is_signature(base64.b64decode(text[:_SHORTEST], validate=True)):
            return None
        check_length(len(text) * 3 // 4, limit)
        return base64.b64decode(text, validate=True)
    except BadImageError:
        raise
    except ValueError:
        return None


def _is_signature(start):
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    return start.startswith(_SIGNATURES) or start[4:8] == b"ftyp"


# -- Open files


def is_open_file(element) -> bool:
    """Return whether `element` is a file, or like one: `io.BytesIO`, an upload."""
    return hasattr(element, "read") and not isinstance(element, (os.PathLike, type))


def read_open_file(file, limit: int | None) -> bytes:
    """Return the whole content of an open file, whose position stays as it is.

    Raises
    ------
    BadImageError
        If it cannot be read, or has more than `limit` bytes.
    """
    with _LOCKS[id(file) // 64 % len(_LOCKS)]:
        try:
            if getattr(file, "closed", False):
                raise BadImageError("the file is closed")
            if isinstance(file, io.TextIOBase):
                raise BadImageError(_AS_TEXT)
            if not _is_seekable(file):
                raise BadImageError(
                    "the file can be read only once, but an image may have to be read "
                    "again: pass the bytes that its read() returns"
                )
            position = file.tell()
            file.seek(0)
            try:
                return read_until(file, limit)
            finally:
                file.seek(position)
        except BadImageError:
            raise
        except Exception as error:  # of whatever stands behind it
            text = shown(str(error))
            raise BadImageError(
                f"it cannot be read ({type(error).__name__}: {text})"
            ) from error


def _is_seekable(file):
    if hasattr(file, "seekable"):
        return file.seekable()
    return hasattr(file, "seek") and hasattr(file, "tell")


def read_until(file, limit: int | None, expected: int = 0, n_before: int = 0) -> bytes:
    """Return the rest of a file, but no more than may be.

    Parameters
    ----------
    file : binary file
    limit : int or None
        In bytes.
    expected : int, default=0
        How many bytes there probably are.
    n_before : int, default=0
        How many were read before, and count.

    Raises
    ------
    BadImageError
        If there are more than `limit`.
    """
    # One byte more, to find the end of most files with the first reading.
    data = file.read(max(_CHUNK, expected + 1))
    if isinstance(data, str):
        raise BadImageError(_AS_TEXT)
    if not data:
        return b""
    parts, n_bytes = [data], n_before + len(data)
    while True:
        check_length(n_bytes, limit)
        data = file.read(_CHUNK)
        if not data:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        parts.append(data)
        n_bytes += len(data)


def describe_file(file) -> str:
    """Return what an open file is called."""
    name = getattr(file, "name", None)
    if isinstance(name, str):
        return f"open file {shown_path(name)}"
    return f"open file ({type(file).__name__})"
