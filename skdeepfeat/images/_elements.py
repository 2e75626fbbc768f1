"""A list of images of any kind, mixed as they come: paths, bytes, PIL, arrays."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from skdeepfeat._address import is_address
from skdeepfeat._errors import BadImageError
from skdeepfeat._fingerprint import digest_bytes, digest_pixels

from ._canonical import CHANNELS, canonical_image
from ._decode import decode_bytes, decode_pil, jpeg_for_device
from ._files import (
    FileMemo,
    absolute_path,
    digest_files,
    read_file,
    refuse_address,
    working_folder,
)
from ._geometry import fit_to_network
from ._on_device import EncodedJpeg
from ._remote import RemoteFiles
from ._tensors import is_tensor, tensor_to_array
from ._threads import resolve_threads

__all__ = ["ElementSource", "is_missing", "is_number"]

_PER_TASK = 16


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
            self._remote = RemoteFiles(storage_options)
        self._file_digests: dict[int, bytes] = {}
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
        if isinstance(element, (str, os.PathLike)):
            return os.fsdecode(element)
        return None

    def part(self, rows):
        """Return the images `rows` as a source that can be sent to another process."""
        rows = [int(row) for row in rows]
        part = ElementSource([self._elements[row] for row in rows], self._max_pixels)
        part._folder = self._base()
        if self._remote is not None:  # pickled, it is its options
            part._remote = self._remote.seen_from(part._folder)
        part._file_digests = {
            i: self._file_digests[row]
            for i, row in enumerate(rows)
            if row in self._file_digests
        }
        return part

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
        paths, others = self._split()
        found: dict[int, bytes | BadImageError] = {}
        found.update(self._digest_paths(paths, memo, n_threads, on_done))
        self._file_digests = {
            row: digest for row, digest in found.items() if isinstance(digest, bytes)
        }
        found.update(self._digest_others(others, n_threads))
        digests: list[bytes | None] = [None] * len(self)
        failures = {}
        for row, result in sorted(found.items()):
            if isinstance(result, bytes):
                digests[row] = result
            else:
                failures[row] = result.at(row, self.describe(row))
        return digests, failures

    def pixels(self, i):
        """Return the canonical pixels of image `i`."""
        with self._naming(i):
            data = self._encoded(i)
            if data is not None:
                return decode_bytes(data, self._max_pixels)
            return _pixels_of_object(self._elements[i], self._max_pixels)

    def fitted(self, i, preprocessing):
        """Return image `i`, resized and cropped."""
        return fit_to_network(self.pixels(i), preprocessing)

    def for_device(self, i, preprocessing):
        """Return image `i` as a JPEG that a device can decode and fit, or fitted."""
        with self._naming(i):
            data = self._encoded(i)
            found = None if data is None else jpeg_for_device(data, self._max_pixels)
        if found is not None:
            by_host = functools.partial(self.fitted, i, preprocessing)
            jpeg = EncodedJpeg(data, *found, by_host)
            if jpeg.suits(preprocessing):
                return jpeg
        return self.fitted(i, preprocessing)

    @contextlib.contextmanager
    def _naming(self, i):
        """Have a BadImageError say which image it is about."""
        try:
            yield
        except BadImageError as error:
            raise error.at(i, self.describe(i)) from error.__cause__

    def _encoded(self, i):
        """Return the bytes of image `i`, or None if it is an object of another kind."""
        element = self._elements[i]
        if isinstance(element, (bytes, bytearray, memoryview)):
            return bytes(element)
        if not isinstance(element, (str, os.PathLike)):
            return None
        data = self._content(_path_text(element))
        expected = self._file_digests.get(i)
        if expected is not None and digest_bytes(data) != expected:
            # Its row would be stored under the digest of what it was before.
            raise BadImageError(
                "it was changed while it was being read: its content is no longer that "
                "of a moment ago"
            )
        return data

    def _content(self, path):
        if self._remote is not None and is_address(path):
            return self._remote.read(path)
        refuse_address(path)
        return read_file(absolute_path(path, self._base()))[0]

    def _split(self):
        paths, others = {}, []
        for row, element in enumerate(self._elements):
            if type(element) is str or isinstance(element, (str, os.PathLike)):
                paths[row] = element
            else:
                others.append(row)
        return paths, others

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
        digests = digest_files(list(files.values()), memo, n_threads, on_done)
        found.update(zip(files, digests, strict=True))
        if addresses:
            digests = self._remote.digests(list(addresses.values()), memo, on_done)
            found.update(zip(addresses, digests, strict=True))
        return found

    def _digest_others(self, rows, n_threads):
        def digest_each(task):
            return [self._digest_object(row) for row in task]

        tasks = [rows[i : i + _PER_TASK] for i in range(0, len(rows), _PER_TASK)]
        if n_threads == 1 or len(tasks) <= 1:
            answers = [digest_each(task) for task in tasks]
        else:
            with ThreadPoolExecutor(n_threads, "skdeepfeat-hash") as pool:
                answers = list(pool.map(digest_each, tasks))
        return zip(rows, (one for answer in answers for one in answer), strict=True)

    def _digest_object(self, row):
        element = self._elements[row]
        try:
            if isinstance(element, (bytes, bytearray, memoryview)):
                return _digest_encoded(element)
            return digest_pixels(_pixels_of_object(element, self._max_pixels))
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


def _pixels_of_object(element, max_pixels):
    if isinstance(element, Image.Image):
        return decode_pil(element, max_pixels)
    if is_tensor(element):
        return _pixels_of_tensor(element)
    if isinstance(element, np.ndarray):
        return canonical_image(element)
    if is_missing(element):
        raise BadImageError("missing value")
    if hasattr(element, "__array__") and not is_number(element):
        return canonical_image(np.asarray(element))
    raise BadImageError(
        "an image is a path, the bytes of an image file, a PIL image, an array or a "
        f"tensor. Got {_an(type(element).__name__)}"
    )


def _pixels_of_tensor(tensor):
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
    return canonical_image(tensor_to_array(tensor, has_channels=len(shape) == 3))


def is_missing(value) -> bool:
    """Return whether `value` stands for nothing: None, NaN, pandas' NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(value != value)


def is_number(value) -> bool:
    """Return whether `value` is a single number."""
    return isinstance(value, (int, float, complex, np.number, np.bool_))


def _describe(element):
    if isinstance(element, (str, os.PathLike)):
        return os.fsdecode(element) or "an empty path"
    if isinstance(element, (bytes, bytearray, memoryview)):
        return "encoded bytes"
    if isinstance(element, Image.Image):
        name = getattr(element, "filename", "")
        return f"PIL image {os.fsdecode(name)}" if name else "PIL image"
    if is_missing(element):
        return repr(element)
    if is_tensor(element):
        return f"tensor of shape {tuple(element.shape)}"
    if isinstance(element, np.ndarray):
        return f"array of shape {element.shape}"
    return _an(type(element).__name__)


def _an(name):
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
