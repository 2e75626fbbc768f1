"""What the header of a file claims, checked before a decoder allocates memory for it.

`Image.open` reads most headers and no more, so their sizes are checked after it. This
module checks what must be checked before: icons are decoded while they are opened, WebP
files get their canvas, and Pillow does not check the tiles of a TIFF or the scans of a
JPEG at all.
"""

import io
import re
import struct

import numpy as np
from PIL import BmpImagePlugin, IcnsImagePlugin, IcoImagePlugin, PngImagePlugin

from skdeepfeat.exceptions import BadImageError

from ._image_limits import check_size, max_jpeg_scans

__all__ = ["check_header", "is_sane_exif"]


def check_header(data, max_pixels):
    """Raise BadImageError if a file is not to be handed to a decoder.

    Parameters
    ----------
    data : bytes
    max_pixels : int or None

    Raises
    ------
    BadImageError
        If what its header claims is too much. What is damaged raises anything that
        Pillow raises, or nothing: the decoder tells.
    """
    for starts, check in _CHECKS:
        if data.startswith(starts):
            try:
                check(data, max_pixels)
            except (BadImageError, Warning):
                raise
            except Exception:
                # From Pillow's own reading of headers: it is damaged, and Pillow will
                # raise this once more.
                return


# -- JPEG

# What follows 0xFF in a scan's data where no marker begins: nothing, or a restart.
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_CHUNK = 2**20  # bytes that are looked at together
_ALONE = {0x01, 0xD8, *range(0xD0, 0xD8)}  # markers that no length follows


# Before the first scan: 64 MiB of metadata. Pillow keeps each segment, joins those of
# EXIF one by one, and passes over fill bytes one by one.
_MOST_SEGMENTS = 1024
_MOST_FILL = 2**16  # bytes


def _check_jpeg(data, max_pixels):
    _check_segments(data)
    limit = max_jpeg_scans()
    # The marker may also be in a thumbnail, or in what follows the image. All of them
    # are counted first because that is fast.
    if _count_starts_of_scans(data) > limit and _has_more_scans(data, limit):
        raise BadImageError(
            f"it has more than {limit} scans, as in files that are made to decode "
            "slowly; to read it, raise the environment variable "
            "SKDEEPFEAT_MAX_JPEG_SCANS"
        )


def _check_segments(data):
    n_segments, position = 0, 2
    while found := _MARKER.search(data, position):
        if found.start() - position > _MOST_FILL:
            raise BadImageError(f"more than {_MOST_FILL} bytes of it are no content")
        marker, position = found[1][0], found.end()
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            break
        n_segments += 1
        if n_segments > _MOST_SEGMENTS:
            raise BadImageError(f"its header has more than {_MOST_SEGMENTS} segments")
        if marker not in _ALONE:
            position += int.from_bytes(data[position : position + 2], "big")


def _count_starts_of_scans(data):
    # By numpy, because bytes.count takes ten times as long.
    values, n_starts = np.frombuffer(data, np.uint8), 0
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK + 1]
        is_start = (part[:-1] == 0xFF) & (part[1:] == _START_OF_SCAN)
        n_starts += np.count_nonzero(is_start)
    return n_starts


def _has_more_scans(data, limit):
    n_scans, position = 0, 0
    while found := _MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            break
        if marker in _ALONE:
            continue
        n_scans += marker == _START_OF_SCAN
        if n_scans > limit:
            return True
        position += int.from_bytes(data[position : position + 2], "big")
    return False


# -- TIFF, and EXIF, which has the same form

_TILE_SIDES = (322, 323)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}  # bytes of a value, by the number of its type
_INTEGERS = {1: "B", 3: "H", 4: "L", 6: "B", 8: "H", 9: "L", 13: "L", 16: "Q", 17: "Q"}

# Bytes. A table of tags may name the same data again and again, and each tag gets a
# copy of it.
_LEAST_OF_TAGS = 2**24
_RATIONALS = {5, 10}
_MOST_RATIONALS = 2**16  # Pillow makes an object of each, slowly


def _check_tiff(data, max_pixels):
    # Pillow and libtiff may disagree on which of the two forms such a file has.
    forms = (False, True) if data[2:4] in (b"\0\x2b", b"\x2b\0") else (False,)
    for offset in {_first_table(data, is_big) for is_big in forms}:
        for is_big in forms:
            _check_tags(data, offset, is_big, max_pixels)


def is_sane_exif(data):
    """Return whether a block of EXIF is worth its bytes when it is read.

    Parameters
    ----------
    data : bytes
        As Pillow has it, with or without the word in front.
    """
    data = data.removeprefix(b"Exif\0\0")
    try:
        _check_tags(data, _first_table(data, False), False, None)
    except BadImageError:
        return False
    return True


def _first_table(data, is_big):
    order = "<" if data[:2] == b"II" else ">"
    field, start = ("Q", 8) if is_big else ("L", 4)
    size = struct.calcsize(f"{order}{field}")
    if len(data) < start + size:
        return 0
    return struct.unpack_from(f"{order}{field}", data, start)[0]


def _check_tags(data, offset, is_big, max_pixels):
    order = "<" if data[:2] == b"II" else ">"
    n_tags = struct.Struct(order + ("Q" if is_big else "H"))
    entry = struct.Struct(order + ("HHQ8s" if is_big else "HHL4s"))
    if offset + n_tags.size > len(data):
        return
    start = offset + n_tags.size
    end = min(len(data), start + entry.size * n_tags.unpack_from(data, offset)[0])
    sides, n_bytes = {}, 0
    for position in range(start, end - entry.size + 1, entry.size):
        tag, kind, count, value = entry.unpack_from(data, position)
        size = count * _SIZES.get(kind, 0)
        if size > len(value):
            n_bytes += min(size, len(data))
            if kind in _RATIONALS and count > _MOST_RATIONALS:
                raise BadImageError(f"a tag of it claims {count} rational numbers")
            # Eight bytes do not fit into the entry of a classic TIFF.
            at = struct.unpack(order + ("Q" if is_big else "L"), value)[0]
            value = data[at : at + 8]
        if tag in _TILE_SIDES and kind in _INTEGERS:
            letter = order + _INTEGERS[kind]
            if len(value) < struct.calcsize(letter):
                continue
            side = struct.unpack_from(letter, value)[0]
            sides[tag] = max(side, sides.get(tag, 0))
    if n_bytes > max(4 * len(data), _LEAST_OF_TAGS):
        raise BadImageError(f"its tags claim {n_bytes} bytes, more than it has")
    if len(sides) == 2:
        check_size(sides.values(), max_pixels, "a tile of it claims")


# -- Icons, which hold files of other formats


def _check_ico(data, max_pixels):
    file = io.BytesIO(data)
    icon = IcoImagePlugin.IcoFile(file)
    if not icon.entry:
        return
    # The one that Pillow takes.
    offset = icon.entry[icon.getentryindex(icon.entry[0].dim)].offset
    file.seek(offset)
    if data[offset : offset + 8] == _PNG:
        size = PngImagePlugin.PngImageFile(file).size
    else:
        # A bitmap is as high again, for its mask.
        width, height = BmpImagePlugin.DibImageFile(file).size
        size = (width, (height + 1) // 2)
    check_size(size, max_pixels, "an image in it claims")


def _check_icns(data, max_pixels):
    file = io.BytesIO(data)
    icon = IcnsImagePlugin.IcnsFile(file)
    for name, _ in icon.SIZES[icon.bestsize()]:
        start, length = icon.dct.get(name, (0, 0))
        inner = data[start : start + length]
        if inner.startswith(_PNG):
            size = PngImagePlugin.PngImageFile(io.BytesIO(inner)).size
            check_size(size, max_pixels, "an image in it claims")
        elif inner.startswith(_JPEG_2000):
            _check_jpeg_2000(inner, max_pixels)


# -- Others

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_2000 = (b"\xff\x4f\xff\x51", b"\r\n\x87\n", b"\0\0\0\x0cjP  \r\n\x87\n")
# A decoder keeps some kilobytes for each.
_MOST_TILES = 4096


def _check_jpeg_2000(data, max_pixels):
    # A box may claim another size than the image in it.
    start = -1
    while (start := data.find(b"\xff\x4f\xff\x51", start + 1)) >= 0:
        if len(data) < start + 40:
            return
        numbers = struct.unpack_from(">8L", data, start + 8)
        right, bottom, left, top, tile_width, tile_height, x, y = numbers
        check_size((right - left, bottom - top), max_pixels, "an image in it claims")
        if tile_width and tile_height:
            columns = -(-(right - x) // tile_width)
            n_tiles = columns * -(-(bottom - y) // tile_height)
            if n_tiles > _MOST_TILES:
                raise BadImageError(
                    f"it claims {n_tiles} tiles, more than {_MOST_TILES}"
                )


# Pillow copies up to a megabyte of numbers for each.
_MOST_COMMENTS = 1024


def _check_plain_netpbm(data, max_pixels):
    if data.count(b"#") > _MOST_COMMENTS:
        raise BadImageError(f"it has more than {_MOST_COMMENTS} comments")


def _check_webp(data, max_pixels):
    if data[8:12] != b"WEBP" or len(data) < 30:
        return
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width = int.from_bytes(data[26:28], "little") & 0x3FFF
        height = int.from_bytes(data[28:30], "little") & 0x3FFF
    check_size((width, height), max_pixels)


_CHECKS = (
    (b"\xff\xd8", _check_jpeg),
    (b"RIFF", _check_webp),
    ((b"II", b"MM"), _check_tiff),
    (b"\0\0\1\0", _check_ico),
    (b"icns", _check_icns),
    (_JPEG_2000, _check_jpeg_2000),
    ((b"P1", b"P2", b"P3"), _check_plain_netpbm),
)
