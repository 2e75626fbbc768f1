"""Images in a list, each of its own kind: paths, bytes, open files, PIL, arrays."""

import contextlib
import copy
import functools
import logging
import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from skdeepfeat._utils._address import is_address
from skdeepfeat._utils._digests import digest_bytes, digest_pixels
from skdeepfeat._utils._printable import printable
from skdeepfeat._utils._shown import shown, shown_path
from skdeepfeat._utils._tensors import is_tensor
from skdeepfeat.exceptions import BadImageError

from ._canonical import CHANNELS, canonical_image, tensor_to_array
from ._decode import check_large_file, decode_bytes, decode_pil
from ._decoder_messages import collect_messages
from ._encoded_images import (
    bad_image_of_errors,
    decode_base64,
    decode_data_uri,
    decode_text,
    describe_file,
    has,
    is_data_uri,
    is_open_file,
    read_open_file,
    unwrapped,
)
from ._files import KeptFiles, absolute_path, digest_files, read_file, refuse_address
from ._image_limits import max_bytes
from ._image_source import ImageSource
from ._remote import RemoteFiles, absolute_address
from ._thread_pool import ByteBudget, Share, hash_in_threads

logger = logging.getLogger(__name__)

# Longer texts are not paths on any system.
_LONGEST_PATH = 4096

# Seconds to read files before the first of them are computed.
_FIRST_SECONDS = 1.0
# Seconds to wait until there is memory for the next files.
_PATIENCE = 0.2

_ENCODED = (bytes, bytearray, memoryview)


class ListSource(ImageSource):
    """Images of a list, each of its own kind.

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
        self._max_bytes = max_bytes(max_pixels)
        self._remote = None
        if storage_options is not None:
            self._remote = RemoteFiles(storage_options, self._max_bytes)
        # Forked processes cannot use clients of storage.
        self.suits_processes = self._remote is None
        # Where relative paths begin; None is the current working folder.
        self._folder: str | None = None
        self._kept: KeptFiles | None = None

    def __len__(self):
        return len(self._elements)

    def describe(self, i):
        return _describe(self._elements[i])

    def path(self, i):
        path = _name_of(self._elements[i])
        if path is None or is_data_uri(path) or len(path) > _LONGEST_PATH:
            return None
        return path

    def part(self, indices):
        indices = [int(i) for i in indices]
        part = copy.copy(self)
        part._elements = [self._picklable(self._elements[i]) for i in indices]
        part._folder = self._base_folder()
        part._expected = self._expected_of(indices)
        if self._kept is not None:
            part._kept = self._kept.part(self._places(indices))
        return part

    def _places(self, indices):
        """Yield the absolute paths of those images that are files."""
        for i in indices:
            with contextlib.suppress(BadImageError):
                text = _path_text(self._elements[i])
                if text is not None and not is_data_uri(text):
                    yield self._locate(text, self._base_folder())[1]

    def _picklable(self, element):
        try:
            element = unwrapped(element)
            if is_open_file(element):
                return read_open_file(element, self._max_bytes)
        except BadImageError as error:
            return error  # raised by the worker
        return _bytes_of(element) if isinstance(element, memoryview) else element

    def _base_folder(self):
        if self._folder is not None:
            return self._folder
        try:
            return os.getcwd()
        except FileNotFoundError:
            return ""  # it was deleted; absolute paths can still be read

    def digests(self, file_index=None, on_done=None, keeps=False):
        self._kept = KeptFiles() if keeps else None
        [found] = self._digest_parts(file_index, on_done)
        return found

    def digests_in_parts(self, file_index=None, on_done=None):
        self._kept = KeptFiles(patience=_PATIENCE)
        yield from self._digest_parts(file_index, on_done, _FIRST_SECONDS)

    def _digest_parts(self, file_index, on_done, seconds=None):
        files, results = self._digest_others(file_index, on_done)
        check = functools.partial(check_large_file, max_pixels=self._max_pixels)
        places = list(files.values())
        parts = digest_files(
            places, file_index, on_done, self._max_bytes, check, self._kept, seconds
        )
        self._expected = expected = []
        known = {}
        with contextlib.closing(parts):
            for part in parts:
                if known:
                    known.update(part)
                else:
                    known = part  # mostly all of them
                yield self._next_part(expected, files, known, results)

    def _next_part(self, expected, files, known, results):
        """Return digests and failures of further images, and expect the digests.

        Parameters
        ----------
        expected : list of bytes or None
            The digests of the images before. Appended to.
        files : dict of int to str
            The absolute paths of images.
        known : dict of str to (bytes or BadImageError)
            The results for paths, as far as there are any.
        results : dict of int to (bytes or BadImageError)
            Those for other images.
        """
        first, failures = len(expected), {}
        for i in range(first, len(self)):
            path = files.get(i)
            result = results[i] if path is None else known.get(path)
            if result is None:
                break
            if isinstance(result, BadImageError) and path is not None:
                result = self._digest_base64(i, result)
            if isinstance(result, bytes):
                expected.append(result)
            else:
                expected.append(None)
                failures[i] = result.at(i, self.describe(i))
        return expected[first:], failures

    def _digest_others(self, file_index, on_done):
        """Return {index: path} of files, and the results for all other images."""
        files, addresses, others, results = {}, {}, [], {}
        folder = self._base_folder()
        for i, element in enumerate(self._elements):
            try:
                text = element if type(element) is str else _path_text(element)
                if text and ":" not in text:
                    # Neither a data URI nor an address. A warm run over 50,000 files
                    # does little else.
                    files[i] = absolute_path(text, folder)
                    continue
                if text is None or is_data_uri(text):
                    others.append(i)
                    continue
                is_remote, place = self._locate(text, folder)
                (addresses if is_remote else files)[i] = place
            except BadImageError as error:
                results[i] = error
        if addresses:
            places = list(addresses.values())
            digests = self._remote.digests(places, file_index, on_done)
            results.update(zip(addresses, digests, strict=True))
        if others:
            digest = functools.partial(self._digest_object, budget=ByteBudget())
            results.update(zip(others, hash_in_threads(digest, others), strict=True))
        return files, results

    def _digest_base64(self, i, error):
        """Return the digest of a path that is an image in base64, or an error."""
        try:
            return digest_bytes(self._from_base64(_path_text(self._elements[i]), error))
        except BadImageError as error:
            return error

    def _locate(self, text, folder):
        """Return whether a path is an address, and its absolute form."""
        if not text:
            raise BadImageError("the path is empty")
        if "://" in text:
            if self._remote is not None and is_address(text):
                return True, absolute_address(text, folder)
            refuse_address(text)
        return False, absolute_path(text, folder)

    def _digest_object(self, i, budget):
        with collect_messages(), Share(budget) as share:
            try:
                data = self._read(i, share)
                if data is not None:
                    return digest_bytes(data)
                return digest_pixels(self._pixels_in_memory(i, share))
            except BadImageError as error:
                return error

    def _copied_pixels(self, i, share):
        with self._naming(i):
            data = self._read(i, share)
            if data is not None:
                self._check_unchanged(i, digest_bytes, data)
                return decode_bytes(data, self._max_pixels, share)
            pixels = self._pixels_in_memory(i, share, copy=True)
            self._check_unchanged(i, digest_pixels, pixels)
            return pixels

    @contextlib.contextmanager
    def _naming(self, i):
        """Add which image it is to a BadImageError and to what Pillow logs."""
        with collect_messages() as messages:
            try:
                yield
            except BadImageError as error:
                raise error.at(i, self.describe(i)) from error.__cause__
        if messages:
            text = printable("; ".join(messages))
            logger.info("image %d, %s: Pillow says: %s", i, self.describe(i), text)

    def _read(self, i, share):
        """Return the bytes of image `i`, None if it is not encoded."""
        element = unwrapped(self._elements[i])
        if isinstance(element, _ENCODED):
            data = _bytes_of(element)
            _refuse_path(data)
            data = decode_text(data, self._max_bytes)
        elif is_open_file(element):
            data = read_open_file(element, self._max_bytes, share)
        elif (text := _path_text(element)) is not None:
            data = self._read_text(text, share)
        else:
            return None
        if not data:
            raise BadImageError("it is empty (0 bytes)")
        return data

    def _read_text(self, text, share):
        if is_data_uri(text):
            share.take(len(text))
            return decode_data_uri(text, self._max_bytes)
        is_remote, place = self._locate(text, self._base_folder())
        if is_remote:
            data = self._remote.read(place)
            share.take(len(data))
            return data
        if self._kept is not None:
            data = self._kept.take(place)
            if data is not None:
                share.take(len(data))
                return data
        try:
            return read_file(place, self._max_bytes, share)
        except BadImageError as error:
            return self._from_base64(text, error)

    def _from_base64(self, text, error):
        """Return the image that a text holds; raise `error` if it is a path."""
        path = absolute_path(text, self._base_folder())
        if not os.path.lexists(path[:_LONGEST_PATH]):
            data = decode_base64(text, self._max_bytes)
            if data is not None:
                return data
            if len(text) > _LONGEST_PATH:
                raise BadImageError(
                    "it is neither the path of a file nor an image in base64: "
                    f"{len(text)} characters"
                )
        raise BadImageError(error.cause) from error.__cause__

    def _pixels_in_memory(self, i, share, copy=False):
        """Return the canonical pixels of a PIL image, an array or a tensor.

        With `copy`, they are not a view of an array of the user.
        """
        element = unwrapped(self._elements[i])
        if isinstance(element, Image.Image):
            return decode_pil(element, self._max_pixels, share)
        if is_missing(element):
            raise BadImageError("missing value")
        if isinstance(element, np.ma.MaskedArray):
            raise BadImageError(
                "it is masked: use image.filled(0), or the value that the gaps should "
                "have"
            )
        is_array = is_tensor(element) or has(element, "__array__")
        if not is_array or is_number(element):
            raise BadImageError(
                "an image is a path, the bytes of an image file, an open file, a PIL "
                f"image, an array or a tensor. Got {_an(type(element).__name__)}"
            )
        # Sparse tensors cannot be, and the user's class may raise anything.
        with bad_image_of_errors("it cannot be converted to an array"):
            if is_tensor(element):
                array = _array_of_tensor(element)
            else:
                array = np.asarray(element)
        if copy:
            share.take(2 * array.nbytes)
            array = np.array(array)
        return canonical_image(array)


def _path_text(element):
    """Return a path as text, None if an element is not a path."""
    element = unwrapped(element)
    if not isinstance(element, (str, os.PathLike)):
        return None
    with bad_image_of_errors("its __fspath__() fails"):  # of the user's class
        return os.fsdecode(element)


def _bytes_of(element):
    """Return a copy of encoded bytes, because the user may change the original."""
    try:
        return bytes(element)
    except (ValueError, BufferError) as error:  # a released memoryview
        raise BadImageError(f"its bytes cannot be read ({error})") from error


def _refuse_path(data):
    """Raise BadImageError if encoded bytes are the path of a file instead."""
    if len(data) <= _LONGEST_PATH and b"\0" not in data and os.path.lexists(data):
        raise BadImageError(
            "bytes are the content of an image file, but these are the path of a file: "
            "use os.fsdecode(path)"
        )


def _name_of(element):
    """Return the path of an element, which may also have bytes, or None."""
    try:
        if isinstance(element, Mapping):
            element = element.get("path")
        return _path_text(element)
    except BadImageError:
        return None


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
    """Return whether a value is None, NaN, or pandas' NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(value != value)


def is_number(value) -> bool:
    """Return whether a value is a single number."""
    return isinstance(value, (int, float, complex, np.number, np.bool_))


def _describe(element):
    if (text := _name_of(element)) is not None:
        if is_data_uri(text):
            return f"data URI {shown(text, 40)} of {len(text)} characters"
        return shown_path(text) or "an empty path"
    if isinstance(element, Mapping) and ("bytes" in element or "path" in element):
        if element.get("bytes") is not None:
            return "encoded bytes"
        if element.get("path") is None:
            return "a dict without bytes and path"
        element = element["path"]
    if is_open_file(element):
        return describe_file(element)
    if isinstance(element, _ENCODED):
        return "encoded bytes"
    if isinstance(element, Image.Image):
        name = getattr(element, "filename", "")
        return f"PIL image {shown_path(os.fsdecode(name))}" if name else "PIL image"
    if is_missing(element):
        return repr(element)
    if is_tensor(element) and has(element, "shape"):  # nested tensors have none
        return f"tensor of shape {tuple(element.shape)}"
    if isinstance(element, np.ndarray):
        return f"array of shape {element.shape}"
    return _an(type(element).__name__)


def _an(name):
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name:.80}"
