"""Features of photos are the reference's, within 1 % at every size."""

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.networks import resolve_neck

# Relative L2 norm of the difference of two feature rows; docs/guide.md names it.
TOLERANCE = 0.01
CAMERA = (3872, 2403)


def encode(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


def enlarged(name, size):
    photo = Image.fromarray(getattr(skimage.data, name)())
    return photo.resize(size, Image.Resampling.LANCZOS)


def textured():
    """Return a photo with hard edges, and noise as fine as its pixels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:600, :900]
    pixels = np.stack([x % 256, y % 256, (x // 7 + y // 5) % 2 * 200], axis=-1)
    noise = rng.normal(0, 10, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photos():
    landscape, portrait = (1199, 799), (601, 917)
    coffee = enlarged("coffee", landscape)
    return {
        "of a camera": encode(enlarged("chelsea", CAMERA)),
        "portrait, 4:4:4": encode(enlarged("astronaut", portrait), subsampling=0),
        "progressive": encode(coffee, progressive=True),
        "gray": encode(coffee.convert("L")),
        "CMYK": encode(coffee.convert("CMYK")),
        "textured": encode(textured()),
        "panorama": encode(coffee.crop((0, 300, 1199, 533))),
    }


@pytest.fixture(scope="module")
def decoded(photos):
    return [Image.open(io.BytesIO(photo)).convert("RGB") for photo in photos.values()]


def as_reference(image, preprocessing):
    """Do what timm and torchvision do, with Pillow alone."""
    side, crop = preprocessing.resize, preprocessing.crop[0]
    width, height = image.size
    scale = min(image.size)
    size = (int(side * width / scale), int(side * height / scale))
    image = image.resize(size, Image.Resampling[preprocessing.interpolation.upper()])
    left, top = (round((length - crop) / 2) for length in size)
    return np.asarray(image.crop((left, top, left + crop, top + crop)))


SIZES = [32, 64, *(pytest.param(n, marks=pytest.mark.slow) for n in (96, 224, 448))]


@pytest.mark.parametrize("size", SIZES)
def test_photos_have_the_features_of_the_reference(size, photos, decoded):
    extractor = PretrainedFeatureExtractor(image_size=size, cache=None)
    found = extractor.transform(list(photos.values()))
    neck = resolve_neck(image_size=size)
    pixels = [as_reference(image, neck.preprocessing) for image in decoded]
    with neck.loaded("cpu") as run:
        [expected] = run(np.stack(pixels))
    distance = np.linalg.norm(found - expected, axis=1)
    relative = distance / np.linalg.norm(expected, axis=1)
    assert {
        name: each
        for name, each in zip(photos, relative, strict=True)
        if each > TOLERANCE
    } == {}
