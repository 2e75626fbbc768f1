"""Encoded bytes to canonical pixels, by Pillow alone, and its faults in plain words.

One decoder, because another one (libjpeg-turbo by a different road, OpenCV, a GPU's)
gives other pixels than the reference transforms of the weights were made with.
"""

import contextlib
import functools
import io
import re
import struct
import threading

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from skdeepfeat._errors import BadImageError
from skdeepfeat._forks import released_after_fork

from ._canonical import canonical_pixels, value_fault
from ._quiet import call_despite_warnings

__all__ = [
    "REFUSED_FORMATS",
    "decode_bytes",
    "decode_pil",
    "decode_reduced",
    "jpeg_for_device",
    "readable_formats",
]

# EPS is a program: Pillow has Ghostscript run it. The others are recognised only, and
# what decodes them is whatever handler somebody has registered.
REFUSED_FORMATS = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})

# How to see the image as the camera's holder did, by the EXIF standard's numbers.
_ORIENT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}

_ON_THEIR_SIDE = (5, 6, 7, 8)

# Pillow's lazy loading is not thread-safe, and one PIL image can stand in several
# rows and several sources: the same object always gets the same lock.
_LOCKS = tuple(released_after_fork(threading.Lock()) for _ in range(64))


def decode_bytes(data, max_pixels) -> np.ndarray:
    """Return the pixels of an encoded image (its first frame).

    Parameters
    ----------
    data : bytes-like
        The content of an image file.
    max_pixels : int or None
        More than these are refused on the header's word, before decoding.

    Returns
    -------
    ndarray of uint8, shape (H, W) or (H, W, 3)

    Raises
    ------
    BadImageError
        If it is no image, damaged, too large, or of values that mean nothing.
    """
    return decode_reduced(data, max_pixels, None)[0]


def decode_reduced(data, max_pixels, enough) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the pixels of an encoded image, no more of them than is useful.

    The decoder of a JPEG can reduce it to an eighth, a quarter or half of its sides
    and saves most of its work so: 25 ms for a photo of 12 megapixels that takes 71 ms.

    Parameters
    ----------
    data, max_pixels
        As for `decode_bytes`, whose errors are raised.
    enough : callable or None
        ``enough((height, width)) -> (height, width)``: for an image of this shape, the
        one from which on it is as good as the whole. None: nothing is reduced.

    Returns
    -------
    pixels : ndarray of uint8, shape (H, W) or (H, W, 3)
    shape : tuple of (int, int)
        (height, width) of the whole image.
    """
    if not len(data):
        raise BadImageError("it is empty (0 bytes)")
    in_words = functools.partial(_bytes_in_words, data)
    with _faults_in_words(max_pixels, in_words):
        return call_despite_warnings(_decode, data, max_pixels, enough)


def jpeg_for_device(data, max_pixels):
    """Return the shape and the orientation of a JPEG that a GPU would decode alike.

    Parameters
    ----------
    data, max_pixels
        As for `decode_bytes`.

    Returns
    -------
    shape : tuple of (int, int)
        (height, width) as it is stored.
    orientation : int
        EXIF's number, 1 to 8.

    None where it is another format or kind, or may be damaged; Pillow knows then.
    """
    # A decoder that fills up what is missing would not say that a file is cut off.
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return None
    with _faults_in_words(max_pixels, functools.partial(_bytes_in_words, data)):
        return call_despite_warnings(_describe_jpeg, data, max_pixels)


def decode_pil(image, max_pixels) -> np.ndarray:
    """Return the pixels of a user's PIL image, which stays as it is.

    Its current frame is taken. Parameters, result and errors are those of
    `decode_bytes`.
    """
    with _faults_in_words(max_pixels, _pil_in_words):
        return call_despite_warnings(_convert, image, max_pixels)


def _decode(data, max_pixels, enough):
    with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
        _check_size(image.size, max_pixels)
        whole = None
        if enough is not None and isinstance(image, JpegImageFile):
            whole = _reduce(image, enough)
        image.load()
        pixels = _canonical(image, _orientation(image))
        return pixels, whole or pixels.shape[:2]


def _describe_jpeg(data, max_pixels):
    with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
        _check_size(image.size, max_pixels)
        if not isinstance(image, JpegImageFile) or image.mode not in ("L", "RGB"):
            return None
        # Stored as red, green and blue, by either way to say so.
        names = bytes(component[0] for component in image.layer)
        if image.info.get("adobe_transform") == 0 or names == b"RGB":
            return None
        orientation = _exif_orientation(image)
        return image.size[::-1], orientation if orientation in _ORIENT else 1


def _reduce(image, enough):
    """Have a JPEG decoded no larger than need be; return its whole shape, upright."""
    width, height = image.size
    is_turned = _is_turned(image)
    whole = (width, height) if is_turned else (height, width)
    sufficient = enough(whole)
    image.draft(None, sufficient if is_turned else sufficient[::-1])
    return whole


def _convert(image, max_pixels):
    _check_size(image.size, max_pixels)
    with _LOCKS[id(image) // 64 % len(_LOCKS)]:
        image.load()
        orientation = _orientation(image)
        # Pillow's conversion of palettes writes to the image that it converts.
        image = image.copy()
    return _canonical(image, orientation)


def readable_formats():
    """Return the names of the formats that are read, in Pillow's own order."""
    _import_plugins()
    return [name for name in Image.ID if name not in REFUSED_FORMATS]


@functools.cache
def _import_plugins():
    # In this order Image.open tries them, too: the common ones first.
    Image.preinit()
    Image.init()


def _check_size(size, max_pixels):
    width, height = size
    if width <= 0 or height <= 0:
        raise BadImageError("it has no pixels")
    if max_pixels is not None and width * height > max_pixels:
        raise BadImageError(_too_large(f"{width} x {height} pixels", max_pixels))


def _too_large(claim, max_pixels):
    return (
        f"it claims {claim}, more than max_pixels={max_pixels} allows: a broken file, "
        "a decompression bomb, or max_pixels must be raised"
    )


def _orientation(image):
    """Return the function that turns an image's array upright, or None.

    Called after `load`: Pillow turns TIFFs itself there, and says so in the EXIF.
    """
    return _ORIENT.get(_exif_orientation(image))


def _is_turned(image):
    """Return whether an image lies on its side until it is turned upright."""
    return _exif_orientation(image) in _ON_THEIR_SIDE


def _exif_orientation(image):
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Warning:
        raise
    except Exception:
        # Damaged EXIF raises nearly anything, and the pixels are good without it.
        return None


def _canonical(image, orient):
    values = _values(image)
    fault = value_fault(values.dtype, lambda: (values.min(), values.max()), "image")
    if fault:
        raise BadImageError(fault)
    pixels = canonical_pixels(values, has_channels=values.ndim == 3)
    return pixels if orient is None else np.ascontiguousarray(orient(pixels))


def _values(image):
    """Return the values of a loaded image of any mode: gray, RGB, with or without A."""
    mode = image.mode
    if mode == "P":
        return np.asarray(
            image.convert("RGBA" if image.has_transparency_data else "RGB")
        )
    if mode in ("PA", "RGBa"):
        return np.asarray(image.convert("RGBA"))
    if mode == "La":
        return np.asarray(image.convert("LA"))
    if mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        return np.asarray(image.convert("RGB"))
    values = np.asarray(image)
    if mode == "1":
        values = values.astype(np.uint8) * np.uint8(255)
    elif mode == "I":
        values = _sixteen_bits(values)
    return _transparent_to_white(values, image.info.get("transparency"))


def _sixteen_bits(values):
    # Pillow's mode for 16-bit files in many formats; 32-bit ones have no known white.
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise BadImageError(
            "32-bit integer pixels are read as 16-bit ones, 0 to 65535. "
            f"Got values from {low} to {high}"
        )
    return values.astype(np.uint16)


def _transparent_to_white(values, colour):
    """Paint over the one colour that a PNG's tRNS chunk declares transparent."""
    if values.ndim == 2 and isinstance(colour, int):
        is_clear = values == colour
    elif values.shape[2:] == (3,) and isinstance(colour, tuple) and len(colour) == 3:
        is_clear = (values == np.array(colour)).all(axis=-1)
    else:
        return values
    if values.dtype.kind != "u":
        return values
    values = values.copy()
    values[is_clear] = np.iinfo(values.dtype).max
    return values


@contextlib.contextmanager
def _faults_in_words(max_pixels, in_words):
    """Turn what Pillow raises into a BadImageError that says what is wrong."""
    try:
        yield
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError(_bomb(error, max_pixels)) from error
    except MemoryError as error:
        raise BadImageError("there is not enough memory to decode it") from error
    except Exception as error:
        # On a corrupt stream Pillow's plugins raise SyntaxError, struct.error,
        # ValueError, KeyError, OverflowError, zlib.error ... there is no common base.
        raise BadImageError(in_words(error)) from error


def _bomb(error, max_pixels):
    found = re.search(r"\((\d+) pixels\)", str(error))
    n_pixels = int(found.group(1)) if found else None
    claim = f"{n_pixels} pixels" if found else "too many pixels"
    if max_pixels is not None and (n_pixels is None or n_pixels > max_pixels):
        return _too_large(claim, max_pixels)
    limit = Image.MAX_IMAGE_PIXELS
    return (
        f"it claims {claim}, more than twice PIL.Image.MAX_IMAGE_PIXELS={limit}: a "
        "broken file, a decompression bomb, or that limit must be raised, too"
    )


def _bytes_in_words(data, error):
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(bytes(data[:32]))
    text = str(error) or type(error).__name__
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return f"the file is truncated ({text})"
    return f"it is damaged and cannot be decoded ({type(error).__name__}: {text})"


def _pil_in_words(error):
    # What Pillow says of a closed file depends on its version and the format.
    if "closed" in str(error) or isinstance(error, (AttributeError, AssertionError)):
        return (
            "the PIL image was closed before it was loaded: call its load() while its "
            "file is open"
        )
    return _bytes_in_words(b"", error)


def _unidentified(start):
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"hevc"):
        return (
            "HEIC files are read only if the package pillow-heif is installed and "
            "pillow_heif.register_heif_opener() has been called"
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "it is a web page, an XML or SVG text, not an image that Pillow reads"
    for name in Image.ID:
        answer = _accepts(name, start[:16])
        if isinstance(answer, str):
            return f"{answer} in this installation of Pillow"
        if answer and name in REFUSED_FORMATS:
            return f"{name} files are not read: convert it to PNG or JPEG"
        if answer:
            return f"it begins like {name}, but its header is damaged or cut off"
    return f"it is not an image that Pillow reads: it begins with {start[:16]!r}"


def _accepts(name, prefix):
    accept = Image.OPEN[name][1]
    try:
        return accept(prefix) if accept else False
    except (IndexError, TypeError, SyntaxError, struct.error):
        return False  # as Image.open does: the plugins index into short files
