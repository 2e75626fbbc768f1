"""What the header of a file claims, checked before a decoder allocates memory for it.

For most formats, `Image.open` reads the header and no more, so the size is checked
after it. This module checks what must be checked before: `Image.open` decodes icons and
allocates the canvas of WebP files, and Pillow never checks the tiles of a TIFF or the
scans of a JPEG.
"""

import math
import re
import struct

import numpy as np
from PIL import BmpImagePlugin, IcnsImagePlugin, IcoImagePlugin, PngImagePlugin

from skdeepfeat.exceptions import BadImageError

from ._av1_sizes import av1_sizes
from ._image_limits import CountedBytes, check_size, max_jpeg_scans


def check_header(data, max_pixels):
    """Raise BadImageError if a file must not be passed to a decoder.

    Parameters
    ----------
    data : bytes
    max_pixels : int or None

    Returns
    -------
    int
        The pixels of the largest part that is decoded as a whole, such as a tile, which
        may be larger than the image. 0 if it has none.

    Raises
    ------
    BadImageError
        If its header claims too much. A damaged header is left to the decoder.
    """
    n_pixels = 0
    for starts, check in _CHECKS:
        if data.startswith(starts):
            try:
                n_pixels = max(n_pixels, check(data, max_pixels) or 0)
            except (BadImageError, Warning):
                raise
            except Exception:
                # The header is damaged, and Pillow will raise the same error.
                break
    return n_pixels


# -- JPEG

# In the data of a scan, 0xFF is followed by 0x00, or by the number of a restart.
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# Pillow skips no segment after these, so neither may this module. libjpeg stops at
# those that are not standard.
_WITHOUT_LENGTH = {0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}
_CHUNK = 2**20  # bytes that are searched at a time

# Before the first scan: 64 MiB of metadata. Pillow keeps each segment, and skips fill
# bytes one by one.
_MAX_SEGMENTS = 1024
_MAX_FILL = 2**16  # bytes
# Pillow joins the segments of EXIF, and reads tags as it opens the file. The standard
# has one segment.
_MAX_EXIF_SEGMENTS = 16
_EXIF, _MULTI_PICTURE = b"Exif\0\0", b"MPF\0"


def _check_jpeg(data, max_pixels):
    _check_segments(data)
    limit = max_jpeg_scans()
    # The bytes of the marker may also occur in a thumbnail or after the image. They
    # are counted first because that is fast.
    if _count_starts_of_scans(data) > limit:
        n_scans = 0
        for marker, _, _ in _markers(data):
            if marker == _END_OF_IMAGE:
                break
            n_scans += marker == _START_OF_SCAN
            if n_scans > limit:
                raise BadImageError(
                    f"it has more than {limit} scans, as in files that are made to "
                    "decode slowly; to read it, raise the environment variable "
                    "SKDEEPFEAT_MAX_JPEG_SCANS"
                )


def _markers(data):
    """Yield each marker of a JPEG, how many bytes precede it, and its segment."""
    position = 2
    while found := _MARKER.search(data, position):
        marker, n_skipped = found[1][0], found.start() - position
        position = start = found.end()
        if marker not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[start : start + 2], "big")
        yield marker, n_skipped, data[start + 2 : position]


def _check_segments(data):
    exif, index = [], b""
    # Pillow reads on after the end of an image without scans.
    for n_segments, (marker, n_skipped, content) in enumerate(_markers(data), 1):
        if n_skipped > _MAX_FILL:
            raise BadImageError(f"more than {_MAX_FILL} bytes of it are not content")
        if marker == _START_OF_SCAN:
            break
        if n_segments > _MAX_SEGMENTS:
            raise BadImageError(f"its header has more than {_MAX_SEGMENTS} segments")
        if content.startswith(_EXIF):
            exif.append(content[len(_EXIF) :])
        elif content.startswith(_MULTI_PICTURE):
            index = content[len(_MULTI_PICTURE) :]  # Pillow reads the last one
    if len(exif) > _MAX_EXIF_SEGMENTS:
        raise BadImageError(f"its EXIF has more than {_MAX_EXIF_SEGMENTS} segments")
    for block in (b"".join(exif), index):
        _check_exif(block)


def _count_starts_of_scans(data):
    # With numpy, because bytes.count takes ten times as long.
    values, n_starts = np.frombuffer(data, np.uint8), 0
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK + 1]
        is_start = (part[:-1] == 0xFF) & (part[1:] == _START_OF_SCAN)
        n_starts += np.count_nonzero(is_start)
    return n_starts


# -- TIFF, and EXIF, which has the same layout

_TILE_SIDES = (322, 323)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}  # bytes of a value, by the number of its type
_INTEGERS = {1: "B", 3: "H", 4: "L", 6: "B", 8: "H", 9: "L", 13: "L", 16: "Q", 17: "Q"}

# Bytes. Many tags may refer to the same data, and Pillow copies it for each.
_MIN_TAG_BYTES = 2**24
_RATIONALS = {5, 10}
_MAX_RATIONALS = 2**16  # Pillow makes an object of each, slowly
_PART_OFFSETS = {273, 324}
_MAX_PARTS = 2**18  # strips or tiles, which Pillow lists before it reads any


def _check_tiff(data, max_pixels):
    # Pillow and libtiff may disagree on whether such a file is a BigTIFF.
    forms = (False, True) if data[2:4] in (b"\0\x2b", b"\x2b\0") else (False,)
    return max(
        _check_tags(data, has_big_head, is_big, max_pixels)
        for has_big_head in forms
        for is_big in forms
    )


def is_sane_exif(data):
    """Return whether the tags of an EXIF block claim no more than they may.

    Parameters
    ----------
    data : bytes
        With or without the leading ``Exif``.
    """
    try:
        _check_exif(data)
    except BadImageError:
        return False
    return True


def _check_exif(data):
    # Pillow removes this twice.
    _check_tags(data.removeprefix(_EXIF).removeprefix(_EXIF))


def _check_tags(data, has_big_head=False, is_big=False, max_pixels=None):
    """Check the first table of tags; return the pixels of a tile, 0 if it has none."""
    order = "<" if data[:2] == b"II" else ">"
    head = struct.Struct(order + ("8xQ" if has_big_head else "4xL"))
    offset = head.unpack_from(data)[0] if len(data) >= head.size else 0
    n_tags = struct.Struct(order + ("Q" if is_big else "H"))
    entry = struct.Struct(order + ("HHQ8s" if is_big else "HHL4s"))
    if offset + n_tags.size > len(data):
        return 0
    start = offset + n_tags.size
    end = min(len(data), start + entry.size * n_tags.unpack_from(data, offset)[0])
    sides, n_bytes = {}, 0
    for position in range(start, end - entry.size + 1, entry.size):
        tag, kind, count, value = entry.unpack_from(data, position)
        size = count * _SIZES.get(kind, 0)
        if size > len(value):
            n_bytes += min(size, len(data))
            # Pillow leaves out a tag whose data is cut off.
            if kind in _RATIONALS and size <= len(data) and count > _MAX_RATIONALS:
                raise BadImageError(f"a tag of it has {count} rational numbers")
            # Eight bytes do not fit into the entry of a classic TIFF.
            at = struct.unpack(order + ("Q" if is_big else "L"), value)[0]
            value = data[at : at + 8]
        if tag in _PART_OFFSETS and count > _MAX_PARTS:
            raise BadImageError(
                f"it claims {count} strips or tiles, more than {_MAX_PARTS}"
            )
        if tag in _TILE_SIDES and kind in _INTEGERS:
            letter = order + _INTEGERS[kind]
            if len(value) < struct.calcsize(letter):
                continue
            side = struct.unpack_from(letter, value)[0]
            sides[tag] = max(side, sides.get(tag, 0))
    if n_bytes > max(4 * len(data), _MIN_TAG_BYTES):
        raise BadImageError(f"its tags claim {n_bytes} bytes, more than it has")
    if len(sides) < 2:
        return 0
    return check_size(sides.values(), max_pixels, "a tile of it claims")


# -- Icons, which hold files of other formats


def _check_ico(data, max_pixels):
    _check_png(data, max_pixels)
    file = CountedBytes(data)
    icon = IcoImagePlugin.IcoFile(file)
    if not icon.entry:
        return 0
    # The entry that Pillow decodes.
    offset = icon.entry[icon.getentryindex(icon.entry[0].dim)].offset
    file.seek(offset)
    if data[offset : offset + 8] == _PNG:
        size = PngImagePlugin.PngImageFile(file).size
    else:
        # The height of a bitmap includes that of its mask.
        width, height = BmpImagePlugin.DibImageFile(file).size
        size = (width, (height + 1) // 2)
    return check_size(size, max_pixels, "an image in it claims")


def _check_icns(data, max_pixels):
    _check_png(data, max_pixels)
    file = CountedBytes(data)
    icon = IcnsImagePlugin.IcnsFile(file)
    n_pixels = 0
    for name, _ in icon.SIZES[icon.bestsize()]:
        start, length = icon.dct.get(name, (0, 0))
        inner = data[start : start + length]
        if inner.startswith(_PNG):
            size = PngImagePlugin.PngImageFile(CountedBytes(inner)).size
            n_pixels += check_size(size, max_pixels, "an image in it claims")
        elif inner.startswith(_JPEG_2000):
            n_pixels += _check_jpeg_2000(inner, max_pixels)
    return n_pixels


# -- Others

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_2000 = (b"\xff\x4f\xff\x51", b"\r\n\x87\n", b"\0\0\0\x0cjP  \r\n\x87\n")
# A decoder keeps some kilobytes for each component of each tile.
_MAX_TILES = 4096
_MAX_COMPONENTS = 4  # the most that Pillow reads
# A decoder keeps hundreds of bytes for each code-block and each packet. A header of 88
# bytes can claim several of these per pixel. Most code-blocks have 4,096 pixels, and
# the smallest have 16.
_MAX_BLOCKS = 2**16
_VALUES_PER_BLOCK = 128

_SIZES_OF_IMAGE, _START_OF_TILE, _START_OF_DATA = 0xFF51, 0xFF90, 0xFF93
_CODING, _CODING_OF_COMPONENT = 0xFF52, 0xFF53
_MAX_MARKERS = 2**18


def _check_jpeg_2000(data, max_pixels):
    # The size in a box may differ from that of the image in it.
    start, n_pixels = -1, 0
    while (start := data.find(b"\xff\x4f\xff\x51", start + 1)) >= 0:
        if len(data) < start + 42:
            break
        numbers = struct.unpack_from(">8LH", data, start + 8)
        right, bottom, left, top, tile_width, tile_height, x, y, n_components = numbers
        size = right - left, bottom - top
        claim = check_size(size, max_pixels, "an image in it claims")
        n_pixels = max(n_pixels, claim)
        if n_components > _MAX_COMPONENTS:
            raise BadImageError(
                f"it claims {n_components} components, more than {_MAX_COMPONENTS}"
            )
        if not tile_width or not tile_height:
            continue  # OpenJPEG refuses it
        columns = -(-(right - x) // tile_width)
        n_tiles = columns * -(-(bottom - y) // tile_height)
        if n_tiles > _MAX_TILES:
            raise BadImageError(f"it claims {n_tiles} tiles, more than {_MAX_TILES}")
        tile = min(size[0], tile_width), min(size[1], tile_height)
        limit = _MAX_BLOCKS + size[0] * size[1] * n_components // _VALUES_PER_BLOCK
        n_layers, styles = _coding_styles(data, start)
        for style in styles:
            n_blocks = _count_blocks(*tile, n_layers, *style)
            if n_tiles * n_components * n_blocks > limit:
                raise BadImageError(
                    f"it claims more than {limit} code-blocks and packets, which would "
                    "take too much time and memory"
                )
    return n_pixels


def _coding_styles(data, start):
    """Return how a JPEG 2000 and its tiles are divided, according to all its headers.

    Returns
    -------
    n_layers : int
        The largest number of layers.
    styles : set of tuple
        The width and height of a code-block, as exponents of 2, and a tuple of the same
        for the precincts of each resolution, the lowest first.
    """
    n_layers, styles = 1, set()
    position, end, in_header = start + 2, len(data), True
    for _ in range(_MAX_MARKERS):
        if position + 4 > len(data):
            return n_layers, styles
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _START_OF_DATA and in_header:
            position, in_header = max(end, position + 2), False
            continue
        if marker == _START_OF_TILE:
            n_bytes = int.from_bytes(data[position + 6 : position + 10], "big")
            end, in_header = position + n_bytes if n_bytes else len(data), True
        elif not in_header:
            return n_layers, styles
        elif not _SIZES_OF_IMAGE - 1 <= marker <= 0xFF7F or length < 2:
            # OpenJPEG may skip a different number of bytes.
            raise BadImageError(f"it has an unknown marker, {marker:04x}")
        content = data[position + 4 : position + 2 + length]
        if marker == _CODING and len(content) >= 10:
            n_layers = max(n_layers, int.from_bytes(content[2:4], "big"))
            styles.add(_coding_style(content[0], content[5:]))
        elif marker == _CODING_OF_COMPONENT and len(content) >= 7:
            styles.add(_coding_style(content[1], content[2:]))
        position += 2 + length
    raise BadImageError(f"it has more than {_MAX_MARKERS} markers")


def _coding_style(flags, values):
    precincts = [(15, 15)] * (min(values[0], 32) + 1)
    if flags & 1:
        given = [(value & 15, value >> 4) for value in values[5:]]
        precincts[: len(given)] = given[: len(precincts)]
    return (values[1] % 16 + 2, values[2] % 16 + 2), tuple(precincts)


def _count_blocks(width, height, n_layers, block, precincts):
    """Return the number of code-blocks and packets of one component of a tile."""
    n_blocks = 0
    for resolution, precinct in enumerate(precincts):
        shift = len(precincts) - 1 - resolution
        sides = -(-width >> shift), -(-height >> shift)
        # Code-blocks do not cross precincts. In the bands of all resolutions except the
        # lowest, precincts have half the size.
        half = resolution > 0
        smaller = [
            min(b, max(p - half, 0)) for b, p in zip(block, precinct, strict=True)
        ]
        n_blocks += _n_parts(sides, smaller) + n_layers * _n_parts(sides, precinct)
    return n_blocks


def _n_parts(sides, powers):
    return math.prod(-(-side >> p) for side, p in zip(sides, powers, strict=True))


# Color profiles: there may be one. Each can become a megabyte, which Pillow discards.
_MAX_PROFILES = 16  # of these bytes, which may also occur in the data by chance


def _check_png(data, max_pixels):
    if data.count(b"iCCP") > _MAX_PROFILES:
        raise BadImageError(f"it has more than {_MAX_PROFILES} color profiles")


# Pillow copies up to a megabyte of numbers for each.
_MAX_COMMENTS = 1024


def _check_plain_netpbm(data, max_pixels):
    if data.count(b"#") > _MAX_COMMENTS:
        raise BadImageError(f"it has more than {_MAX_COMMENTS} comments")


# Of EXIF blocks, of which an AVIF has one. Pillow reads its tags as it opens the file.
_MAX_BLOCKS_OF_EXIF = 16
_AVIF_BRAND = re.compile(rb"avi[fs]")
_MAX_BYTES_OF_BRANDS = 2**16
_START_OF_EXIF = re.compile(rb"II(?:\*\0|\0\*)|MM(?:\*\0|\0\*)")


def _check_avif(data, max_pixels):
    if data[4:8] != b"ftyp":
        return 0
    # Wherever it lies. By chance, such bytes and an offset within the file are rare.
    view = memoryview(data)
    for n_blocks, found in enumerate(_START_OF_EXIF.finditer(data)):
        if n_blocks == _MAX_BLOCKS_OF_EXIF:
            raise BadImageError(f"it has more than {n_blocks} EXIF blocks")
        _check_tags(view[found.start() :])
    if not _AVIF_BRAND.search(data, 8, _MAX_BYTES_OF_BRANDS):
        return 0
    try:
        sizes = list(av1_sizes(data))
    except Exception:
        # It is refused, because the decoder may see more in it.
        sizes = []
    if not sizes:
        raise BadImageError("it is damaged: its AV1 data was not found")
    return max(check_size(one, max_pixels, "an image in it claims") for one in sizes)


def _check_webp(data, max_pixels):
    if data[8:12] != b"WEBP" or len(data) < 30:
        return

    def number(start, end):
        return int.from_bytes(data[start:end], "little")

    kind = data[12:16]
    if kind == b"VP8X":
        size = number(24, 27) + 1, number(27, 30) + 1
    elif kind == b"VP8L":
        bits = number(21, 25)
        size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        size = number(26, 28) & 0x3FFF, number(28, 30) & 0x3FFF
    check_size(size, max_pixels)


_CHECKS = (
    (b"\xff\xd8", _check_jpeg),
    (_PNG, _check_png),
    (b"RIFF", _check_webp),
    ((b"II", b"MM"), _check_tiff),
    (b"\0\0\1\0", _check_ico),
    (b"icns", _check_icns),
    (_JPEG_2000, _check_jpeg_2000),
    ((b"P1", b"P2", b"P3"), _check_plain_netpbm),
    (b"", _check_avif),
)
