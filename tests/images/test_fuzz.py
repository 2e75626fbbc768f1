"""Fuzzing: all bytes give pixels or a BadImageError."""

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat.exceptions import BadImageError
from skdeepfeat.images import make_image_source
from skdeepfeat.images._decode import decode_bytes

MAX_PIXELS = 10**5
WILD = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def encode(format, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if format == "GIF":
        options = {"save_all": True, "append_images": [image.rotate(90)], **options}
    exif = Image.Exif()
    exif[0x0112] = 6
    if format in ("JPEG", "PNG", "WEBP", "TIFF"):
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


VALID = {format: encode(format) for format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF")}
# The starts by which Pillow's plugins know their files: random bytes behind one get
# much further than random bytes alone.
STARTS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\0\0\0\0WEBPVP8 ",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"P6 4 4 255\n",
    b"Pf\n",
    b"8BPS",
    b"\0\0\1\0",
    b"\0\0\2\0",
    b"\n\5\1\x08",
    b"\x01\xda",
    b"DDS ",
    b"qoif",
    b"icns",
    b"\x59\xa6\x6a\x95",
    b"SIMPLE",
    b"#define a_width 8",
    b"/* XPM */",
    b"%!PS",
]


def check(data):
    """Decode, and return the pixels or the error."""
    try:
        pixels = decode_bytes(data, MAX_PIXELS)
    except BadImageError as error:
        assert error.cause
        return error
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 2 or pixels.shape[2:] == (3,)
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    return pixels


@settings(WILD, max_examples=300)
@given(st.sampled_from(STARTS), st.binary(max_size=300))
@example(b"", b"")
def test_random_bytes(start, rest):
    assert isinstance(check(start + rest), (np.ndarray, BadImageError))


@st.composite
def mutilated(draw, format):
    """Return a valid file with bytes changed, cut out, put in or cut off."""
    data = bytearray(VALID[format])
    for _ in range(draw(st.integers(1, 6))):
        # Most of what can go wrong is decided in the header.
        limit = draw(st.sampled_from([40, 200, len(data)]))
        at = draw(st.integers(0, max(0, min(limit, len(data)) - 1)))
        change = draw(st.sampled_from(["set", "cut", "insert", "end"]))
        if change == "set":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif change == "cut":
            del data[at : at + draw(st.integers(1, 20))]
        elif change == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=20))
        else:
            del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("format", VALID)
def test_mutilated_files(format):
    outcomes = []

    @settings(WILD, max_examples=200)
    @given(mutilated(format))
    def run(data):
        outcomes.append(type(check(data)))

    run()
    # Otherwise the mutilation would be too mild, or too harsh, to show anything.
    assert outcomes.count(BadImageError) > 20


@pytest.mark.parametrize("format", VALID)
def test_every_truncation(format):
    data = VALID[format]
    ends = range(0, len(data), max(1, len(data) // 120))
    broken = [isinstance(check(data[:end]), BadImageError) for end in ends]
    # The last bytes of a file may be dispensable, its first half is not.
    assert all(broken[: len(broken) // 2])
    assert isinstance(check(data), np.ndarray)


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.floats(),
            st.integers(),
            st.text(max_size=5),
            st.binary(max_size=30),
            st.sampled_from(list(VALID.values())),
            st.lists(st.integers(), max_size=3),
            st.tuples(st.integers(0, 3), st.integers(0, 3)).map(np.zeros),
            st.just(np.float32([[2.0]])),
            st.just(Image.new("L", (2, 2))),
        ),
        max_size=6,
    )
)
def test_rows_never_shift_whatever_is_in_the_list(elements):
    elements = [np.ones((2, 2), dtype=np.uint8), *elements]
    source = make_image_source(elements)
    digests, failures = source.digests()
    assert len(source) == len(digests) == len(elements)
    for row, element in enumerate(elements):
        assert (digests[row] is None) == (row in failures)
        if row in failures:
            assert failures[row].index == row
        if isinstance(element, bytes) and element:
            assert digests[row] == digest_bytes(element)
        try:
            source.pixels(row)
        except BadImageError as error:
            assert error.index == row
        else:
            assert digests[row] is not None
