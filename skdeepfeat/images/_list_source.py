"""A list of images of any kind, mixed as they come: paths, bytes, PIL, arrays."""

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from skdeepfeat._utils._address import is_address
from skdeepfeat._utils._digests import digest_bytes, digest_pixels
from skdeepfeat._utils._shown import shown, shown_path
from skdeepfeat.exceptions import BadImageError

from ._budget import ByteBudget, share_of
from ._canonical import CHANNELS, canonical_image
from ._cells import (
    Unreadable,
    decode_base64,
    decode_data_uri,
    describe_file,
    is_data_uri,
    is_open_file,
    read_open_file,
    unwrapped,
)
from ._decode import check_large_file, decode_bytes, decode_pil, jpeg_for_device
from ._files import (
    FileMemo,
    absolute_path,
    digest_files,
    read_file,
    refuse_address,
    working_folder,
)
from ._geometry import fit_to_network
from ._image_limits import max_bytes
from ._on_device import EncodedJpeg
from ._quiet import collect_messages
from ._remote import RemoteFiles
from ._tensors import is_tensor, tensor_to_array
from ._thread_pool import ThreadPool, resolve_threads

__all__ = ["CHANGED", "ElementSource", "is_missing", "is_number"]

logger = logging.getLogger(__name__)

_PER_TASK = 16

# Longer texts are not paths on any system.
_LONGEST_PATH = 4096

# Its row would be stored under the digest of what it was before.
CHANGED = (
    "it was changed while it was being read: its content differs from a moment ago"
)


class ElementSource:
    """Images one by one, each of its own kind; an `ImageSource`.

    Parameters
    ----------
    elements : sequence
    max_pixels : int or None
    storage_options : mapping or None, default=None
        With these fsspec reads addresses; None refuses them.
    """

    def __init__(
        self,
        elements: Sequence,
        max_pixels: int | None,
        storage_options: Mapping | None = None,
    ):
        self._elements = elements
        self._max_pixels = max_pixels
        self._remote = None
        if storage_options is not None:
            self._remote = RemoteFiles(storage_options, max_bytes(max_pixels))
        # Of the rows whose content is known; what is decoded later must be the same.
        self._expected: Sequence[bytes | None] | None = None
        # What relative paths are relative to; None is the working folder of the moment.
        self._folder: str | None = None

    def __len__(self):
        return len(self._elements)

    def describe(self, i):
        """Return a path, or what kind of object image `i` is."""
        return _describe(self._elements[i])

    def path(self, i):
        """Return the path of image `i`, or None if it is not a file."""
        element = self._elements[i]
        if isinstance(element, Mapping):
            element = element.get("path")
        if not isinstance(element, (str, os.PathLike)):
            return None
        path = os.fsdecode(element)
        return None if is_data_uri(path) or len(path) > _LONGEST_PATH else path

    def part(self, rows):
        """Return the images `rows` as a source that can be sent to another process."""
        rows = [int(row) for row in rows]
        elements = [self._portable(self._elements[row]) for row in rows]
        part = ElementSource(elements, self._max_pixels)
        part._folder = self._base()
        if self._remote is not None:  # pickled, it is its options
            part._remote = self._remote.seen_from(part._folder)
        if self._expected is not None:
            part.expect([self._expected[row] for row in rows])
        return part

    def _portable(self, element):
        try:
            element = unwrapped(element)
            if is_open_file(element):
                return read_open_file(element, max_bytes(self._max_pixels))
            if isinstance(element, memoryview):  # which cannot be pickled
                return bytes(element)
        except BadImageError as error:
            return Unreadable(error.cause)
        return element

    def expect(self, digests):
        """Have images whose content has another digest than before be bad images."""
        self._expected = digests

    def _base(self):
        return working_folder() if self._folder is None else self._folder

    def digests(
        self,
        memo: FileMemo | None = None,
        n_threads: int | None = None,
        on_done: Callable[[int], object] | None = None,
    ):
        """Return the content digest of each image, and what is wrong with the rest."""
        n_threads = resolve_threads(n_threads)
        paths, others, found = self._split()
        found.update(self._digest_paths(paths, memo, n_threads, on_done))
        found.update(self._digest_others(others, n_threads))
        digests: list[bytes | None] = [None] * len(self)
        failures = {}
        for row, result in sorted(found.items()):
            if isinstance(result, bytes):
                digests[row] = result
            else:
                failures[row] = result.at(row, self.describe(row))
        self.expect(digests)
        return digests, failures

    def pixels(self, i):
        """Return the canonical pixels of image `i`."""
        return self._pixels(i, None)

    def fitted(self, i, preprocessing, budget: ByteBudget | None = None):
        """Return image `i`, resized and cropped."""
        with share_of(budget) as share:
            return fit_to_network(self._pixels(i, share), preprocessing)

    def for_device(self, i, preprocessing, budget: ByteBudget | None = None):
        """Return image `i` as a JPEG that a device can decode and fit, or fitted."""
        with self._naming(i), share_of(budget) as share:
            data = self._encoded(i, share)
            found = None if data is None else jpeg_for_device(data, self._max_pixels)
        if found is not None:
            by_host = functools.partial(self.fitted, i, preprocessing)
            jpeg = EncodedJpeg(data, *found, by_host)
            if jpeg.suits(preprocessing):
                return jpeg
        return self.fitted(i, preprocessing, budget)

    def _pixels(self, i, share):
        with self._naming(i):
            data = self._encoded(i, share)
            if data is not None:
                return decode_bytes(data, self._max_pixels, share)
            element = unwrapped(self._elements[i])
            pixels = _pixels_of_object(element, self._max_pixels, share, is_used=True)
            self._check_unchanged(i, digest_pixels, pixels)
            return pixels

    def _check_unchanged(self, i, digest, content):
        expected = None if self._expected is None else self._expected[i]
        if expected is not None and digest(content) != expected:
            raise BadImageError(CHANGED)

    @contextlib.contextmanager
    def _naming(self, i):
        """Have a BadImageError, and what Pillow says, name the image it is about."""
        with collect_messages() as messages:
            try:
                yield
            except BadImageError as error:
                raise error.at(i, self.describe(i)) from error.__cause__
        if messages:
            text = "; ".join(messages)
            logger.info("row %d, %s: Pillow says: %s", i, self.describe(i), text)

    def _encoded(self, i, share):
        """Return the bytes of image `i`, or None if it is an object of another kind."""
        element = unwrapped(self._elements[i])
        limit = max_bytes(self._max_pixels)
        if isinstance(element, (bytes, bytearray, memoryview)):
            data = bytes(element)  # a copy of what may be changed
        elif isinstance(element, (str, os.PathLike)):
            data = self._content(_path_text(element), limit, share)
        elif is_open_file(element):
            data = read_open_file(element, limit)
        else:
            return None
        self._check_unchanged(i, digest_bytes, data)
        return data

    def _content(self, path, limit, share):
        if is_data_uri(path):
            return decode_data_uri(path, limit)
        if self._remote is not None and is_address(path):
            data = self._remote.read(path)
            if share is not None:
                share.take(len(data))
            return data
        refuse_address(path)
        try:
            return read_file(absolute_path(path, self._base()), limit, share)
        except BadImageError as error:
            data = self._content_of_text(path, error)
            if isinstance(data, BadImageError):
                raise data from error.__cause__
            return data

    def _content_of_text(self, text, error):
        """Return the image that a text holds if it is no path, or else the error."""
        if os.path.lexists(absolute_path(text, self._base())[:_LONGEST_PATH]):
            return error
        try:
            data = decode_base64(text, max_bytes(self._max_pixels))
        except BadImageError as other:
            return other
        if data is None and len(text) > _LONGEST_PATH:
            return BadImageError(
                "it is neither the path of a file nor an image in base64: "
                f"{len(text)} characters"
            )
        return error if data is None else data

    def _split(self):
        """Return {row: path}, the rows of other kinds, {row: BadImageError}."""
        paths, others, found = {}, [], {}
        for row, element in enumerate(self._elements):
            # Spelled out, because a warm run over 50,000 paths does little else.
            if type(element) is str and element[:5].lower() != "data:":
                paths[row] = element
                continue
            try:
                element = unwrapped(element)
            except BadImageError as error:
                found[row] = error
                continue
            is_path = isinstance(element, os.PathLike) or (
                isinstance(element, str) and not is_data_uri(element)
            )
            if is_path:
                paths[row] = element
            else:
                others.append(row)
        return paths, others, found

    def _digest_paths(self, paths, memo, n_threads, on_done):
        """Return {row: digest or BadImageError} of the rows that hold paths."""
        folder = self._base()
        found, files, addresses = {}, {}, {}
        for row, element in paths.items():
            try:
                path = element if type(element) is str and element else ""
                path = path or _path_text(element)
                if "://" in path:
                    if self._remote is not None and is_address(path):
                        addresses[row] = path
                        continue
                    refuse_address(path)
                files[row] = absolute_path(path, folder)
            except BadImageError as error:
                found[row] = error
        digests = digest_files(
            list(files.values()),
            memo,
            n_threads,
            on_done,
            max_bytes(self._max_pixels),
            functools.partial(check_large_file, max_pixels=self._max_pixels),
        )
        for row, digest in zip(files, digests, strict=True):
            if not isinstance(digest, bytes):
                digest = self._content_of_text(_path_text(paths[row]), digest)
                digest = digest_bytes(digest) if isinstance(digest, bytes) else digest
            found[row] = digest
        if addresses:
            digests = self._remote.digests(list(addresses.values()), memo, on_done)
            found.update(zip(addresses, digests, strict=True))
        return found

    def _digest_others(self, rows, n_threads):
        budget = ByteBudget()

        def digest_each(task):
            return [self._digest_object(row, budget) for row in task]

        tasks = [rows[i : i + _PER_TASK] for i in range(0, len(rows), _PER_TASK)]
        if n_threads == 1 or len(tasks) <= 1:
            answers = [digest_each(task) for task in tasks]
        else:
            with ThreadPool(n_threads, "skdeepfeat-hash") as pool:
                answers = list(pool.map(digest_each, tasks))
        return zip(rows, (one for answer in answers for one in answer), strict=True)

    def _digest_object(self, row, budget):
        with collect_messages(), budget.share() as share:
            try:
                element = unwrapped(self._elements[row])
                if isinstance(element, (str, bytes, bytearray, memoryview)):
                    data = element
                    if isinstance(element, str):
                        limit = max_bytes(self._max_pixels)
                        data = decode_data_uri(element, limit)
                    return _digest_encoded(data)
                if is_open_file(element):
                    limit = max_bytes(self._max_pixels)
                    return _digest_encoded(read_open_file(element, limit))
                pixels = _pixels_of_object(element, self._max_pixels, share)
                return digest_pixels(pixels)
            except BadImageError as error:
                return error


def _path_text(path):
    text = os.fsdecode(path)
    if not text:
        raise BadImageError("the path is empty")
    return text


def _digest_encoded(data):
    if not len(data):
        raise BadImageError("it is empty (0 bytes)")
    return digest_bytes(bytes(data))


def _pixels_of_object(element, max_pixels, share, is_used=False):
    """Return the canonical pixels of an image in memory.

    Parameters
    ----------
    element : PIL image, array or tensor
    max_pixels : int or None
    share : Share or None
    is_used : bool, default=False
        Whether the pixels are a copy, because nobody may change what is used once its
        digest has been looked at.
    """
    if isinstance(element, Image.Image):
        return decode_pil(element, max_pixels, share)
    if is_missing(element):
        raise BadImageError("missing value")
    if is_tensor(element):
        array = _array_of_tensor(element)
    elif isinstance(element, np.ndarray):
        array = element
    elif hasattr(element, "__array__") and not is_number(element):
        array = np.asarray(element)
    else:
        raise BadImageError(
            "an image is a path, the bytes of an image file, an open file, a PIL "
            f"image, an array or a tensor. Got {_an(type(element).__name__)}"
        )
    if is_used:
        if share is not None:
            share.take(2 * array.nbytes)
        array = np.array(array)
    return canonical_image(array)


def _array_of_tensor(tensor):
    shape = tuple(tensor.shape)
    if len(shape) == 3 and shape[0] not in CHANNELS and shape[2] in CHANNELS:
        raise BadImageError(
            "a tensor's channels must come first: use image.permute(2, 0, 1). "
            f"Got shape {shape}"
        )
    if len(shape) not in (2, 3):
        raise BadImageError(
            f"a tensor must have shape (C, H, W) or (H, W). Got shape {shape}"
        )
    return tensor_to_array(tensor, has_channels=len(shape) == 3)


def is_missing(value) -> bool:
    """Return whether `value` stands for nothing: None, NaN, pandas' NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(value != value)


def is_number(value) -> bool:
    """Return whether `value` is a single number."""
    return isinstance(value, (int, float, complex, np.number, np.bool_))


def _describe(element):
    if isinstance(element, Mapping) and ("bytes" in element or "path" in element):
        path = element.get("path")
        if not isinstance(path, (str, os.PathLike)) and element.get("bytes") is None:
            return "a dict without bytes and path"
        element = path if isinstance(path, (str, os.PathLike)) else b""
    if isinstance(element, (str, os.PathLike)):
        text = os.fsdecode(element)
        if is_data_uri(text):
            return f"data URI {shown(text, 40)} of {len(text)} characters"
        return shown_path(text) or "an empty path"
    if is_open_file(element):
        return describe_file(element)
    if isinstance(element, (bytes, bytearray, memoryview)):
        return "encoded bytes"
    if isinstance(element, Image.Image):
        name = getattr(element, "filename", "")
        return f"PIL image {shown_path(os.fsdecode(name))}" if name else "PIL image"
    if is_missing(element):
        return repr(element)
    if is_tensor(element):
        return f"tensor of shape {tuple(element.shape)}"
    if isinstance(element, np.ndarray):
        return f"array of shape {element.shape}"
    return _an(type(element).__name__)


def _an(name):
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
