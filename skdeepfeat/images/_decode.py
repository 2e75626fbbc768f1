"""Encoded bytes to canonical pixels with Pillow, with errors that say what is wrong.

Other decoders (OpenCV, libjpeg-turbo with other settings) give other pixels
than those that the weights were trained and evaluated with.
"""

import codecs
import contextlib
import functools
import re
import struct
from concurrent.futures import CancelledError

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from skdeepfeat.exceptions import BadImageError

from ._canonical import canonical_pixels, value_problem, value_range
from ._decoder_messages import (
    call_despite_warnings,
    collect_messages,
    collect_messages_of_libtiff,
)
from ._headers import check_header, is_sane_exif
from ._image_limits import (
    CountedBytes,
    CountedFile,
    check_length,
    check_size,
    max_bytes,
    too_large,
)
from ._stored_range import check_fits, stored_range, to_unit_range
from ._thread_pool import Share, lock_of

# The formats of Pillow whose decoders open no files, run no programs and allocate no
# more than the header says or `check_header` has checked.
READ_FORMATS = frozenset(
    "AVIF BMP CUR DCX DDS DIB FITS FLI FTEX GBR GIF ICNS ICO IM IMT JPEG JPEG2000 "
    "MCIDAS MPO MSP PCD PCX PIXAR PNG PPM PSD QOI SGI SPIDER SUN TGA TIFF WEBP XBM XPM "
    "XVTHUMB".split()
)
# Pillow decodes EPS with Ghostscript, which runs it as a program. IPTC, FPX, MIC and
# BLP files hold files of other formats, which their decoders open, whatever they are.
# The others are decoded by a handler that some other package may have registered.
REFUSED_FORMATS = frozenset(
    {"EPS", "IPTC", "FPX", "MIC", "BLP", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
)

# Characters of Pillow's error, and of its messages, that an error repeats.
_MESSAGE_LENGTH = 200

# Pixels that are converted at a time: a conversion takes several times their memory.
_STRIP = 2**20

# Bytes per pixel while an image is decoded: the decoder's own planes and Pillow's.
_DECODING = {"WEBP": 20, "AVIF": 16, "JPEG2000": 24, "ICNS": 24}
_DECODING_OTHERS = 8
# Bytes per pixel for the coefficients of a JPEG with several scans.
_COEFFICIENTS = 6

# EXIF's orientations: whether height and width are swapped, then which of them is
# reversed, to see the image upright.
_ORIENTATIONS = {
    1: (False, ()),
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}

# PIL modes that Pillow itself converts.
_CONVERTED = {
    "PA": "RGBA",
    "RGBa": "RGBA",
    "La": "LA",
    **dict.fromkeys(("CMYK", "YCbCr", "LAB", "HSV", "RGBX"), "RGB"),
}


_NO_LIMIT = Share(None)


def decode_bytes(data, max_pixels, share=_NO_LIMIT) -> np.ndarray:
    """Return the pixels of an encoded image (its first frame).

    Parameters
    ----------
    data : bytes-like
        The content of an image file.
    max_pixels : int or None
        Files whose header claims more are refused before they are decoded.
    share : Share, default=one without a limit
        The memory for decoding is taken from it first.

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
    with _explained(max_pixels, data):
        check_length(len(data), max_bytes(max_pixels))
        return call_despite_warnings(_decode, bytes(data), max_pixels, share)


# Formats that cannot be opened with the header alone, or that `check_header` checks.
# Pillow's plugin for FTEX closes the file.
_READ_WHOLE = ("JPEG", "TIFF", "WEBP", "AVIF", "ICO", "ICNS", "CUR", "FTEX")


def check_large_file(file, max_pixels):
    """Raise BadImageError if the header of an open file claims too many pixels.

    Parameters
    ----------
    file : binary file
    max_pixels : int or None
    """
    start = file.read(32)
    file.seek(0)
    formats = [name for name in readable_formats() if name not in _READ_WHOLE]
    with _explained(max_pixels, start):
        if not any(_accepts(name, start[:16]) for name in _READ_WHOLE):
            counted = CountedFile(file)
            image = call_despite_warnings(Image.open, counted, "r", formats)
            counted.detach()  # closing it would close the file
            check_size(image.size, max_pixels)


def decode_pil(image, max_pixels, share=_NO_LIMIT) -> np.ndarray:
    """Return the pixels of a user's PIL image, which is not changed.

    The current frame is used. Parameters, result and errors are those of
    `decode_bytes`.
    """
    with _explained(max_pixels, b"", _explain_pil):
        return call_despite_warnings(_convert, image, max_pixels, share)


def _decode(data, max_pixels, share):
    n_pixels = check_header(data, max_pixels)  # of a part that is decoded at once
    file = CountedBytes(data)
    with Image.open(file, formats=readable_formats()) as image:
        n_pixels = max(n_pixels, check_size(image.size, max_pixels))
        file.allow_pixels(n_pixels)
        if image.format == "TIFF":
            collect_messages_of_libtiff()
        elif image.format == "FITS":
            if image.tile[0][0] == "fits_gzip":
                raise BadImageError("compressed FITS files are not read")
            check_fits(data[: image.tile[0].offset])
        share.take(_n_bytes_to_decode(image, n_pixels))
        image.load()
        return _canonical(image, _orientation(image), stored_range(image))


def _n_bytes_to_decode(image, n_pixels):
    """Return how many bytes decoding and conversion take at most."""
    n_bytes = _DECODING.get(image.format, _DECODING_OTHERS)
    if image.info.get("progressive"):
        n_bytes += _COEFFICIENTS
    return n_bytes * n_pixels


def _convert(image, max_pixels, share):
    n_pixels = check_size(image.size, max_pixels)
    share.take(2 * _n_bytes_to_decode(image, n_pixels))
    with lock_of(image):  # Pillow's lazy loading is not thread-safe
        if image.format == "TIFF":
            collect_messages_of_libtiff()
        image.load()
        orientation, black_and_white = _orientation(image), stored_range(image)
        # The user may change it meanwhile, and Pillow's conversion of palettes writes
        # to the image that it converts.
        image = image.copy()
    return _canonical(image, orientation, black_and_white)


def readable_formats():
    """Return the names of the formats that are read, in the order they are tried.

    Formats of other packages are read once the user has registered them.
    """
    # The order in which Image.open tries them: the common ones first.
    Image.preinit()
    Image.init()
    return _readable(tuple(Image.ID))


@functools.lru_cache(maxsize=4)
def _readable(names):
    others = {
        name for name in names if not Image.OPEN[name][0].__module__.startswith("PIL.")
    }
    allowed = (READ_FORMATS | others) - REFUSED_FORMATS
    return [name for name in names if name in allowed]


def _orientation(image):
    """Return EXIF's number, 1 to 8, of an image.

    Called after `load`, because there Pillow rotates TIFFs and sets the number to 1.
    """
    try:
        exif = image.info.get("exif")
        profile = image.info.get("Raw profile type exif")  # of ImageMagick, in PNG
        if exif is None and profile:
            exif = bytes.fromhex("".join(profile.split("\n")[3:]))
        if not exif or is_sane_exif(exif):
            number = image.getexif().get(ExifTags.Base.Orientation)
            return number if number in _ORIENTATIONS else 1
    except Warning:
        raise
    except Exception:
        # Damaged EXIF raises nearly anything, and the pixels are good without it.
        pass
    return 1


def _canonical(image, orientation, black_and_white):
    problem = _value_problem(image)
    if problem:
        raise BadImageError(problem)
    pixels, n_done = None, 0
    for strip in _strips(image):
        values = _values(strip)
        if black_and_white is not None:
            values = to_unit_range(values, black_and_white)
        values = canonical_pixels(values, has_channels=values.ndim == 3)
        if len(values) == image.height:
            pixels = values
            break
        if pixels is None:
            pixels = np.empty((image.height, *values.shape[1:]), np.uint8)
        pixels[n_done : n_done + len(values)] = values
        n_done += len(values)
    is_transposed, flipped = _ORIENTATIONS[orientation]
    if is_transposed:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(np.flip(pixels, flipped))


def _strips(image):
    n_rows = max(1, _STRIP // image.width)
    if image.height <= n_rows:
        yield image
        return
    for top in range(0, image.height, n_rows):
        yield image.crop((0, top, image.width, min(top + n_rows, image.height)))


def _value_problem(image):
    """Return what is wrong with the values of an image, or None."""
    is_fits = image.format == "FITS"
    if image.mode not in ("I", "F") and not (is_fits and image.mode == "I;16"):
        return None
    strips = map(np.asarray, _strips(image))
    if image.mode == "F":
        return value_problem(np.dtype(np.float32), strips, "image")
    # Pillow's mode for 16-bit files in many formats. In 32-bit files, no value is
    # defined as white.
    low, high = value_range(strips)
    if is_fits and image.mode == "I;16":
        return "it has negative values" if high > 32767 else None
    if low >= 0 and high <= 65535:
        return None
    return (
        "32-bit integer pixels are read as 16-bit ones, 0 to 65535. "
        f"Got values from {low} to {high}"
    )


def _values(image):
    """Return the values of a loaded image of any mode: gray, RGB, with or without A."""
    mode = image.mode
    target = _CONVERTED.get(mode)
    if mode == "P":
        target = "RGBA" if image.has_transparency_data else "RGB"
    if target is not None:
        return np.asarray(image.convert(target))
    values = np.asarray(image)
    if mode == "1":
        values = values.astype(np.uint8) * np.uint8(255)
    elif mode == "I":
        values = values.astype(np.uint16)
    return _transparent_to_white(values, image.info.get("transparency"))


def _transparent_to_white(values, color):
    """Replace the one color that a PNG's tRNS chunk declares transparent."""
    if values.dtype.kind != "u":
        return values
    if values.ndim == 2 and isinstance(color, int):
        is_clear = values == color
    elif values.shape[2:] == (3,) and isinstance(color, tuple) and len(color) == 3:
        if max(color) > np.iinfo(values.dtype).max:
            raise BadImageError(
                "16-bit RGB with one transparent color is not read, because Pillow "
                "keeps 8 bits: save it with an alpha channel"
            )
        is_clear = (values == np.array(color)).all(axis=-1)
    else:
        return values
    values = values.copy()
    values[is_clear] = np.iinfo(values.dtype).max
    return values


def _explain(error, data):
    if isinstance(error, UnidentifiedImageError):
        return _explain_unidentified(bytes(data[:32]))
    text = str(error) or type(error).__name__
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return f"the file is truncated ({text})"
    return f"it is damaged and cannot be decoded ({type(error).__name__}: {text})"


def _explain_pil(error, data):
    # What Pillow says of a closed file depends on its version and the format.
    if "closed" in str(error) or isinstance(error, (AttributeError, AssertionError)):
        return (
            "the PIL image was closed before it was loaded: call its load() while its "
            "file is open"
        )
    return _explain(error, data)


@contextlib.contextmanager
def _explained(max_pixels, data, explain=_explain):
    """Turn what Pillow raises into a BadImageError that says what is wrong."""
    with collect_messages() as messages:
        try:
            yield
        except (BadImageError, CancelledError):
            raise
        except Image.DecompressionBombError as error:
            raise BadImageError(_explain_bomb(error, max_pixels)) from error
        except MemoryError as error:
            raise BadImageError("there is not enough memory to decode it") from error
        except Exception as error:
            # On a corrupt stream Pillow's plugins raise SyntaxError, struct.error,
            # ValueError, KeyError, OverflowError, zlib.error ... there is no common
            # base.
            text = explain(error, data)[:_MESSAGE_LENGTH]
            said = "; ".join(messages)[:_MESSAGE_LENGTH]
            raise BadImageError(f"{text} {said}".rstrip()) from error


def _explain_bomb(error, max_pixels):
    found = re.search(r"\((\d+) pixels\)", str(error))
    claim = f"{found[1]} pixels" if found else "too many pixels"
    if max_pixels is not None and (not found or int(found[1]) > max_pixels):
        return too_large(claim, max_pixels)
    limit = Image.MAX_IMAGE_PIXELS
    return (
        f"it claims {claim}, more than twice PIL.Image.MAX_IMAGE_PIXELS={limit}: a "
        "broken file, a decompression bomb, or that limit must be raised, too"
    )


def _explain_unidentified(start):
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"hevc"):
        return (
            "HEIC files are read only if the package pillow-heif is installed and "
            "pillow_heif.register_heif_opener() has been called"
        )
    text = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "it is a web page, an XML or SVG text, not an image that Pillow reads"
    for name in Image.ID:
        answer = _accepts(name, start[:16])
        if isinstance(answer, str):
            return f"{answer} in this installation of Pillow"
        if answer and name in REFUSED_FORMATS:
            return f"{name} files are not read: convert it to PNG or JPEG"
        if answer:
            return (
                f"it begins like {name}, but its header is damaged, cut off or of a "
                "kind that Pillow does not read"
            )
    return f"it is not an image that Pillow reads: it begins with {start[:16]!r}"


def _accepts(name, prefix):
    accept = Image.OPEN[name][1]
    try:
        return accept(prefix) if accept else False
    except (IndexError, TypeError, SyntaxError, struct.error):
        return False  # the plugins index into short files
