"""JPEGs decoded by a device, against the way that all other images go.

The device here is the CPU, for which torchvision decodes with libjpeg, as Pillow does.
tests/test_gpu.py does the same on a GPU.
"""

import io

import numpy as np
import pytest
import skimage.data
import torch
from PIL import ExifTags, Image

from skdeepfeat import BadImageError
from skdeepfeat._utils._preprocessing import Preprocessing
from skdeepfeat.images import _on_device, fit_on_device, make_image_source
from skdeepfeat.images._on_device import EncodedJpeg, check_jpeg_decoder

CPU = torch.device("cpu")
CROP = Preprocessing(resize=64, crop=(48, 48), interpolation="bicubic")


def fit(X, preprocessing=CROP, **options):
    source = make_image_source(X, **options)
    images = [source.for_device(i, preprocessing) for i in range(len(source))]
    batch, failures = fit_on_device(images, preprocessing, CPU)
    return images, batch.numpy(), failures


def assert_as_by_host(X, preprocessing=CROP, n_encoded=None):
    images, batch, failures = fit(X, preprocessing)
    assert not failures
    source = make_image_source(X)
    for i in range(len(source)):
        np.testing.assert_array_equal(batch[i], source.fitted(i, preprocessing))
    is_encoded = [isinstance(one, EncodedJpeg) for one in images]
    assert sum(is_encoded) == (len(images) if n_encoded is None else n_encoded)


@pytest.fixture(scope="module")
def photo():
    return skimage.data.astronaut()[:220, 100:400]


@pytest.fixture
def jpeg(photo, encode):
    def make(pixels=photo, **options):
        return encode(pixels, "JPEG", quality=90, **options)

    return make


@pytest.mark.parametrize(
    "preprocessing",
    [
        CROP,
        Preprocessing(resize=(48, 60), crop=(48, 60), interpolation="bilinear"),
        Preprocessing(resize=40, crop=(48, 48), fill=(1, 2, 3)),
        Preprocessing(resize=48, crop=(48, 64), crop_mode="border", fill=(9, 9, 9)),
        Preprocessing(resize=220, crop=(64, 64)),
    ],
    ids=["crop", "stretch", "padded", "border", "as_it_is"],
)
def test_the_geometry_is_that_of_the_host(jpeg, photo, preprocessing):
    files = [jpeg(), jpeg(photo[:, :150]), jpeg(photo[:, :, 0]), jpeg(photo[:90])]
    assert_as_by_host(files, preprocessing)


@pytest.mark.parametrize("orientation", range(9))
def test_images_are_turned_upright(photo, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", exif=exif)
    assert_as_by_host([buffer.getvalue()])


@pytest.mark.parametrize(
    "options",
    [{"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"optimize": True}],
    ids=str,
)
def test_kinds_of_jpegs(jpeg, options):
    assert_as_by_host([jpeg(**options)])


def test_what_is_not_a_jpeg_of_the_usual_kind_comes_from_pillow(photo, encode, jpeg):
    cmyk = encode(Image.fromarray(photo).convert("CMYK"), "JPEG")
    as_rgb = encode(Image.fromarray(photo), "JPEG", keep_rgb=True)
    X = [jpeg(), photo, encode(photo), Image.fromarray(photo), cmyk, as_rgb]
    assert_as_by_host(X, n_encoded=1)


@pytest.mark.parametrize(
    ("shape", "interpolation"),
    [((220, 300), "lanczos"), ((30, 400), "bicubic")],
    ids=["a_filter_of_pillow", "enlarged_and_reduced"],
)
def test_what_torch_resizes_otherwise_comes_from_pillow(jpeg, shape, interpolation):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    preprocessing = Preprocessing((48, 48), (48, 48), interpolation)
    assert_as_by_host([jpeg(pixels)], preprocessing, n_encoded=0)


def test_large_photos_are_decoded_some_at_a_time(jpeg, monkeypatch):
    n_files = []
    decode = _on_device._decode

    def noted(files, device):
        n_files.append(len(files))
        return decode(files, device)

    monkeypatch.setattr(_on_device, "_decode", noted)
    monkeypatch.setattr(_on_device, "_PIXELS_AT_ONCE", 2 * 220 * 300)
    assert_as_by_host([jpeg()] * 5)
    assert n_files == [2, 2, 1]


def test_one_that_is_cut_off_is_left_to_pillow_which_says_so(jpeg, tmp_path):
    path = tmp_path / "cut_off.jpg"
    path.write_bytes(jpeg()[:3000])
    with pytest.raises(BadImageError, match="truncated") as caught:
        make_image_source([str(path)]).for_device(0, CROP)
    assert caught.value.origin == str(path)


def test_one_that_the_device_cannot_decode_is_tried_by_pillow(
    jpeg, monkeypatch, caplog
):
    def refuse(files, mode, device):
        raise RuntimeError("nvjpegDecodeBatched failed: 5\nand more")

    monkeypatch.setattr("torchvision.io.decode_jpeg", refuse)
    with caplog.at_level("INFO", "skdeepfeat"):
        assert_as_by_host([jpeg(), jpeg()])
    assert "Pillow decodes 2 JPEGs that cpu cannot decode (nvjpegDecode" in caplog.text


def test_what_pillow_cannot_read_either_is_a_failure_of_its_row(jpeg, monkeypatch):
    broken = jpeg()
    # What follows the header of the quantization tables is no table.
    at = broken.index(b"\xff\xda")
    broken = broken[:at] + b"\xff\xda\x00\x03\x09" + broken[at + 5 :]
    images, batch, failures = fit([jpeg(), broken, jpeg()])
    assert isinstance(images[1], EncodedJpeg)
    assert list(failures) == [1] and len(batch) == 2
    assert failures[1].index == 1 and failures[1].origin == "encoded bytes"
    _, batch, failures = fit([broken])
    assert list(failures) == [0] and batch.shape == (0, 48, 48, 3)


def test_limits_of_size_hold(jpeg):
    source = make_image_source([jpeg()], max_pixels=1000)
    with pytest.raises(BadImageError, match="more than max_pixels=1000"):
        source.for_device(0, CROP)


def test_arrays_have_nothing_to_decode(photo):
    _, batch, _ = fit(np.stack([photo, photo]))
    np.testing.assert_array_equal(batch[1], make_image_source([photo]).fitted(0, CROP))


def test_only_some_devices_decode():
    check_jpeg_decoder("pillow", CPU)
    check_jpeg_decoder("device", torch.device("cuda:1"))
    with pytest.raises(ValueError, match="on CUDA devices only. Got it with .*'cpu'"):
        check_jpeg_decoder("device", CPU)
