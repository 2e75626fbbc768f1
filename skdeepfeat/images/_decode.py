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
from concurrent.futures import CancelledError

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from skdeepfeat._utils._forks import released_after_fork
from skdeepfeat.exceptions import BadImageError

from ._canonical import canonical_pixels, value_fault
from ._headers import check_header, is_sane_exif
from ._image_limits import check_length, check_size, max_bytes, too_large
from ._quiet import call_despite_warnings, collect_messages, collect_messages_of_libtiff

__all__ = [
    "READ_FORMATS",
    "REFUSED_FORMATS",
    "check_large_file",
    "decode_bytes",
    "decode_pil",
    "jpeg_for_device",
    "readable_formats",
]

# Pillow's own formats, after a look at what their decoders open, run and allocate:
# what these take is told by the size in their headers, or `check_header` looks.
READ_FORMATS = frozenset(
    "AVIF BMP CUR DCX DDS DIB FITS FLI FTEX GBR GIF ICNS ICO IM IMT JPEG JPEG2000 "
    "MCIDAS MPO MSP PCD PCX PIXAR PNG PPM PSD QOI SGI SPIDER SUN TGA TIFF WEBP XBM XPM "
    "XVTHUMB".split()
)
# EPS is a program: Pillow has Ghostscript run it. IPTC, FPX, MIC and BLP files hold
# files of other formats, which their decoders open whatever they are. The others are
# recognized only, and what decodes them is whatever handler somebody has registered.
REFUSED_FORMATS = frozenset(
    {"EPS", "IPTC", "FPX", "MIC", "BLP", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
)

# Characters of what Pillow says of a fault, in its error and in its messages.
_SAID = 200

# Pixels that are converted at a time.
_STRIP = 2**20

# Bytes for each pixel while it is decoded, the decoder's own planes and Pillow's.
_DECODING = {"WEBP": 20, "AVIF": 16, "JPEG2000": 24}
_DECODING_OTHERS = 8
# What a JPEG of several scans keeps of its coefficients.
_COEFFICIENTS = 6

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

# Pillow's lazy loading is not thread-safe, and one PIL image can stand in several
# rows and several sources: the same object always gets the same lock.
_LOCKS = tuple(released_after_fork(threading.Lock()) for _ in range(64))


def decode_bytes(data, max_pixels, share=None) -> np.ndarray:
    """Return the pixels of an encoded image (its first frame).

    Parameters
    ----------
    data : bytes-like
        The content of an image file.
    max_pixels : int or None
        More than these are refused on the header's word, before decoding.
    share : Share, default=None
        Takes the bytes of memory that it needs, before it does.

    Returns
    -------
    ndarray of uint8, shape (H, W) or (H, W, 3)

    Raises
    ------
    BadImageError
        If it is not an image, damaged, too large, or has invalid values.
    """
    if not len(data):
        raise BadImageError("it is empty (0 bytes)")
    with _faults_in_words(max_pixels, functools.partial(_bytes_in_words, data)):
        check_length(len(data), max_bytes(max_pixels))
        return call_despite_warnings(_decode, bytes(data), max_pixels, share)


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


# Their headers are not enough to open them, or are looked at by `check_header` first.
_READ_WHOLE = ("JPEG", "TIFF", "WEBP", "AVIF", "ICO", "ICNS", "CUR")


def check_large_file(file, max_pixels):
    """Raise BadImageError if the header of an open file says that it is not read.

    Parameters
    ----------
    file : binary file
    max_pixels : int or None
    """
    start = file.read(32)
    file.seek(0)
    formats = [name for name in readable_formats() if name not in _READ_WHOLE]
    with _faults_in_words(max_pixels, functools.partial(_bytes_in_words, start)):
        if any(_accepts(name, start[:16]) for name in _READ_WHOLE):
            return
        call_despite_warnings(_look_at, file, formats, max_pixels)


def _look_at(file, formats, max_pixels):
    image = Image.open(file, formats=formats)  # closing it would close the file
    check_size(image.size, max_pixels)


def decode_pil(image, max_pixels, share=None) -> np.ndarray:
    """Return the pixels of a user's PIL image, which stays as it is.

    Its current frame is taken. Parameters, result and errors are those of
    `decode_bytes`.
    """
    with _faults_in_words(max_pixels, _pil_in_words):
        return call_despite_warnings(_convert, image, max_pixels, share)


def _decode(data, max_pixels, share):
    with _opened(data, max_pixels) as image:
        if share is not None:
            share.take(_cost(image))
        image.load()
        return _canonical(image, _orientation(image))


@contextlib.contextmanager
def _opened(data, max_pixels):
    """Open an encoded image of a format that is read, and of an admissible size."""
    check_header(data, max_pixels)
    with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
        check_size(image.size, max_pixels)
        if image.format == "TIFF":
            collect_messages_of_libtiff()
        elif any(tile[0] == "fits_gzip" for tile in getattr(image, "tile", ())):
            raise BadImageError("compressed FITS files are not read")
        yield image


def _cost(image):
    """Return how many bytes decoding and conversion take at most."""
    n_bytes = _DECODING.get(image.format, _DECODING_OTHERS)
    if image.info.get("progressive"):
        n_bytes += _COEFFICIENTS
    return n_bytes * image.width * image.height


def _describe_jpeg(data, max_pixels):
    with _opened(data, max_pixels) as image:
        if not isinstance(image, JpegImageFile) or image.mode not in ("L", "RGB"):
            return None
        # Stored as red, green and blue, by either way to say so.
        names = bytes(component[0] for component in image.layer)
        if image.info.get("adobe_transform") == 0 or names == b"RGB":
            return None
        orientation = _exif_orientation(image)
        return image.size[::-1], orientation if orientation in _ORIENT else 1


def _convert(image, max_pixels, share):
    check_size(image.size, max_pixels)
    if share is not None:
        share.take(2 * _cost(image))
    with _LOCKS[id(image) // 64 % len(_LOCKS)]:
        if image.format == "TIFF":
            collect_messages_of_libtiff()
        image.load()
        orientation = _orientation(image)
        # Its owner may change it meanwhile, and Pillow's conversion of palettes writes
        # to the image that it converts.
        image = image.copy()
    return _canonical(image, orientation)


def readable_formats():
    """Return the names of the formats that are read, in the order they are tried.

    Those of other packages than Pillow are read once the user has registered them.
    """
    _import_plugins()
    return _readable(tuple(Image.ID))


@functools.lru_cache(maxsize=4)
def _readable(names):
    return [name for name in names if _is_read(name)]


def _is_read(name):
    if name in REFUSED_FORMATS:
        return False
    is_pillows = Image.OPEN[name][0].__module__.startswith("PIL.")
    return name in READ_FORMATS or not is_pillows


@functools.cache
def _import_plugins():
    # In this order Image.open tries them, too: the common ones first.
    Image.preinit()
    Image.init()


def _orientation(image):
    """Return the function that turns an image's array upright, or None.

    Called after `load`: Pillow turns TIFFs itself there, and says so in the EXIF.
    """
    return _ORIENT.get(_exif_orientation(image))


def _exif_orientation(image):
    try:
        if not is_sane_exif(image.info.get("exif") or b""):
            return None
        return image.getexif().get(ExifTags.Base.Orientation)
    except Warning:
        raise
    except Exception:
        # Damaged EXIF raises nearly anything, and the pixels are good without it.
        return None


def _canonical(image, orient):
    fault = _value_fault(image)
    if fault:
        raise BadImageError(fault)
    strips = map(_canonical_strip, _strips(image))
    pixels = next(strips)
    if len(pixels) < image.height:
        first, n_done = pixels, len(pixels)
        pixels = np.empty((image.height, *first.shape[1:]), np.uint8)
        pixels[:n_done] = first
        for strip in strips:
            pixels[n_done : n_done + len(strip)] = strip
            n_done += len(strip)
    return pixels if orient is None else np.ascontiguousarray(orient(pixels))


def _strips(image):
    """Yield an image in parts: its conversion takes several times its own memory."""
    n_rows = max(1, _STRIP // image.width)
    if image.height <= n_rows:
        yield image
        return
    for top in range(0, image.height, n_rows):
        yield image.crop((0, top, image.width, min(top + n_rows, image.height)))


def _canonical_strip(strip):
    values = _values(strip)
    return canonical_pixels(values, has_channels=values.ndim == 3)


def _value_fault(image):
    """Return what is wrong with the values of an image, or None."""
    if image.mode not in ("I", "F"):
        return None  # their modes have a known white
    ranges = [(strip.min(), strip.max()) for strip in map(np.asarray, _strips(image))]
    # np.min, unlike min, lets a NaN of any strip through.
    low, high = np.min([one[0] for one in ranges]), np.max([one[1] for one in ranges])
    if image.mode == "I":
        # Pillow's mode for 16-bit files in many formats; 32-bit ones have no known
        # white.
        if low < 0 or high > 65535:
            return (
                "32-bit integer pixels are read as 16-bit ones, 0 to 65535. "
                f"Got values from {low} to {high}"
            )
        return None
    return value_fault(np.dtype(np.float32), lambda: (low, high), "image")


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
        values = values.astype(np.uint16)
    return _transparent_to_white(values, image.info.get("transparency"))


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
    with collect_messages() as messages:
        try:
            yield
        except BadImageError:
            raise
        except CancelledError:
            raise
        except Image.DecompressionBombError as error:
            raise BadImageError(_bomb(error, max_pixels)) from error
        except MemoryError as error:
            raise BadImageError("there is not enough memory to decode it") from error
        except Exception as error:
            # On a corrupt stream Pillow's plugins raise SyntaxError, struct.error,
            # ValueError, KeyError, OverflowError, zlib.error ... there is no common
            # base.
            said = f" {'; '.join(messages)[:_SAID]}" if messages else ""
            raise BadImageError(f"{in_words(error)[:_SAID]}{said}") from error


def _bomb(error, max_pixels):
    found = re.search(r"\((\d+) pixels\)", str(error))
    n_pixels = int(found.group(1)) if found else None
    claim = f"{n_pixels} pixels" if found else "too many pixels"
    if max_pixels is not None and (n_pixels is None or n_pixels > max_pixels):
        return too_large(claim, max_pixels)
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
