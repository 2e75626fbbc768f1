"""A network for the cache's tests: numpy, exact, and it counts its rows."""

import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np

from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat.cache import Namespace


def key_of(image):
    """Return the digest of image number `image`."""
    return digest_bytes(str(image).encode())


def row_of(image, net, n_features):
    """Return what network `net` makes of image number `image`."""
    columns = np.arange(n_features, dtype=np.float32)
    return (np.float32(image) + 1) * np.cos(columns * (image % 7 + 1) + len(net))


def fetch(cache, *args, **kwargs):
    """Open a cache and fetch rows."""
    with cache.open() as store:
        return store.fetch(*args, **kwargs)


def lookup(cache, stats):
    """Open a cache and look up the digests of files."""
    with cache.open() as store:
        return store.lookup(stats)


def remember(cache, stats, digests):
    """Open a cache and store the digests of files."""
    with cache.open() as store:
        store.remember(stats, digests)


class Nets:
    """Networks with the same input; `computed` lists the images they were given.

    Parameters
    ----------
    widths : dict of str to int
        For each network its number of features.
    bad : container of int
        Images that cannot be computed.
    batch_size : int
    also : dict of str to int
        Networks whose rows are computed in addition, as `widths`.
    work : str or None
        What they share, if they are layers of one network.
    """

    def __init__(self, widths, bad=(), batch_size=4, also=(), work=None):
        self.widths = dict(widths)
        self.also = dict(also)
        self.work = work
        self.bad = bad
        self.batch_size = batch_size
        self.with_also = False
        self.computed = []
        self.n_calls = 0
        self.n_closed = 0

    @property
    def namespaces(self):
        return self.namespaces_of(self.widths)

    def namespaces_of(self, widths):
        return [
            Namespace({"net": net, "width": width}, f"{net}, avg, float32", self.work)
            for net, width in widths.items()
        ]

    def compute(self, images):
        """Return the `compute` of a fetch for these images."""

        def batches(indices):
            self.n_calls += 1
            try:
                for start in range(0, len(indices), self.batch_size):
                    batch = indices[start : start + self.batch_size]
                    yield self.batch(images, batch)
            finally:
                self.n_closed += 1

        return batches

    def batch(self, images, indices):
        good = np.array([i for i in indices if images[i] not in self.bad], dtype=int)
        self.computed += [images[i] for i in good]
        nets = [*self.widths.items(), *(self.also.items() if self.with_also else [])]
        blocks = [
            np.array([row_of(images[i], net, width) for i in good], np.float32)
            for net, width in nets
        ]
        blocks = [
            block.reshape(len(good), width)
            for block, (_, width) in zip(blocks, nets, strict=True)
        ]
        return good, blocks

    def find_also(self):
        self.with_also = True
        return self.namespaces_of(self.also)

    def fetch(self, cache, images):
        """Return the cache's rows of `images`; None is an image without digest."""
        keys = [None if image is None else key_of(image) for image in images]
        self.with_also = False
        return fetch(
            cache,
            self.namespaces,
            keys,
            self.compute(images),
            lambda: self.widths.values(),
            also=self.find_also if self.also else None,
            place="cpu",
        )

    def expected(self, images):
        """Return what `fetch` has to return."""
        return [
            np.array(
                [
                    np.full(width, np.nan)
                    if image is None or image in self.bad
                    else row_of(image, net, width)
                    for image in images
                ],
                dtype=np.float32,
            ).reshape(len(images), width)
            for net, width in self.widths.items()
        ]

    def check_fetch(self, cache, images):
        """Fetch, compare with the oracle, return the images that were computed."""
        before = len(self.computed)
        outputs = self.fetch(cache, images)
        for output, expected in zip(outputs, self.expected(images), strict=True):
            assert output.dtype == np.float32
            assert output.flags.c_contiguous
            np.testing.assert_array_equal(output, expected)
        return self.computed[before:]


def start(script, *arguments, **options):
    """Start a Python process; the script imports this file as `pretend`."""
    here = pathlib.Path(__file__).parent
    search = [str(here.parents[1]), str(here), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process):
    """Wait for a process, and return what it printed."""
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return output
