"""Files of countless tiny parts, which Pillow would follow for minutes."""

import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from skdeepfeat.exceptions import BadImageError
from skdeepfeat.images import make_image_source
from skdeepfeat.images._decode import decode_bytes

N = 300_000
FRAME = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2\x44\1\0;"
TABLE = bytes(4 * 256)


def png_chunk(kind, data=b""):
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def png(before):
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0\7")) + png_chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before + pixels


def gif(before):
    return (
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + before + FRAME
    )


def bmp(runs):
    header = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 8, 1, 0, 0, 0, 256, 0)
    start = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + len(TABLE))
    return start + header + TABLE + runs + b"\1\7\0\1"


def psd(resources):
    header = struct.pack(">H6xHIIHH", 1, 1, 1, 1, 8, 1) + bytes(4)
    sized = struct.pack(">I", len(resources)) + resources
    return b"8BPS" + header + sized + bytes(4) + struct.pack(">H", 0) + b"\7"


SMALL = {
    "PNG": lambda n: png(png_chunk(b"aaAa") * n),
    "GIF": lambda n: gif(b"!\xfe\1a\0" * n),
    "PPM": lambda n: b"P5\n#" + b" " * n + b"\n1 1\n255\n\7",
    "BMP": lambda n: bmp(b"\0\0" * n),
    "PSD": lambda n: psd((b"8BIM" + struct.pack(">HHI", 1, 0, 0)) * n),
}


@pytest.mark.parametrize("format", SMALL)
def test_countless_parts(format):
    few = SMALL[format](10)
    assert Image.open(io.BytesIO(few)).format == format
    assert decode_bytes(few, 100).size in (1, 3)
    with pytest.raises(BadImageError, match="too many tiny parts"):
        decode_bytes(SMALL[format](N), 100)


def test_more_color_profiles_than_one():
    profile = png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**10)))
    assert decode_bytes(png(profile), 100) == 7
    with pytest.raises(BadImageError, match="16 color profiles"):
        decode_bytes(png(profile * 17), 100)


def test_more_strips_than_any_file_has():
    tags = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 1), (273, 4, N, 8), (278, 4, 1, 1), (279, 4, N, 8)]
    table = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    data = b"II*\0" + struct.pack("<LH", 8, len(tags)) + table + bytes(4 * N)
    with pytest.raises(BadImageError, match=f"{N} strips or tiles"):
        decode_bytes(data, 100)


def test_a_large_file_before_it_is_read(tmp_path):
    path = tmp_path / "a.ppm"
    path.write_bytes(SMALL["PPM"](N))
    with open(path, "r+b") as file:
        file.truncate(2**25)
    source = make_image_source([str(path)])
    _, failures = source.digests()
    assert "too many tiny parts" in failures[0].cause


@pytest.mark.parametrize(
    "start",
    [
        b"\x89PNG\r\n\x1a\n" + struct.pack(">L", 2**29) + b"tEXt",
        struct.pack(">LLLLL4sL", 2**29, 2, 4, 4, 1, b"GIMP", 1),
        b"/* XPM */\n",
        b"Image type: L\n",
    ],
)
def test_a_header_as_long_as_the_file(start, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(start)
    os.truncate(path, 2**27)
    tracemalloc.start()
    try:
        _, failures = make_image_source([str(path)]).digests()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(failures[0], BadImageError)
    assert most < 2**26 + 2**24


def test_a_large_texture_is_read(tmp_path):
    path, side = tmp_path / "a.ftu", 3400
    header = struct.pack("<8L", 1, side, side, 1, 1, 1, 32, 3 * side * side)
    path.write_bytes(b"FTEX" + header)
    os.truncate(path, 2**26)
    source = make_image_source([str(path)])
    assert source.digests()[1] == {}
    assert source.pixels(0).shape == (side, side, 3)


def test_run_lengths_of_noise_are_no_tiny_parts():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)
    rows = [b"".join(b"\1" + bytes([one]) for one in row) for row in pixels[::-1]]
    header = struct.pack("<IiiHHIIiiII", 40, 300, 300, 1, 8, 1, 0, 0, 0, 256, 0)
    start = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + len(TABLE))
    grays = b"".join(bytes([i, i, i, 0]) for i in range(256))
    data = start + header + grays + b"\0\0".join(rows) + b"\0\1"
    decoded = decode_bytes(data, 10**6)
    np.testing.assert_array_equal(
        decoded if decoded.ndim == 2 else decoded[..., 0], pixels
    )
