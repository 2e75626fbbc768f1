"""What reading large photos at a reduced scale saves, and what it changes.

Photos of 12 megapixels are decoded and resized for a network at each of several
factors: how many times the size that it is resized to a photo must keep when it is
decoded. Beside the time, how far pixels and features are from those of the whole photo,
and as a yardstick the same for a photo that is merely saved once more.

    python benchmarks/decoding.py [--model efficientnet_lite0] [--n-images 18]
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

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.images import fit_to_network
from skdeepfeat.images._decode import decode_reduced
from skdeepfeat.images._geometry import SUFFICIENT, resized_shape
from skdeepfeat.necks import resolve_neck

PHOTO_SIZE = (4032, 3024)
FACTORS = (1, 2, 3, 4, 6)


def make_photos(n_images, seed=0):
    """Return JPEGs of 12 megapixels, enlarged from photographs, and saved once more."""
    rng = np.random.default_rng(seed)
    photographs = load_photographs()
    photos, again = [], []
    for i in range(n_images):
        photograph = photographs[i % len(photographs)]
        top, left = rng.integers(0, 40, 2)
        box = (left, top, photograph.width - 40 + left, photograph.height - 40 + top)
        photo = photograph.resize(PHOTO_SIZE, Image.Resampling.LANCZOS, box=box)
        photos.append(_jpeg(photo, 92))
        again.append(_jpeg(Image.open(io.BytesIO(photos[-1])), 85))
    return photos, again


def _jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def read(photos, preprocessing, factor=None):
    """Return photos as the network sees them, and the seconds of one thread for it."""

    def enough(shape):
        return tuple(factor * side for side in resized_shape(shape, preprocessing))

    fitted = []
    start = time.thread_time()
    for photo in photos:
        pixels, shape = decode_reduced(photo, None, enough if factor else None)
        fitted.append(fit_to_network(pixels, preprocessing, shape))
    return np.stack(fitted), time.thread_time() - start


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--n-images", type=int, default=18)
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    arguments = parser.parse_args(argv)
    machine = describe_machine()
    preprocessing = resolve_neck(arguments.model).preprocessing
    extractor = PretrainedFeatureExtractor(arguments.model, cache=None)
    with watch_others(machine):
        photos, again = make_photos(arguments.n_images)
        whole, seconds = read(photos, preprocessing)
        cases = {"the whole photo": (whole, seconds)}
        for factor in FACTORS:
            cases[f"at least {factor} x"] = read(photos, preprocessing, factor)
        cases["the whole photo, saved again at quality 85"] = read(again, preprocessing)
        exact = extractor.transform(whole)
        results = []
        for name, (pixels, seconds) in cases.items():
            rows = extractor.transform(pixels)
            distance = np.linalg.norm(rows - exact, axis=1)
            results.append(
                {
                    "decoded": name,
                    "milliseconds": 1000 * seconds / len(photos),
                    "pixels": float(np.abs(pixels.astype(float) - whole).mean()),
                    "features": float(
                        (distance / np.linalg.norm(exact, axis=1)).mean()
                    ),
                }
            )
    table = markdown_table(
        [
            "decoded",
            "ms a photo, one thread",
            "mean difference of pixels, of 255",
            f"of {arguments.model}'s features, relative",
        ],
        [
            [
                result["decoded"],
                f"{result['milliseconds']:.0f}",
                f"{result['pixels']:.2f}",
                f"{result['features']:.3f}",
            ]
            for result in results
        ],
    )
    report = (
        f"{table}\n\nThe package decodes {SUFFICIENT} x.\n\n{machine_line(machine)}"
    )
    print(report)
    write_results(
        arguments.output, "decoding", {"machine": machine, "results": results}, report
    )


if __name__ == "__main__":
    main()
