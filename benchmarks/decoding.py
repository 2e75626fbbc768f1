"""How far features are from those of the reference, and what reading a photo costs.

The reference decodes the whole photo with Pillow and resizes it with Pillow, as the
transforms of torchvision and timm do. It is compared with what the package does, and
with what the package does not do: have the JPEG decoder reduce the photo to half, a
quarter or an eighth of its sides (`PIL.Image.Image.draft`), which saves time. A photo
that is saved once more at quality 85 is the yardstick.

    python benchmarks/decoding.py [--model efficientnet_lite0] [--sizes 32 64 224]
"""

import argparse
import io
import pathlib
import time

import numpy as np
from _common import (
    describe_machine,
    machine_line,
    markdown_table,
    watch_others,
    write_results,
)
from _images import load_photographs
from PIL import Image

from skdeepfeat.images import fit_to_network, make_image_source
from skdeepfeat.images._geometry import crop_window, resized_shape
from skdeepfeat.networks import resolve_neck

PHOTO_SIZE = (3872, 2403)
SIZES = (32, 64, 96, 128, 224, 299, 448)
SCALES = (2, 4, 8)


def make_photos(kind, n_photos, seed=0):
    """Return JPEGs of camera size.

    Parameters
    ----------
    kind : {"photograph", "portrait", "texture", "fringes", "gray", "CMYK"}
        Enlarged photographs; upright and without subsampling of colors; with the noise
        of a sensor, progressive; rings that get finer than a pixel of any target size.
    n_photos : int
    """
    rng = np.random.default_rng(seed)
    photographs = load_photographs()
    return [_make_photo(kind, photographs[i], rng) for i in range(n_photos)]


def _make_photo(kind, photograph, rng):
    size = PHOTO_SIZE[::-1] if kind == "portrait" else PHOTO_SIZE
    photo = photograph.resize(size, Image.Resampling.LANCZOS)
    options = {"quality": 92}
    if kind == "portrait":
        options["subsampling"] = 0
    elif kind == "texture":
        options["progressive"] = True
        noise = rng.normal(0, 8, (size[1], size[0], 3)).astype(np.float32)
        photo = Image.fromarray(np.clip(photo + noise, 0, 255).astype(np.uint8))
    elif kind == "fringes":
        y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
        rings = np.cos((x**2 + y**2) * np.float32(np.pi / 2 / size[0]))
        pixels = np.asarray(photo) * (0.6 + 0.4 * rings[:, :, None])
        photo = Image.fromarray(pixels.astype(np.uint8))
    elif kind in ("gray", "CMYK"):
        photo = photo.convert({"gray": "L"}.get(kind, kind))
    return _jpeg(photo, **options)


KINDS = ("photograph", "portrait", "texture", "fringes", "gray", "CMYK")


def _jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def read_as_reference(photo, preprocessing, scale=1):
    """Return a photo as the reference transforms make it, or from a reduced one."""
    with Image.open(io.BytesIO(photo)) as image:
        height, width = resized_shape(image.size[::-1], preprocessing)
        if scale > 1:
            image.draft(None, tuple(side // scale for side in image.size))
        image = image.convert("RGB")
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    image = image.resize((width, height), resample)
    crop_height, crop_width = preprocessing.crop
    top, left, _, _ = crop_window((height, width), preprocessing.crop)
    box = (left, top, left + crop_width, top + crop_height)
    return np.asarray(image.crop(box))


def read_as_package(photo, preprocessing):
    return make_image_source([photo]).fitted(0, preprocessing)


def read_again(photo, preprocessing):
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    pixels = np.asarray(Image.open(io.BytesIO(_jpeg(image, quality=85))))
    return fit_to_network(pixels, preprocessing)


def measure(model, sizes, kinds, n_photos):
    """Return a result for each size and kind."""
    photos = {kind: make_photos(kind, n_photos) for kind in kinds}
    results = []
    for size in sizes:
        neck = resolve_neck(model, image_size=size)
        with neck.loaded("cpu") as run:
            for kind in kinds:
                found = _compare(photos[kind], neck.preprocessing, run)
                results.append({"size": size, "kind": kind, **found})
    return results


def _compare(photos, preprocessing, run):
    ways = {"package": read_as_package, "saved again": read_again}
    for scale in SCALES:
        if min(PHOTO_SIZE) // scale >= preprocessing.resize:
            ways[f"1/{scale}"] = lambda photo, geometry, scale=scale: read_as_reference(
                photo, geometry, scale
            )
    exact = np.stack([read_as_reference(photo, preprocessing) for photo in photos])
    [exact] = run(exact)
    found = {}
    for name, read in ways.items():
        start = time.thread_time()
        pixels = np.stack([read(photo, preprocessing) for photo in photos])
        seconds = time.thread_time() - start
        [rows] = run(pixels)
        distance = np.linalg.norm(rows - exact, axis=1)
        relative = distance / np.linalg.norm(exact, axis=1)
        found[name] = {
            "milliseconds": 1000 * seconds / len(photos),
            "mean": float(relative.mean()),
            "largest": float(relative.max()),
        }
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--n-photos", type=int, default=4)
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    arguments = parser.parse_args(argv)
    machine = describe_machine()
    with watch_others(machine):
        results = measure(
            arguments.model, arguments.sizes, arguments.kinds, arguments.n_photos
        )
    names = ["package", *(f"1/{scale}" for scale in SCALES), "saved again"]
    rows = [
        [str(result["size"]), result["kind"]]
        + [_shown(result.get(name)) for name in names]
        for result in results
    ]
    table = markdown_table(["size", "photo", *names], rows)
    report = (
        "Relative difference of the features from the reference's, mean / largest, in "
        f"percent; milliseconds a photo in one thread.\n\n{table}\n\n"
        f"{machine_line(machine)}"
    )
    print(report)
    write_results(
        arguments.output, "decoding", {"machine": machine, "results": results}, report
    )


def _shown(result):
    if result is None:
        return "-"
    return (
        f"{100 * result['mean']:.1f} / {100 * result['largest']:.1f}, "
        f"{result['milliseconds']:.0f} ms"
    )


if __name__ == "__main__":
    main()
