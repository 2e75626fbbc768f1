"""Encoded images in base64, in dicts of Hugging Face datasets and in open files."""

import base64
import contextlib
import io
import os
import re
import urllib.parse
import zipfile
from collections.abc import Callable, Mapping

from skdeepfeat._utils._optional import loaded_class
from skdeepfeat._utils._shown import shown, shown_path
from skdeepfeat.exceptions import BadImageError

from ._image_limits import check_length
from ._thread_pool import Share, lock_of

_CHUNK = 2**20  # bytes
# Bytes. Of files with more, several are in memory only within the budget, and of those
# behind addresses only one.
LARGE = 2**25

# The first bytes of the image files that are recognized in base64.
_SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM|II[*+]\x00|MM\x00[*+]"
    rb"|\x00{3}\x0cjP  |\xff\x4f\xff\x51|\x00\x00\x01\x00"
    rb"|8BPS|DDS |qoif|icns|RIFF.{4}WEBP|.{4}ftyp",
    re.DOTALL,
)
# Characters of base64 that are decoded to recognize an image. If there is whitespace,
# they must be among the first `_SEARCHED` characters.
_SHORTEST = 32
_SEARCHED = 256
_DATA_URI = re.compile(rf"\s{{0,{_SEARCHED}}}data:", re.IGNORECASE)
_PIECE = re.compile(r"(?:[^%]+|%[0-9a-fA-F]{2}|%){1,4096}")
_END_OF_TYPE = re.compile(r";\s*base64\s*$", re.IGNORECASE)
_PLAIN_ALPHABET = bytes.maketrans(b"-_", b"+/")  # from the URL-safe one

_AS_TEXT = "the file is open as text: open it with mode 'rb'"


def unwrapped(element):
    """Return the content of a dict ``{"bytes": ..., "path": ...}``, or the element.

    Raises
    ------
    BadImageError
        If it is a dict of another form, or if `element` is one (see `ListSource.part`).
    """
    if isinstance(element, BadImageError):
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


def is_data_uri(text) -> bool:
    """Return whether text is a ``data:`` URI."""
    return _DATA_URI.match(text) is not None


def decode_data_uri(text: str, limit: int | None) -> bytes:
    """Return the content of a ``data:`` URI (RFC 2397).

    Raises
    ------
    BadImageError
        If it is damaged, or has more than `limit` bytes.
    """
    head, comma, content = text.partition(",")
    if not comma:
        raise BadImageError("the data URI has no comma before its data")
    is_base64 = _END_OF_TYPE.search(head) is not None
    check_length(len(content) * 3 // 4 if is_base64 else len(content) // 3, limit)
    # In pieces, because Python makes an object of each percent sign.
    pieces = (found[0] for found in _PIECE.finditer(content))
    data = b"".join(map(urllib.parse.unquote_to_bytes, pieces))
    if not is_base64:
        return data
    try:
        # Browsers accept it without padding, too.
        data = _plain(data).rstrip(b"=")
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except ValueError as error:
        raise BadImageError(f"the base64 of the data URI is damaged ({error})") from (
            error
        )


def decode_base64(text, limit: int | None) -> bytes | None:
    """Return the image that is encoded in base64 text (str or bytes), or None.

    Raises
    ------
    BadImageError
        If it has more than `limit` bytes.
    """
    try:
        start = _plain(text[:_SEARCHED])[:_SHORTEST]
        if len(start) < _SHORTEST or not _SIGNATURE.match(
            base64.b64decode(start, validate=True)
        ):
            return None
        check_length(len(text) * 3 // 4, limit)
        return base64.b64decode(_plain(text), validate=True)
    except BadImageError:
        raise
    except ValueError:
        return None


def _plain(text):
    """Return base64 as bytes without whitespace, in the usual alphabet."""
    data = text.encode("ascii") if isinstance(text, str) else text
    return b"".join(data.split()).translate(_PLAIN_ALPHABET)


def decode_text(data: bytes, limit: int | None) -> bytes:
    """Decode bytes that are base64 or a ``data:`` URI; return other bytes unchanged.

    Raises
    ------
    BadImageError
        If the image is damaged, or has more than `limit` bytes.
    """
    if is_data_uri(data[: _SEARCHED + 5].decode("latin-1")):
        return decode_data_uri(data.decode("latin-1"), limit)
    found = decode_base64(data, limit)
    return data if found is None else found


# -- Open files


def is_open_file(element) -> bool:
    """Return whether an object is an open file, like one, or opens one."""
    is_like_one = has(element, "read") and not isinstance(element, (os.PathLike, type))
    opens_one = (zipfile.Path, loaded_class("fsspec.core", "OpenFile"))
    return is_like_one or isinstance(element, opens_one)


def _opened(file):
    """Return a context that lends the open file: an object may have to open it."""
    if isinstance(file, zipfile.Path):
        return file.open("rb")
    if isinstance(file, loaded_class("fsspec.core", "OpenFile")):
        return file.open()
    return contextlib.nullcontext(file)


def has(element, name: str) -> bool:
    """Return whether an object has an attribute; False if reading it raises."""
    try:
        return hasattr(element, name)
    except Exception:  # a user's __getattr__ may raise anything
        return False


def read_open_file(file, limit: int | None, share: Share | None = None) -> bytes:
    """Return the whole content of an open file, and restore its position.

    Parameters
    ----------
    file : file-like
    limit : int or None
        How many bytes it may have; None for any number.
    share : Share or None, default=None
        The memory for a large file is taken from it.

    Raises
    ------
    BadImageError
        If it cannot be read, or has more than `limit` bytes.
    """
    if share is not None and (limit is None or limit > LARGE):
        # How many bytes there are is not known before they are read, and no lock may be
        # held while waiting for memory.
        data = _read_whole(file, LARGE, may_have_more=True)
        if data is not None:
            return data
        share.take(LARGE if limit is None else limit)
    return _read_whole(file, limit)


def _read_whole(file, limit, may_have_more=False):
    # Reading moves its position.
    with (
        lock_of(file),
        bad_image_of_errors("it cannot be read"),
        _opened(file) as file,
    ):
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
            return read_until(file, limit, may_have_more=may_have_more)
        finally:
            file.seek(position)


@contextlib.contextmanager
def bad_image_of_errors(what: str):
    """Turn what objects of users and other libraries raise into a BadImageError."""
    try:
        yield
    except BadImageError:
        raise
    except Exception as error:
        text = f"{what} ({type(error).__name__}: {shown(str(error))})"
        raise BadImageError(text) from error


def _is_seekable(file):
    if hasattr(file, "seekable"):
        return file.seekable()
    return hasattr(file, "seek") and hasattr(file, "tell")


def read_until(
    file,
    limit: int | None,
    expected: int = 0,
    on_large: Callable[[], object] | None = None,
    may_have_more: bool = False,
):
    """Return the content of a file of limited length, from its position.

    Parameters
    ----------
    file : binary file
    limit : int or None
        In bytes.
    expected : int, default=0
        How many bytes there probably are.
    on_large : callable or None, default=None
        Called once, when at least `LARGE` bytes are in memory.
    may_have_more : bool, default=False
        Return None if there are more than `limit` bytes.

    Returns
    -------
    bytes or None

    Raises
    ------
    BadImageError
        If there are more than `limit` bytes.
    """
    parts, n_bytes = [], 0
    # One byte more, to find the end of most files with the first call.
    n_wanted = max(_CHUNK, expected + 1)
    while data := file.read(n_wanted):
        if isinstance(data, str):
            raise BadImageError(_AS_TEXT)
        parts.append(data)
        n_bytes += len(data)
        if may_have_more and limit is not None and n_bytes > limit:
            return None
        check_length(n_bytes, limit)
        if on_large is not None and n_bytes >= LARGE:
            on_large()
            on_large = None
        n_wanted = _CHUNK
    return parts[0] if len(parts) == 1 else b"".join(parts)


def describe_file(file) -> str:
    """Return the name of an open file, or its type."""
    names = [getattr(file, key) for key in ("name", "path") if has(file, key)]
    name = names[0] if names else None
    if isinstance(name, str) and name:
        return f"open file {shown_path(name)}"
    return f"open file ({type(file).__name__})"
