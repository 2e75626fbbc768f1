"""What other JPEG decoders and resizes would save, and what they would change.

Photographs of 500 x 375 pixels are read as the installed network needs them. The time
is that of one thread from the bytes to the pixels, the least of several rounds in which
the ways take turns. Rows are compared with those of Pillow's pixels. Packages that are
not installed are left out: simplejpeg, imagecodecs and OpenCV are no dependencies.

    python benchmarks/decoders.py [--n-photos 36] [--rounds 4] [--output FOLDER]
"""

import argparse
import contextlib
import io
import pathlib
import tempfile
import time
import warnings

import numpy as np
import torch
from _common import (
    describe_machine,
    machine_line,
    markdown_table,
    watch_others,
    write_results,
)
from _images import NATURAL_SIZE, write_natural_images
from decoding import read_as_reference
from PIL import Image

from skdeepfeat.images import fit_to_network, make_image_source
from skdeepfeat.images._geometry import crop_window, resized_shape
from skdeepfeat.networks import resolve_neck


def make_ways(preprocessing):
    """Return, by name, functions from the bytes of a JPEG to the pixels it becomes."""

    def fitted(decode):
        return lambda data: fit_to_network(decode(data), preprocessing)

    ways = {
        "Pillow, resized by Pillow": lambda data: read_as_reference(
            data, preprocessing
        ),
        "the package": lambda data: make_image_source([data]).fitted(0, preprocessing),
        "Pillow, 1/2": fitted(_half),
        "torchvision.io": fitted(_by_torchvision),
    }
    with contextlib.suppress(ImportError):
        from imagecodecs import jpeg8_decode

        ways["imagecodecs"] = fitted(jpeg8_decode)
    with contextlib.suppress(ImportError):
        from simplejpeg import decode_jpeg

        width, height = NATURAL_SIZE
        for name, options in {
            "simplejpeg": {},
            "simplejpeg, fast upsampling": {"fastupsample": True},
            "simplejpeg, fast DCT": {"fastdct": True},
            "simplejpeg, 7/8": {"min_height": 7 * height // 8 - 1},
            "simplejpeg, 6/8": {"min_height": 6 * height // 8 - 1},
        }.items():
            ways[name] = fitted(
                lambda data, options=options: decode_jpeg(data, "RGB", **options)
            )
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)
        rows, columns = size = resized_shape(NATURAL_SIZE[::-1], preprocessing)
        top, left, height, width = crop_window(size, preprocessing.crop)

        def decode(data):
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)

        def average(data):
            pixels = cv2.resize(
                decode(data), (columns, rows), interpolation=cv2.INTER_AREA
            )
            return pixels[top : top + height, left : left + width]

        ways["OpenCV"] = fitted(decode)
        ways["OpenCV, resized by INTER_AREA"] = average
    return ways


def _half(data):
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, tuple(side // 2 for side in image.size))
        return np.asarray(image)


def _by_torchvision(data):
    from torchvision.io import decode_jpeg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # A copy, because torch warns about read-only memory.
        decoded = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return decoded.permute(1, 2, 0).numpy()


def measure(photos, n_rounds):
    """Return seconds and differences of each way."""
    neck = resolve_neck()
    ways = make_ways(neck.preprocessing)
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(n_rounds):
        for name, read in ways.items():
            start = time.thread_time()
            for photo in photos:
                read(photo)
            least[name] = min(least[name], time.thread_time() - start)
    found, expected = {}, None
    with neck.loaded("cpu") as run:
        for name, read in ways.items():
            [rows] = run(np.stack([read(photo) for photo in photos]))
            expected = rows if expected is None else expected
            distance = np.linalg.norm(rows - expected, axis=1)
            relative = distance / np.linalg.norm(expected, axis=1)
            found[name] = {
                "milliseconds": 1000 * least[name] / len(photos),
                "mean": float(relative.mean()),
                "largest": float(relative.max()),
            }
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-photos", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    machine = describe_machine()
    with (
        watch_others(machine),
        tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as folder,
    ):
        paths = write_natural_images(pathlib.Path(folder), arguments.n_photos)
        photos = [pathlib.Path(path).read_bytes() for path in paths]
        results = measure(photos, arguments.rounds)
    header = ["decoded by", "ms/photo", "rows differ by, %", "at most, %"]
    rows = [
        [
            name,
            f"{found['milliseconds']:.2f}",
            f"{100 * found['mean']:.2f}",
            f"{100 * found['largest']:.2f}",
        ]
        for name, found in results.items()
    ]
    report = f"{markdown_table(header, rows)}\n\n{machine_line(machine)}"
    print(report)
    document = {"machine": machine, "results": results}
    write_results(arguments.output, "decoders", document, report)


if __name__ == "__main__":
    main()
