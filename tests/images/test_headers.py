"""Files that are made to need much memory or time are found by their headers."""

import io
import struct
import subprocess
import sys
import tracemalloc
import types
import zlib

import numpy as np
import pytest
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from skdeepfeat.exceptions import BadImageError
from skdeepfeat.images import make_image_source
from skdeepfeat.images._av1_sizes import av1_sizes
from skdeepfeat.images._decode import (
    READ_FORMATS,
    REFUSED_FORMATS,
    check_large_file,
    decode_bytes,
    readable_formats,
)
from skdeepfeat.images._headers import is_sane_exif

MAX_PIXELS = 10**5


def refusal(data, max_pixels=MAX_PIXELS):
    with pytest.raises(BadImageError) as caught:
        decode_bytes(data, max_pixels)
    return caught.value.cause


# -- Which formats are read


def test_every_format_of_pillow_is_decided_on():
    readable_formats()  # has Pillow import its plugins
    known = {
        name
        for name, (factory, _) in Image.OPEN.items()
        if factory.__module__.startswith("PIL.")
    }
    assert known <= READ_FORMATS | REFUSED_FORMATS
    assert not READ_FORMATS & REFUSED_FORMATS


def test_formats_of_other_packages_are_read_once_registered(monkeypatch, encode, rgb):
    class Other(Image.Image):
        __module__ = "other"

    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN, "OTHER": (Other, None)})
    monkeypatch.setattr(Image, "ID", [*Image.ID, "OTHER"])
    assert "OTHER" in readable_formats()


def iptc(content):
    """Return an IPTC file that holds another file."""

    def field(record, number, data):
        return bytes([0x1C, record, number]) + struct.pack(">H", len(data)) + data

    return b"".join(
        [
            field(3, 20, struct.pack(">H", 8)),
            field(3, 30, struct.pack(">H", 8)),
            field(3, 60, b"\1\0"),
            field(3, 120, b"\5"),
            field(8, 10, content),
        ]
    )


POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
"""


@pytest.mark.parametrize("content", [POSTSCRIPT, b"\xff\xd8\xff", b"P5 8 8 255 "])
def test_a_file_in_an_iptc_file_is_not_opened(content, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert "IPTC" in refusal(iptc(content)) or "not an image" in refusal(iptc(content))


def test_postscript_is_not_run(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert "EPS files are not read" in refusal(POSTSCRIPT)


def test_blp_files_hold_jpegs(rgb, encode):
    data = encode(Image.fromarray(rgb).convert("P"), "BLP")
    assert "BLP files are not read" in refusal(data)


# -- Sizes that are not in the first header


def bomb(side=2000):
    """Return a PNG of more pixels than are allowed, and few bytes."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def icon(content, bits=32):
    """Return an ICO file that says it holds 16 x 16 pixels."""
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, bits, len(content), 22)
    return b"\0\0\1\0\1\0" + entry + content


def test_an_icon_of_many_pixels():
    assert "2000 x 2000 pixels" in refusal(icon(bomb()))
    header = struct.pack("<IiiHHIIiiII", 40, 2000, 4000, 1, 32, 0, 0, 0, 0, 0, 0)
    assert "2000 x 2000 pixels" in refusal(icon(header + bytes(100)))


def test_an_icon_of_many_pixels_behind_a_small_header():
    data = bomb()
    small = struct.pack(">II5B", 16, 16, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + small
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + small))
    assert "2000 x 2000" in refusal(icon(data[:8] + chunk + data[8:]))


@pytest.mark.parametrize("name", [b"ic07", b"ic10", b"icp4"])
def test_an_apple_icon_of_many_pixels(name):
    content = bomb()
    block = name + struct.pack(">I", len(content) + 8) + content
    data = b"icns" + struct.pack(">I", len(block) + 8) + block
    assert "2000 x 2000 pixels" in refusal(data)


@pytest.mark.parametrize("format", ["ICO", "ICNS"])
def test_ordinary_icons_are_read(format, encode):
    image = Image.new("RGBA", (64, 64), (200, 90, 30, 255))
    pixels = decode_bytes(encode(image, format), 2 * 10**6)
    assert (pixels == (200, 90, 30)).all()


def tiff(tags, order="<", big=False):
    """Return a TIFF of a table of tags {number: (type, count, value)} alone."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        start = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, 16)
        start += struct.pack(f"{order}Q", len(tags))
        form = f"{order}HHQ"
    else:
        start = mark + struct.pack(f"{order}HLH", 42, 8, len(tags))
        form = f"{order}HHL"
    entries = []
    for tag, (kind, count, value) in sorted(tags.items()):
        entries.append(struct.pack(form, tag, kind, count))
        field = struct.pack(order + ("H" if kind == 3 else "L"), value)
        entries.append(field.ljust(8 if big else 4, b"\0"))
    return start + b"".join(entries) + bytes(8)


TILED = {
    256: (4, 1, 64),
    257: (4, 1, 64),
    258: (3, 1, 8),
    259: (3, 1, 8),  # deflate
    262: (3, 1, 1),
    277: (3, 1, 1),
    322: (4, 1, 30000),
    323: (4, 1, 30000),
    324: (4, 1, 8),
    325: (4, 1, 8),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tile_of_many_pixels(order, big):
    assert "tile of it claims 30000 x 30000" in refusal(tiff(TILED, order, big))


def test_tags_that_name_the_same_data_again_and_again():
    data = bytes(2**20)
    tags = {tag: (1, 2**20, 1000) for tag in range(40000, 40040)}
    assert "its tags claim" in refusal(tiff(tags) + data)
    assert not is_sane_exif(b"Exif\0\0" + tiff(tags) + data)
    assert is_sane_exif(b"Exif\0\0" + tiff({274: (3, 1, 6)}))
    assert is_sane_exif(b"")


def test_a_canvas_of_many_pixels(rgb, encode):
    size = (16383 - 1).to_bytes(3, "little") * 2
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size
    data = b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk
    assert "16383 x 16383 pixels" in refusal(data)
    for lossless in (False, True):
        decoded = decode_bytes(encode(rgb, "WEBP", lossless=lossless), MAX_PIXELS)
        assert decoded.shape == rgb.shape
        whole = encode(rgb, "WEBP", lossless=lossless)
        assert "17 x 13 pixels" in refusal(whole, 100)


def test_another_size_inside_of_a_jpeg_2000(rgb, encode):
    data = bytearray(encode(rgb, "JPEG2000"))
    start = data.index(b"\xff\x4f\xff\x51")
    struct.pack_into(">LL", data, start + 8, 60000, 60000)
    assert "60000 x 60000 pixels" in refusal(bytes(data))


def test_many_tiles_in_a_jpeg_2000(encode):
    data = bytearray(encode(np.zeros((200, 200), np.uint8), "JPEG2000"))
    start = data.index(b"\xff\x4f\xff\x51")
    struct.pack_into(">LL", data, start + 24, 1, 1)
    assert "40000 tiles" in refusal(bytes(data))


def marked(marker, content):
    return struct.pack(">HH", marker, len(content) + 2) + content


def jpeg_2000(side, coding, n_components=3, in_tile=b"", in_header=b""):
    """Return a JPEG 2000 that has only headers."""
    size = struct.pack(">HLLLLLLLLH", 0, side, side, 0, 0, side, side, 0, 0, 0)
    size = size[:-2] + struct.pack(">H", n_components) + b"\7\1\1" * n_components
    n_bytes = 14 + len(in_tile)
    tile = (
        marked(0xFF90, struct.pack(">HLBB", 0, n_bytes, 0, 1)) + in_tile + b"\xff\x93"
    )
    parts = marked(0xFF51, size), in_header, marked(0xFF52, coding)
    quantization = marked(0xFF5C, b"\x40" + b"\x40" * 97)
    return b"\xff\x4f" + b"".join(parts) + quantization + tile + b"\xff\xd9"


def coding(precincts=b"", levels=0, block=4, n_layers=1):
    start = bytes([bool(precincts), 0]) + struct.pack(">H", n_layers)
    return start + bytes([0, levels, block, block, 0, 1]) + precincts


@pytest.mark.parametrize(
    "data",
    {
        "precincts": jpeg_2000(1000, coding(b"\0")),
        "precincts of a tile": jpeg_2000(
            1000, coding(), in_tile=marked(0xFF52, coding(b"\0"))
        ),
        "precincts of a component": jpeg_2000(
            1000, coding(), in_tile=marked(0xFF53, b"\0\1\0\4\4\0\1\0")
        ),
        "small blocks": jpeg_2000(3000, coding(block=0)),
        "layers": jpeg_2000(1000, coding(b"\x55\x55", levels=1, n_layers=65535)),
    }.items(),
    ids=lambda item: item[0],
)
def test_many_code_blocks_in_a_jpeg_2000(data):
    assert "code-blocks and packets" in refusal(data[1], 10**8)


def test_many_components_in_a_jpeg_2000():
    assert "16384 components" in refusal(jpeg_2000(64, coding(), 16384))


def test_an_unknown_marker_in_a_jpeg_2000():
    """OpenJPEG searches its content for the next marker, which may be another size."""
    hidden = marked(0xFF30, marked(0xFF52, coding(b"\0")))
    assert "unknown marker, ff30" in refusal(jpeg_2000(64, coding(), in_header=hidden))


@pytest.mark.parametrize(
    "options",
    [
        {"num_resolutions": 1},
        {"tile_size": (64, 64), "codeblock_size": (16, 16)},
        {"precinct_size": (32, 32), "codeblock_size": (4, 4), "no_jp2": True},
        {"quality_layers": [40, 20, 10, 5, 1], "progression": "RPCL", "plt": True},
    ],
)
def test_ordinary_jpeg_2000_are_read(options, encode):
    image = Image.effect_noise((200, 150), 50).convert("RGBA")
    assert decode_bytes(encode(image, "JPEG2000", **options), 10**6).shape[0] == 150


def test_compressed_fits_files(encode):
    cards = {
        "SIMPLE": "T",
        "BITPIX": "8",
        "NAXIS": "0",
        "END": "",
        "XTENSION": "'BINTABLE'",
        "BITPIX ": "8",
        "NAXIS ": "2",
        "NAXIS1": "8",
        "NAXIS2": "8",
        "ZIMAGE": "T",
        "ZCMPTYPE": "'GZIP_1  '",
        "ZBITPIX": "8",
        "ZNAXIS": "2",
        "ZNAXIS1": "8",
        "ZNAXIS2": "8",
        "END ": "",
    }
    parts, part = [], b""
    for name, value in cards.items():
        equals = "= " if value else "  "
        part += f"{name.strip():8}{equals}{value:70}".encode()
        if name.strip() == "END":
            parts.append(part.ljust(2880))
            part = b""
    assert "FITS" in refusal(b"".join(parts) + bytes(2880))


# -- Scans


def with_scans(n_scans, side=64):
    """Return a progressive JPEG of many scans, which refine nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    starts = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    last = data[starts[-1] : -2]
    return data[:-2] + last * (n_scans - len(starts)) + data[-2:]


def test_a_jpeg_of_many_scans():
    assert "more than 100 scans" in refusal(with_scans(1500))
    assert "SKDEEPFEAT_MAX_JPEG_SCANS" in refusal(with_scans(101))
    assert decode_bytes(with_scans(100), MAX_PIXELS).shape == (64, 64)


def test_more_scans_on_request(monkeypatch):
    monkeypatch.setenv("SKDEEPFEAT_MAX_JPEG_SCANS", "200")
    assert decode_bytes(with_scans(150), MAX_PIXELS).shape == (64, 64)
    assert "more than 200 scans" in refusal(with_scans(201))
    for wrong in ("none", "0", "-1", "1.5"):
        monkeypatch.setenv("SKDEEPFEAT_MAX_JPEG_SCANS", wrong)
        with pytest.raises(ValueError, match="SKDEEPFEAT_MAX_JPEG_SCANS"):
            make_image_source(["a.jpg"])


def test_markers_that_begin_no_scan(encode, rgb):
    plain = encode(rgb, "JPEG")
    decoded = decode_bytes(plain, MAX_PIXELS)
    markers = b"\xff\xda" * 1000
    comment = b"\xff\xfe" + struct.pack(">H", len(markers) + 2) + markers
    for data in (
        plain[:2] + comment + plain[2:],  # as in a thumbnail
        plain + markers,  # as in a film that follows a photo
    ):
        np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), decoded)


# -- Bytes

MEASURED = """
import resource, sys
import numpy as np
from skdeepfeat._utils._preprocessing import Preprocessing
from skdeepfeat.images import make_image_source
source = make_image_source([sys.argv[1]])
source.fitted(0, Preprocessing(32, (32, 32)))
small = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = make_image_source([sys.argv[2]])
source.fitted(0, Preprocessing(32, (32, 32)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - small)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_conversion_takes_little_more_than_the_image(mode, tmp_path):
    side = 3000
    for name, length in (("small", 8), ("large", side)):
        image = Image.new(mode, (length, length))
        image.save(tmp_path / f"{name}.png")
    command = [sys.executable, "-c", MEASURED]
    paths = [str(tmp_path / "small.png"), str(tmp_path / "large.png")]
    done = subprocess.run([*command, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Kilobytes. Pillow's 4 bytes a pixel, our 3, and as many again in torch's resize.
    assert int(done.stdout) * 1024 < 12 * side * side


LIMITED = """
import resource, sys
from skdeepfeat.images import make_image_source
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
source = make_image_source(sys.argv[1:])
digests, failures = source.digests()
print(*[error.cause for error in failures.values()], sep="\\n")
"""


@pytest.mark.slow
def test_a_huge_file_is_not_read(tmp_path):
    paths = []
    for name, size in (("a.png", 3 * 2**30), ("b.png", 2**29)):
        with open(tmp_path / name, "wb") as file:
            file.write(bomb(20000)[:200])
            file.truncate(size)  # takes no space on the disk
        paths.append(str(tmp_path / name))
    command = [sys.executable, "-c", LIMITED, *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    huge, large = done.stdout.splitlines()
    assert "bytes" in huge and "max_pixels" in huge
    assert "20000 x 20000 pixels" in large or "claims 400000000 pixels" in large


def test_more_bytes_than_pixels_may_have(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(bomb(100))
    with open(path, "r+b") as file:
        file.truncate(2**26 + 8 * MAX_PIXELS + 1)
    source = make_image_source([str(path)], max_pixels=MAX_PIXELS)
    _, failures = source.digests()
    assert f"more than {2**26 + 8 * MAX_PIXELS} bytes" in failures[0].cause
    with pytest.raises(BadImageError, match="max_pixels must be raised"):
        source.pixels(0)


# -- Headers that take Pillow long to read


@pytest.mark.parametrize(
    "filler, what",
    [
        (b"\xff\xfe\0\2" * 2000, "1024 segments"),
        (b"\xff\xe1\0\x09Exif\0\0a" * 2000, "1024 segments"),
        (b"\xff" * 100_000, "65536 bytes"),
    ],
)
def test_a_jpeg_of_many_segments_or_fill_bytes(encode, rgb, filler, what):
    data = encode(rgb, "JPEG")
    assert what in refusal(data[:2] + filler + data[2:])
    decode_bytes(data[:2] + b"\xff" * 100 + data[2:], MAX_PIXELS)


def test_a_plain_netpbm_of_many_comments():
    assert "1024 comments" in refusal(b"P3\n2 2\n255\n" + b"#\n" * 2000)
    data = b"P3\n#a\n1 1\n255\n1 2 3\n"
    np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), [[[1, 2, 3]]])


def classic_tiff(*entries):
    """Return a TIFF of entries (tag, type, count, value or offset) and two numbers."""
    table = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    start = b"II*\0" + struct.pack("<LH", 8, len(entries)) + table + bytes(4)
    return start.ljust(200, b"\0") + struct.pack("<QQ", 32000, 32000)


def test_the_sides_of_a_tile_may_be_outside_of_the_table():
    sides = [(322, 16, 1, 200), (323, 16, 1, 208)]
    assert "tile of it claims 32000 x 32000" in refusal(classic_tiff(*sides))


def test_many_rational_numbers_in_a_tiff():
    assert "100000 rational numbers" in refusal(RATIONALS)
    # What claims more than there is costs nothing.
    assert "rational" not in refusal(RATIONALS[:1000])


# Its resolution consists of many numbers, of which Pillow makes objects.
RATIONALS = classic_tiff((274, 3, 1, 6), (282, 5, 100_000, 8), (296, 3, 1, 2))
RATIONALS += bytes(range(1, 251)) * 3200


def exif_segments(exif):
    """Return EXIF as segments of a JPEG."""
    parts = [exif[i : i + 60_000] for i in range(0, len(exif), 60_000)]
    sizes = [struct.pack(">H", len(part) + 8) for part in parts]
    pairs = zip(sizes, parts, strict=True)
    return b"".join(b"\xff\xe1" + size + b"Exif\0\0" + part for size, part in pairs)


def test_exif_of_a_jpeg_that_is_long_or_claims_much(encode, rgb):
    data = encode(rgb, "JPEG")

    def with_header(header):
        return data[:2] + header + data[2:]

    many_tags = classic_tiff(*((tag, 7, 60_000, 8) for tag in range(1, 2000)))
    many_tags = many_tags.ljust(60_000, b"\1")
    index = b"MPF\0" + many_tags
    index = b"\xff\xe2" + struct.pack(">H", len(index) + 2) + index
    for header, what in (
        (exif_segments(RATIONALS), "100000 rational numbers"),
        (exif_segments(b"Exif\0\0" + RATIONALS), "100000 rational numbers"),
        (exif_segments(bytes(60_000 * 17)), "more than 16 segments"),
        (exif_segments(many_tags), "its tags claim"),
        (index, "its tags claim"),
        (b"\xff\xd9" + exif_segments(RATIONALS), "100000 rational numbers"),
        (b"\xff\xd9" + b"\xff\xfe\0\2" * 2000, "1024 segments"),
        (b"\xff\xf0\xff\xff" + b"\xff\xfe\0\2" * 2000, "1024 segments"),
    ):
        assert what in refusal(with_header(header))
    upright = decode_bytes(data, MAX_PIXELS)
    decode_bytes(with_header(index + b"\xff\xe2\0\x0eMPF\0" + bytes(8)), MAX_PIXELS)
    for exif in (RATIONALS[:50_000], RATIONALS[:60], bytes(60_000 * 15)):
        decoded = decode_bytes(with_header(exif_segments(exif)), MAX_PIXELS)
        assert sorted(decoded.shape) == sorted(upright.shape)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_exif_of_an_avif_that_claims_much(encode, rgb):
    empty = classic_tiff().ljust(len(RATIONALS), b"\1")
    data = encode(rgb, "AVIF", exif=empty)
    assert decode_bytes(data, MAX_PIXELS).shape == rgb.shape
    assert "100000 rational numbers" in refusal(data.replace(empty, RATIONALS))
    many = (classic_tiff() * 20).ljust(len(RATIONALS), b"\1")
    assert "16 EXIF blocks" in refusal(data.replace(empty, many))
    exif = Image.Exif()
    exif[274] = 6
    turned = decode_bytes(encode(rgb, "AVIF", exif=exif), MAX_PIXELS)
    assert turned.shape == (rgb.shape[1], rgb.shape[0], 3)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_avif_of_other_sizes_than_it_claims(several, mode):
    buffer = io.BytesIO()
    image = Image.new(mode, (1000, 600))
    options = {"save_all": True, "append_images": [image]} if several else {}
    image.save(buffer, "AVIF", **options)
    data = buffer.getvalue()
    assert set(map(tuple, av1_sizes(data))) == {(1000, 600)}
    assert decode_bytes(data, 600_000).shape == (600, 1000, 3)
    small = data.replace(struct.pack(">LL", 1000, 600), struct.pack(">LL", 16, 16))
    claim = struct.pack(">LL", 1000 << 16, 600 << 16)
    small = small.replace(claim, struct.pack(">LL", 16 << 16, 16 << 16))
    assert small != data
    assert "claims 1000 x 600 pixels" in refusal(small)
    taken = []
    decode_bytes(small, 600_000, types.SimpleNamespace(take=taken.append))
    assert min(taken) >= 16 * 600_000
    for damage in (data[:40] + bytes(len(data) - 40), data.replace(b"iloc", b"abcd")):
        assert "damaged" in refusal(damage)


def test_the_parts_of_an_avif_may_be_searched_for_so_long_only():
    """Tracks that all begin at the same data: a billion steps for half a megabyte."""
    n_tracks, data = 20_000, b"\x12\0" * 60_000  # units that are empty
    brand = struct.pack(">L4s4sL4s", 20, b"ftyp", b"avif", 0, b"avif")
    start = len(brand) + 20 * n_tracks
    track = struct.pack(">L4sLLL", 20, b"stco", 0, 1, start)
    assert "damaged" in refusal(brand + n_tracks * track + data)
    boxes = struct.pack(">L4s", 8, b"free") * 2**17
    assert "damaged" in refusal(brand + boxes)


def test_exif_of_a_large_avif_is_not_copied():
    brand = struct.pack(">L4s4sL4s", 20, b"ftyp", b"avif", 0, b"avif")
    data = brand + classic_tiff() * 10 + bytes(2**24)
    tracemalloc.start()
    try:
        assert "damaged" in refusal(data)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2**22


@pytest.mark.parametrize("key", ["Raw profile type exif", "exif", "transparency"])
def test_texts_of_a_png_that_pillow_takes_for_metadata(key, encode, rgb, monkeypatch):
    read = []
    texts = PngInfo()
    text = f"\nexif\n{len(RATIONALS)}\n{RATIONALS.hex()}"
    texts.add_text(key, RATIONALS.decode("latin-1") if key == "exif" else text)
    data = encode(rgb, "PNG", pnginfo=texts)
    monkeypatch.setattr(Image.Exif, "load", lambda exif, data: read.append(data))
    np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), rgb)
    assert not read


def test_what_pillow_logs_of_a_tiff_is_in_the_error_only(caplog):
    entries = [(256, 4, 1, 2), (257, 4, 1, 2), (258, 3, 1, 8), (259, 3, 1, 1)]
    entries += [(262, 3, 1, 1), (277, 3, 1, 65535)]
    assert refusal(classic_tiff(*entries))
    assert not caplog.records


def test_a_large_tiff_is_not_opened_before_its_header_is_checked(monkeypatch):
    def opened(*_, **__):
        raise AssertionError("it is opened")

    readable_formats()
    monkeypatch.setattr(Image, "open", opened)
    check_large_file(io.BytesIO(classic_tiff((700, 5, 100_000, 8))), MAX_PIXELS)


def test_memory_is_counted_for_what_is_decoded(encode):
    """A part of a file may be larger than the image that its header claims."""
    taken = []
    share = types.SimpleNamespace(take=taken.append)
    inner = encode(np.zeros((300, 300, 4), np.uint8), "PNG")
    decode_bytes(icon(inner), MAX_PIXELS, share)
    tile = zlib.compress(bytes(304 * 304))
    tags = {**TILED, 256: (4, 1, 16), 257: (4, 1, 16), 322: (4, 1, 304)}
    tags |= {323: (4, 1, 304), 324: (4, 1, 200), 325: (4, 1, len(tile))}
    decode_bytes(tiff(tags).ljust(200, b"\0") + tile, MAX_PIXELS, share)
    assert min(taken) >= 8 * 300 * 300


def test_a_size_that_is_no_number():
    header = b"Image type: L image\r\nImage size (x*y): nan*1\r\n"
    assert "no pixels" in refusal(header.ljust(511, b"\0") + b"\x1a" + bytes(9))
