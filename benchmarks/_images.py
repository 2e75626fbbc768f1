"""Image files for the benchmarks, made from photographs that scikit-image ships.

Without it, from two that scikit-learn ships.
"""

import importlib.util
import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

NATURAL_SIZE = (500, 375)  # width and height in pixels, ImageNet's most frequent
TINY_SIZE = (32, 32)

# Color photographs of the wheel itself; the others would be downloaded.
_PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
)


def write_natural_images(folder, n_images, seed=0):
    """Write JPEG files of 500 x 375 pixels, no two of the same content.

    Parameters
    ----------
    folder : pathlib.Path
    n_images : int
    seed : int, default=0

    Returns
    -------
    list of str
        The paths, in order.
    """
    rng = np.random.default_rng(seed)
    photographs = load_photographs()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(folder / f"{i:05d}.jpg") for i in range(n_images)]
    with ThreadPoolExecutor() as pool:
        written = []
        for i, path in enumerate(paths):
            photograph = photographs[i % len(photographs)]
            box = _random_box(photograph, NATURAL_SIZE, rng)
            written.append(pool.submit(_write_crop, photograph, box, path))
        for one in written:
            one.result()
    return paths


def _write_crop(photograph, box, path):
    crop = photograph.resize(NATURAL_SIZE, Image.Resampling.BICUBIC, box=box)
    crop.save(path, quality=90)


def make_tiny_images(n_images, seed=0):
    """Return distinct images as uint8, shape (n_images, 32, 32, 3)."""
    rng = np.random.default_rng(seed)
    width, height = TINY_SIZE
    photographs = [np.asarray(photograph) for photograph in load_photographs()]
    images = np.empty((n_images, height, width, 3), dtype=np.uint8)
    for i in range(n_images):
        photograph = photographs[i % len(photographs)]
        top = rng.integers(photograph.shape[0] - height)
        left = rng.integers(photograph.shape[1] - width)
        images[i] = photograph[top : top + height, left : left + width]
    # Black sky is the same everywhere: noise makes every image one of its own.
    noise = rng.integers(0, 8, images.shape, dtype=np.uint8)
    return np.clip(images, 0, 248) + noise


def write_tiny_images(folder, n_images, seed=0):
    """Write JPEG files of 32 x 32 pixels and return their paths.

    A thousand files share a folder, as nobody keeps 50,000 in one.
    """
    paths = []
    for i, image in enumerate(make_tiny_images(n_images, seed)):
        path = pathlib.Path(folder, f"{i // 1000:03d}", f"{i:06d}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=90)
        paths.append(str(path))
    return paths


def list_images(folder, n_images):
    """Return the first `n_images` image files below a folder, in sorted order.

    Raises
    ------
    SystemExit
        If there are none.
    """
    suffixes = {suffix for suffix in Image.registered_extensions()}
    found = sorted(
        str(path)
        for path in pathlib.Path(folder).resolve().rglob("*")
        if path.suffix.lower() in suffixes and path.is_file()
    )
    if not found:
        raise SystemExit(f"--images: there are no image files below {str(folder)!r}")
    return found[:n_images]


def load_photographs():
    """Return color photographs that scikit-image or scikit-learn ships."""
    if importlib.util.find_spec("skimage") is None:
        from sklearn.datasets import load_sample_images

        return [Image.fromarray(image) for image in load_sample_images().images]
    import skimage.data

    folder = pathlib.Path(skimage.data.__file__).parent
    return [Image.open(folder / name).convert("RGB") for name in _PHOTOGRAPHS]


def _random_box(photograph, size, rng):
    """Return the box of half to all of a photograph, in the proportions of `size`."""
    fitting = min(photograph.width / size[0], photograph.height / size[1])
    scale = fitting * rng.uniform(0.5, 1.0)
    width, height = size[0] * scale, size[1] * scale
    left = rng.uniform(0, photograph.width - width)
    top = rng.uniform(0, photograph.height - height)
    return left, top, left + width, top + height
