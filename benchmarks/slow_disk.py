"""What reading each file once is worth on a slow disk.

    python benchmarks/slow_disk.py [--rate 2e6] [--n-images 128] [--model NAME]

Files are read through a reader that gives at most so many bytes a second to all threads
together, as a network disk does. Nothing is known before. Compared in turns: as it is,
and with nothing kept between hashing and decoding, which reads each file twice.
"""

import argparse
import pathlib
import statistics
import tempfile
import threading
import time
from unittest import mock

import numpy as np
from _common import (
    describe_machine,
    machine_line,
    markdown_table,
    spread,
    watch_others,
    write_results,
)
from _images import write_natural_images

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.images import _files, _list_source
from skdeepfeat.images._files import KeptFiles


class SlowDisk:
    """Opens files whose readers share a number of bytes per second."""

    def __init__(self, rate):
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.n_bytes = self.n_opens = 0

    def open(self, *args, **kwargs):
        """Open a file as the built-in function does."""
        self.n_opens += 1
        return _SlowFile(open(*args, **kwargs), self)

    def wait_for(self, n_bytes):
        """Return when so many bytes have come."""
        with self._lock:
            self.n_bytes += n_bytes
            start = max(self._free_at, time.monotonic())
            self._free_at = start + n_bytes / self._rate
        time.sleep(max(0.0, self._free_at - time.monotonic()))


class _SlowFile:
    def __init__(self, file, disk):
        self._file, self._disk = file, disk

    def read(self, n_bytes):
        data = self._file.read(n_bytes)
        self._disk.wait_for(len(data))
        return data

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


def measure(extractor, paths, rate, is_kept):
    """Return seconds, bytes and opens of one call in which nothing is known."""
    disk = SlowDisk(rate)
    with (
        mock.patch.object(_files, "open", disk.open, create=True),
        mock.patch.object(
            _list_source,
            "KeptFiles",
            KeptFiles if is_kept else lambda **_: KeptFiles(0),
        ),
        # Without parts, all files are hashed before the first is decoded.
        mock.patch.object(
            _list_source, "_FIRST_SECONDS", 1.0 if is_kept else float("inf")
        ),
    ):
        start = time.perf_counter()
        rows = extractor.transform(paths)
        seconds = time.perf_counter() - start
    return rows, {"seconds": seconds, "bytes": disk.n_bytes, "opens": disk.n_opens}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--n-images", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e6, help="bytes a second")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    arguments = parser.parse_args(argv)
    extractor = PretrainedFeatureExtractor(
        arguments.model, image_size=arguments.image_size, cache=None
    )
    machine, results = describe_machine(), {True: [], False: []}
    with tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as folder:
        paths = write_natural_images(pathlib.Path(folder), arguments.n_images)
        expected = extractor.transform(paths)  # loads the network, too
        with watch_others(machine):
            for _ in range(arguments.repeats):
                for is_kept, found in results.items():
                    rows, one = measure(extractor, paths, arguments.rate, is_kept)
                    np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=1e-4)
                    found.append(one)
    ratios = [
        twice["seconds"] / once["seconds"]
        for once, twice in zip(results[True], results[False], strict=True)
    ]
    table = markdown_table(
        [f"{arguments.n_images} files", "seconds", "bytes", "opens"],
        [
            [
                name,
                spread([one["seconds"] for one in results[is_kept]]),
                results[is_kept][0]["bytes"],
                results[is_kept][0]["opens"],
            ]
            for name, is_kept in (("read once", True), ("read twice", False))
        ],
    )
    text = (
        f"{arguments.model} at {arguments.rate:.0f} bytes a second:\n\n{table}\n\n"
        f"Read once is {statistics.median(ratios):.2f} times as fast; "
        f"to reach: 1.8.\n\n"
        f"{machine_line(machine)}"
    )
    print(text)
    write_results(
        arguments.output,
        "slow_disk",
        {"machine": machine, "ratios": ratios, "results": list(results.items())},
        text,
    )


if __name__ == "__main__":
    main()
