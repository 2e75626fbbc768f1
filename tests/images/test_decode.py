"""Encoded images of every format and mode, and PIL images, to canonical pixels."""

import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import pytest
from PIL import ExifTags, Image, ImageOps
from sklearn.utils.parallel import Parallel, delayed

from skdeepfeat.exceptions import BadImageError
from skdeepfeat.images._decode import decode_bytes, decode_pil, readable_formats

MAX_PIXELS = 10**6


def over_white(rgba):
    rgba = rgba.astype(np.float64)
    share = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * share + 255 * (1 - share)).astype(np.uint8)


def png(width, height, depth, color_type, rows, chunks=b""):
    """Return a PNG written by hand, for what Pillow does not write."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    extra = b"".join(chunk(kind, data) for kind, data in chunks)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
def rgba(rgb):
    alpha = np.random.default_rng(4).integers(0, 256, rgb.shape[:2], dtype=np.uint8)
    alpha[:4] = 255
    alpha[4:6] = 0
    return np.dstack([rgb, alpha])


class TestFormats:
    @pytest.mark.parametrize(
        "format", ["PNG", "BMP", "TIFF", "PPM", "TGA", "PCX", "SGI", "DIB"]
    )
    def test_lossless_formats_give_the_pixels_back(self, format, rgb, gray, encode):
        np.testing.assert_array_equal(
            decode_bytes(encode(rgb, format), MAX_PIXELS), rgb
        )
        np.testing.assert_array_equal(
            decode_bytes(encode(gray, format), MAX_PIXELS), gray
        )

    @pytest.mark.parametrize("format", ["JPEG", "WEBP", "JPEG2000", "GIF", "ICO"])
    def test_other_formats_give_what_pillow_gives(self, format, rgb, encode):
        data = encode(rgb, format, sizes=[(17, 13)])
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), expected)

    def test_gray_jpeg_stays_gray(self, gray, encode):
        data = encode(gray, "JPEG")
        expected = np.asarray(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), expected)

    @pytest.mark.parametrize("container", [bytes, bytearray, memoryview])
    def test_any_bytes(self, container, rgb, encode):
        pixels = decode_bytes(container(encode(rgb)), MAX_PIXELS)
        np.testing.assert_array_equal(pixels, rgb)

    def test_adobe_cmyk_jpeg(self, rgb, encode):
        data = encode(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=100)
        pixels = decode_bytes(data, MAX_PIXELS)
        assert pixels.shape == rgb.shape
        # Inverted, as a reader that overlooks Adobe's convention gives it, it would
        # be off by 128 on average. The colors are noise, so JPEG itself is coarse.
        assert np.abs(pixels.astype(int) - rgb).mean() < 40

    @pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_the_first_frame_of_an_animation(self, format, encode):
        frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
        data = encode(
            frames[0], format, save_all=True, append_images=frames[1:], lossless=True
        )
        assert Image.open(io.BytesIO(data)).n_frames == 2
        assert (decode_bytes(data, MAX_PIXELS) == (255, 0, 0)).all()

    def test_formats_that_run_a_program_are_refused(self, rgb, encode):
        assert "EPS" not in readable_formats()
        with pytest.raises(BadImageError, match="EPS files are not read"):
            decode_bytes(encode(rgb, "EPS"), MAX_PIXELS)


class TestModes:
    def test_alpha_goes_over_white(self, rgba, encode):
        for format in ("PNG", "TIFF"):
            pixels = decode_bytes(encode(rgba, format), MAX_PIXELS)
            np.testing.assert_array_equal(pixels, over_white(rgba))

    def test_gray_with_alpha(self, rgba, encode):
        image = Image.merge("LA", [Image.fromarray(rgba[..., i]) for i in (0, 3)])
        expected = over_white(rgba[..., [0, 0, 0, 3]])[..., 0]
        np.testing.assert_array_equal(decode_bytes(encode(image), MAX_PIXELS), expected)
        np.testing.assert_array_equal(decode_pil(image, MAX_PIXELS), expected)

    def test_premultiplied_alpha(self, rgba):
        image = Image.fromarray(rgba).convert("RGBa")
        expected = over_white(np.asarray(image.convert("RGBA")))
        np.testing.assert_array_equal(decode_pil(image, MAX_PIXELS), expected)

    def test_palette(self, rgb, encode):
        image = Image.fromarray(rgb).quantize(16)
        expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(decode_bytes(encode(image), MAX_PIXELS), expected)

    @pytest.mark.parametrize("clear", [3, bytes([0, 64, 128, 255])])
    def test_palette_with_transparency(self, clear, rgb, encode):
        image = Image.fromarray(rgb).quantize(4)
        data = encode(image, transparency=clear)
        expected = over_white(np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")))
        index = np.asarray(image)
        assert (expected[index == (3 if clear == 3 else 0)] == 255).all()
        assert (expected != 255).any()
        np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), expected)

    def test_palette_and_alpha_channel(self, rgba):
        palette = Image.fromarray(rgba[..., :3]).quantize(16)
        alpha = Image.fromarray(rgba[..., 3])
        image = Image.merge("PA", [Image.fromarray(np.asarray(palette)), alpha])
        image.putpalette(palette.getpalette())
        colors = np.asarray(palette.convert("RGB"))
        expected = over_white(np.dstack([colors, rgba[..., 3]]))
        np.testing.assert_array_equal(decode_pil(image, MAX_PIXELS), expected)

    def test_one_transparent_color(self, rgb, gray, encode):
        expected = rgb.copy()
        expected[2, 3] = 255
        data = encode(rgb, transparency=tuple(int(v) for v in rgb[2, 3]))
        np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), expected)
        data = encode(gray, transparency=int(gray[0, 0]))
        expected = np.where(gray == gray[0, 0], 255, gray)
        np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), expected)

    def test_one_transparent_16_bit_gray(self):
        values = np.array([[0, 257, 1000], [65535, 30000, 257]], dtype=">u2")
        rows = [row.tobytes() for row in values]
        data = png(3, 2, 16, 0, rows, [(b"tRNS", struct.pack(">H", 257))])
        expected = np.rint(values.astype(float) / 257)
        expected[values == 257] = 255
        np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), expected)

    def test_one_bit(self, encode):
        bits = np.random.default_rng(5).integers(0, 2, (9, 11)).astype(bool)
        expected = np.where(bits, 255, 0)
        for format in ("PNG", "TIFF", "PPM"):
            data = encode(Image.fromarray(bits), format)
            np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), expected)
        data = png(8, 1, 1, 0, [b"\xa5"], [(b"tRNS", b"\0\0")])
        assert (decode_bytes(data, MAX_PIXELS) == 255).all()

    @pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
    def test_16_bit_gray_is_scaled_not_clipped(self, format, encode):
        values = np.linspace(0, 65535, 120).astype(np.uint16).reshape(10, 12)
        data = encode(values, format)
        expected = np.rint(values / 257)
        np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), expected)

    @pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
    def test_16_bit_pil_images(self, mode):
        values = np.array([[0, 300], [40000, 65535]])
        stored = values.astype(
            {"I": np.int32, "I;16B": np.dtype(">u2")}.get(mode, np.dtype("<u2"))
        )
        rawmode = {"I": "I"}.get(mode, mode.replace("L", ""))
        image = Image.frombuffer(mode, (2, 2), stored.tobytes(), "raw", rawmode, 0, 1)
        pixels = decode_pil(image, MAX_PIXELS)
        np.testing.assert_array_equal(pixels, np.rint(values / 257))

    @pytest.mark.parametrize("value", [-1, 65536])
    def test_32_bit_integers_beyond_16_bits(self, value):
        image = Image.fromarray(np.array([[0, value]], dtype=np.int32))
        assert image.mode == "I"
        with pytest.raises(BadImageError, match=str(value)):
            decode_pil(image, MAX_PIXELS)

    def test_float_images(self, encode):
        floats = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
        pixels = decode_bytes(encode(floats, "TIFF"), MAX_PIXELS)
        assert pixels.tolist() == [[0, 128, 255]]
        with pytest.raises(BadImageError, match=r"\[0, 1\].* 0 to 255"):
            decode_bytes(encode(floats * 255, "TIFF"), MAX_PIXELS)

    @pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
    def test_other_color_spaces(self, mode):
        flat = Image.new("RGB", (5, 4), (200, 90, 30))
        if mode == "LAB":
            from PIL import ImageCms

            profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
            image = ImageCms.applyTransform(
                flat, ImageCms.buildTransform(*profiles, "RGB", "LAB")
            )
        else:
            image = flat.convert(mode)
        assert image.mode == mode
        pixels = decode_pil(image, MAX_PIXELS)
        assert pixels.shape == (4, 5, 3)
        assert np.abs(pixels.astype(int) - (200, 90, 30)).max() <= 4

    def test_pil_images_share_their_pixels_with_arrays(self, rgb, gray):
        for pixels in (rgb, gray):
            image = Image.fromarray(pixels)
            np.testing.assert_array_equal(decode_pil(image, MAX_PIXELS), pixels)


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
    def test_files_are_turned_upright(self, orientation, format, rgb, encode):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        data = encode(rgb, format, exif=exif, lossless=True)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        assert (
            orientation == 1 or expected.shape != rgb.shape or (expected != rgb).any()
        )
        pixels = decode_bytes(data, MAX_PIXELS)
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, expected)

    @pytest.mark.parametrize("orientation", [3, 6])
    def test_gray_jpeg(self, orientation, gray, encode):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        data = encode(gray, "JPEG", exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), expected)

    def test_pil_images_are_turned_and_left_as_they_are(self, rgb, encode):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        image = Image.open(io.BytesIO(encode(rgb, "PNG", exif=exif)))
        pixels = decode_pil(image, MAX_PIXELS)
        np.testing.assert_array_equal(pixels, np.rot90(rgb, -1))
        assert image.size == (rgb.shape[1], rgb.shape[0])
        np.testing.assert_array_equal(np.asarray(image), rgb)
        assert image.getexif()[ExifTags.Base.Orientation] == 6

    def test_an_orientation_set_in_memory_counts(self, rgb):
        image = Image.fromarray(rgb)
        image.getexif()[ExifTags.Base.Orientation] = 3
        np.testing.assert_array_equal(decode_pil(image, MAX_PIXELS), rgb[::-1, ::-1])

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_an_unknown_orientation_is_ignored(self, orientation, rgb, encode):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        data = encode(rgb, "PNG", exif=exif)
        np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS), rgb)


class TestPilImages:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "F"])
    def test_they_are_never_altered(self, mode, rgb):
        image = Image.fromarray(rgb).convert(mode)
        if mode == "P":
            image.info["transparency"] = bytes([0, 100, 255])
        if mode == "F":
            image = image.point(lambda value: value * (1 / 255) + 0)
        before = image.copy()
        palette = image.getpalette("RGBA") if mode == "P" else None
        decode_pil(image, MAX_PIXELS)
        assert image == before
        assert image.info == before.info
        assert (image.getpalette("RGBA") if mode == "P" else None) == palette

    def test_lazily_opened_from_many_threads(self, encode):
        # Without a lock, Pillow's load fails or gives torn pixels here.
        pixels = np.random.default_rng(6).integers(0, 256, (300, 300, 3), np.uint8)
        data = encode(pixels)
        for _ in range(5):
            image = Image.open(io.BytesIO(data))
            barrier = threading.Barrier(8)

            def decode(_, image=image, barrier=barrier):
                barrier.wait()
                return decode_pil(image, MAX_PIXELS)

            with ThreadPoolExecutor(8) as pool:
                for result in pool.map(decode, range(8)):
                    np.testing.assert_array_equal(result, pixels)

    def test_the_frame_that_the_user_has_chosen(self, encode):
        frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
        data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
        image = Image.open(io.BytesIO(data))
        image.seek(1)
        assert (decode_pil(image, MAX_PIXELS) == (0, 0, 255)).all()
        assert image.tell() == 1

    def test_closed_before_it_was_loaded(self, rgb, encode, tmp_path):
        path = tmp_path / "a.png"
        path.write_bytes(encode(rgb))
        with Image.open(path) as image:
            pass
        with pytest.raises(BadImageError, match="closed before it was loaded"):
            decode_pil(image, MAX_PIXELS)

    def test_too_many_pixels(self, rgb):
        with pytest.raises(BadImageError, match="17 x 13 pixels.*max_pixels=220"):
            decode_pil(Image.fromarray(rgb), 220)


class TestFaults:
    @pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
    def test_truncated(self, format, encode):
        pixels = np.random.default_rng(7).integers(0, 256, (64, 64, 3), np.uint8)
        data = encode(pixels, format)
        with pytest.raises(BadImageError, match="truncated|damaged|cut off"):
            decode_bytes(data[: len(data) // 2], MAX_PIXELS)

    def test_truncated_jpeg_is_called_so(self, rgb, encode):
        data = encode(rgb, "JPEG")
        with pytest.raises(BadImageError, match="truncated") as caught:
            decode_bytes(data[:-40], MAX_PIXELS)
        assert isinstance(caught.value.__cause__, OSError)

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "empty"),
            (b"Dear diary, today I renamed a text file.", "b'Dear diary, toda'"),
            (b"  <!DOCTYPE html><html>Not found</html>", "web page"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
            (b"\xff\xd8\xff\xe0" + bytes(3), "begins like JPEG"),
            (b"\x89PNG\r\n\x1a\n", "begins like PNG"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "pillow-heif"),
            (b"\0" * 100, "not an image"),
            (b"B", "not an image"),
        ],
    )
    def test_what_is_not_an_image(self, data, words):
        with pytest.raises(BadImageError, match=words):
            decode_bytes(data, MAX_PIXELS)

    @pytest.mark.parametrize("side", [1200, 10_000, 50_000])
    def test_a_bomb_is_refused_on_the_word_of_its_header(self, side):
        # 10,000: between Pillow's warning and its error; 50,000: beyond its error.
        data = png(side, side, 8, 2, [b""])
        with pytest.raises(BadImageError, match=f"max_pixels={MAX_PIXELS} allows"):
            decode_bytes(data, MAX_PIXELS)

    def test_pillows_own_limit_remains(self):
        data = png(50_000, 50_000, 8, 2, [b""])
        for max_pixels in (None, 10**10):
            with pytest.raises(BadImageError, match="PIL.Image.MAX_IMAGE_PIXELS"):
                decode_bytes(data, max_pixels)

    def test_the_limit_itself_is_allowed(self, rgb, encode):
        assert decode_bytes(encode(rgb), 13 * 17).shape == rgb.shape
        with pytest.raises(BadImageError, match="220"):
            decode_bytes(encode(rgb), 13 * 17 - 1)

    def test_images_beyond_pillows_warning_are_read_without_it(self, rgb, encode):
        data = encode(rgb)
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = 13 * 17 - 1
        try:
            with pytest.warns(Image.DecompressionBombWarning):
                Image.open(io.BytesIO(data))
            np.testing.assert_array_equal(decode_bytes(data, None), rgb)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def with_corrupt_exif(pixels, encode):
    # A tag whose value lies far behind the end of the block.
    entry = struct.pack("<HHII", ExifTags.Base.Make, 2, 400, 5000)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 40) + entry
    return encode(pixels, "JPEG", exif=exif)


class TestWarnings:
    def test_pillow_warns_of_this_file(self, rgb, encode):
        data = with_corrupt_exif(rgb, encode)
        with pytest.warns(UserWarning):
            Image.open(io.BytesIO(data)).getexif().get(ExifTags.Base.Orientation)

    def test_it_is_read_where_warnings_are_errors(self, rgb, encode):
        data = with_corrupt_exif(rgb, encode)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pixels = decode_bytes(data, MAX_PIXELS)
        expected = np.asarray(Image.open(io.BytesIO(encode(rgb, "JPEG"))))
        np.testing.assert_array_equal(pixels, expected)

    def test_the_users_filters_come_back(self, rgb, encode):
        data = encode(rgb)
        decode_bytes(data, MAX_PIXELS)
        before = list(warnings.filters)
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                decode_bytes(data, MAX_PIXELS)
        decode_bytes(data, MAX_PIXELS)
        assert warnings.filters == before
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)

    def test_filters_are_put_back_by_many_threads(self, rgb, encode):
        data = with_corrupt_exif(rgb, encode)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            before = list(warnings.filters)
            with ThreadPoolExecutor(8) as pool:
                decoded = list(
                    pool.map(lambda _: decode_bytes(data, MAX_PIXELS), range(200))
                )
            assert warnings.filters == before
        assert len(decoded) == 200

    def test_nothing_strange_is_left_in_the_filters(self, rgb, encode):
        # scikit-learn carries the list into its workers, entry by entry.
        decode_bytes(with_corrupt_exif(rgb, encode), MAX_PIXELS)
        delayed_calls = [delayed(len)("ab") for _ in range(2)]
        assert Parallel(n_jobs=1)(delayed_calls) == [2, 2]


# -- Values whose meaning is in the header


def tiff(values, bits, photometric=1, sample_format=1):
    """Return a little-endian gray TIFF of one row, with its bytes of pixels."""
    width, data = values
    entries = [(256, width), (257, 1), (258, bits), (259, 1), (262, photometric)]
    entries += [(273, 134), (277, 1), (278, 1), (279, len(data)), (339, sample_format)]
    table = b"".join(struct.pack("<HHLHH", tag, 3, 1, one, 0) for tag, one in entries)
    return (b"II*\0" + struct.pack("<LH", 8, len(entries)) + table).ljust(
        134, b"\0"
    ) + data


def test_white_may_be_zero():
    values = np.array([0, 1000, 40000, 65535], "<u2")
    expected = np.rint((65535 - values) / 257)
    data = tiff((4, values.tobytes()), 16, photometric=0)
    np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS)[0], expected)
    opened = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(decode_pil(opened, MAX_PIXELS)[0], expected)
    floats = np.array([0, 0.25, 1], "<f4")
    data = tiff((3, floats.tobytes()), 32, photometric=0, sample_format=3)
    np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS)[0], [255, 191, 0])


def test_white_of_12_bits():
    data = tiff((2, bytes([0xFF, 0xF8, 0x00])), 12)
    np.testing.assert_array_equal(decode_bytes(data, MAX_PIXELS)[0], [255, 128])


def test_signed_bytes_are_not_taken_for_bright_ones():
    with pytest.raises(BadImageError, match="signed"):
        decode_bytes(tiff((2, b"\xff\x01"), 8, sample_format=2), MAX_PIXELS)


def fits(values, *cards):
    lines = ["SIMPLE  =                    T", "BITPIX  =                   16"]
    lines += [
        "NAXIS   =                    2",
        f"NAXIS1  = {len(values)}",
        "NAXIS2  = 1",
    ]
    header = "".join(line.ljust(80) for line in [*lines, *cards, "END"]).ljust(2880)
    return header.encode() + np.array(values, ">i2").tobytes().ljust(2880, b"\0")


def test_fits_files_of_scaled_or_negative_values():
    if int(PIL.__version__.partition(".")[0]) < 13:
        with pytest.raises(BadImageError, match="need Pillow 13"):
            decode_bytes(fits([0, 257]), MAX_PIXELS)
        return
    usual = fits([0, 257, 32767], "BZERO   =  0 / none", "BSCALE  = 1.0")
    np.testing.assert_array_equal(decode_bytes(usual, MAX_PIXELS)[0], [0, 1, 127])
    with pytest.raises(BadImageError, match="BZERO"):
        decode_bytes(fits([-32768, 32767], "BZERO   = 32768"), MAX_PIXELS)
    with pytest.raises(BadImageError, match="negative"):
        decode_bytes(fits([-1, 5]), MAX_PIXELS)


def test_one_transparent_color_of_16_bits():
    row = struct.pack(">6H", 258, 258, 258, 259, 258, 258)
    chunks = [(b"tRNS", struct.pack(">3H", 258, 258, 258))]
    with pytest.raises(BadImageError, match="alpha channel"):
        decode_bytes(png(2, 1, 16, 2, [row], chunks), MAX_PIXELS)


def test_a_kind_that_pillow_does_not_read_is_not_called_damaged():
    data = tiff((2, bytes(16)), 64, sample_format=3)
    with pytest.raises(BadImageError, match="or of a kind that Pillow does not read"):
        decode_bytes(data, MAX_PIXELS)
    with pytest.raises(BadImageError, match="SVG"):
        decode_bytes(b"\xef\xbb\xbf<svg>", MAX_PIXELS)
