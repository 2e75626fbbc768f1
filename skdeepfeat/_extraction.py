"""The one way from X to rows of features: images, neck and cache wired together.

X becomes an `ImageSource`, its digests tell the cache which rows are known, and only
what is missing is decoded in threads, run through the neck in batches and stored
batch by batch. docs/architecture.md draws the whole way.
"""

import functools
import logging
import math
import os
import tempfile
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ._device import resolve_device
from ._errors import BadImageError, BadImageWarning
from ._filestat import is_settled, stat_file
from ._fingerprint import digest_file
from .cache import Namespace
from .images import fit_to_network, make_image_source

__all__ = ["ExtractionSettings", "extract_features", "load_pixels", "warn_of"]

logger = logging.getLogger(__name__)

# How many batches the decoding threads may be ahead of the network: one that is
# waiting while another is being filled. More only costs memory.
_BATCHES_AHEAD = 2

# Images that are decoded before they are written where they belong.
_DECODED_AT_ONCE = 64

# How many broken images a warning names; its `failures` attribute has them all.
_NAMED_FAILURES = 10


@dataclass(frozen=True)
class ExtractionSettings:
    """How to read X and run the network; what the rows are does not depend on it.

    Attributes
    ----------
    image_shape : tuple of int or None
        (height, width[, channels]) of flat rows.
    max_pixels : int or None
        Larger images are refused before they are decoded.
    device : str or torch.device
    precision : {"float32", "bfloat16", "float16"}
    batch_size : int or "auto"
    on_error : {"raise", "nan"}
    verbose : int
        Above 0, a progress bar counts the images that go through the network.
    """

    image_shape: tuple | None = None
    max_pixels: int | None = None
    device: object = "auto"
    precision: str = "float32"
    batch_size: int | str = "auto"
    on_error: str = "raise"
    verbose: int = 0


def extract_features(X, neck, cache, settings):
    """Return the features of every image of X, computing only what is not known.

    Parameters
    ----------
    X : images in any of the forms that `images.make_image_source` takes
    neck : necks.Neck
    cache : cache.FeatureCache or its no-op form
    settings : ExtractionSettings

    Returns
    -------
    list of ndarray of float32, shape (n_images, n_features of the output)
        One array for each of the neck's outputs. Row i belongs to image i; with
        ``on_error="nan"`` it is NaN where image i could not be read.

    Raises
    ------
    BadImageError
        With ``on_error="raise"``, at the first image that cannot be read.
    """
    device = resolve_device(settings.device)
    source = make_image_source(
        X, image_shape=settings.image_shape, max_pixels=settings.max_pixels
    )
    memo = cache.file_memo()
    digests, failures = source.digests(memo)
    if failures and settings.on_error == "raise":
        # Nothing has been computed yet, so nothing is lost by saying so at once.
        raise failures[min(failures)]
    failures = dict(failures)

    def compute(indices):
        logger.info("%d of %d images go through the neck", len(indices), len(source))
        batch_size = settings.batch_size
        if batch_size == "auto":
            batch_size = neck.suggested_batch_size(device)
        with (
            neck.loaded(device, settings.precision) as run,
            tqdm(
                total=len(indices),
                desc=neck.model_name,
                unit="image",
                disable=settings.verbose < 1,
            ) as bar,
            closing(
                _decode_ahead(source, indices, neck.preprocessing, batch_size)
            ) as decoded,
        ):
            for rows, images, bad in decoded:
                failures.update(bad)
                if rows:
                    yield np.array(rows), run(np.stack(images))
                bar.update(len(rows) + len(bad))
                if bad and settings.on_error == "raise":
                    raise bad[min(bad)]

    namespaces = _namespaces(neck, settings.precision, memo)
    outputs = cache.fetch(namespaces, digests, compute, neck.n_features)
    if failures:
        warn_of(_with_duplicates(failures, digests, source))
    return outputs


def load_pixels(X, preprocessing, settings, max_bytes):
    """Decode and resize every image of X once, for training.

    Parameters
    ----------
    X : images in any of the forms that `images.make_image_source` takes
    preprocessing : Preprocessing
        Its geometry is applied.
    settings : ExtractionSettings
    max_bytes : int
        Larger results are memory-mapped: they live in a temporary file, which is gone
        when the last reference to the array is.

    Returns
    -------
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
    failures : list of BadImageError
        With ``on_error="nan"``, one for each image that cannot be read; its pixels are
        zero.

    Raises
    ------
    BadImageError
        With ``on_error="raise"``, at the first image that cannot be read.
    """
    source = make_image_source(
        X, image_shape=settings.image_shape, max_pixels=settings.max_pixels
    )
    shape = (len(source), *preprocessing.crop, 3)
    pixels = _room_for(shape, max_bytes)
    failures = {}
    rows = np.arange(len(source))
    with (
        tqdm(
            total=len(source),
            desc="decoding",
            unit="image",
            disable=settings.verbose < 1,
        ) as bar,
        closing(
            _decode_ahead(source, rows, preprocessing, _DECODED_AT_ONCE)
        ) as decoded,
    ):
        for good, images, bad in decoded:
            if bad and settings.on_error == "raise":
                raise bad[min(bad)]
            failures.update(bad)
            if good:
                pixels[np.array(good)] = np.stack(images)
            bar.update(len(good) + len(bad))
    return pixels, [failures[row] for row in sorted(failures)]


def _room_for(shape, max_bytes):
    """Return an array of zeros, in memory or, if it is large, in a temporary file."""
    if math.prod(shape) <= max_bytes:
        return np.zeros(shape, np.uint8)
    # The file has no name, or loses it when it is closed, so that nothing stays
    # behind however the process ends; the mapping keeps it alive.
    file = tempfile.TemporaryFile(prefix="skdeepfeat-pixels-")
    file.truncate(math.prod(shape))
    return np.memmap(file, np.uint8, "r+", shape=shape)


def _namespaces(neck, precision, memo):
    descriptions = neck.descriptions(
        precision, functools.partial(_digest_weights, memo=memo)
    )
    return [
        Namespace(description, f"{label}, {precision}")
        for description, label in zip(descriptions, neck.labels(), strict=True)
    ]


def _digest_weights(path, memo):
    """Return the digest of a weights file, which is read only when it has changed."""
    file = stat_file(path)
    [digest] = memo.lookup([file])
    if digest is None:
        digest = digest_file(path)
        if is_settled(file):
            memo.remember([file], [digest])
    return digest


def _decode_ahead(source, indices, preprocessing, batch_size):
    """Yield (rows, images, failures) a batch, decoding the next ones meanwhile.

    Threads do the decoding: Pillow releases the GIL, and no process is forked after
    a GPU has been touched. The queue is bounded, so memory does not grow with X.
    """

    def load(row):
        return fit_to_network(source.pixels(row), preprocessing)

    n_threads = _n_usable_cpus()
    remaining = iter(indices.tolist())
    with ThreadPoolExecutor(n_threads, thread_name_prefix="skdeepfeat-decode") as pool:
        pending = deque()

        def top_up():
            while len(pending) < _BATCHES_AHEAD * batch_size + n_threads:
                row = next(remaining, None)
                if row is None:
                    return
                pending.append((row, pool.submit(load, row)))

        try:
            top_up()
            while pending:
                rows, images, bad = [], [], {}
                while pending and len(rows) < batch_size:
                    row, future = pending.popleft()
                    try:
                        images.append(future.result())
                        rows.append(row)
                    except BadImageError as error:
                        bad[row] = error
                    top_up()
                yield rows, images, bad
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _n_usable_cpus():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _with_duplicates(failures, digests, source):
    """Return a failure for every row that holds a broken image, not the first only."""
    by_digest = {
        digests[row]: error
        for row, error in failures.items()
        if digests[row] is not None
    }
    every = dict(failures)
    for row, digest in enumerate(digests):
        if digest in by_digest and row not in every:
            every[row] = by_digest[digest].at(row, source.describe(row))
    return [every[row] for row in sorted(every)]


def warn_of(failures):
    """Give one `BadImageWarning` that lists the images whose rows are NaN."""
    listed = "\n".join(f"  {error}" for error in failures[:_NAMED_FAILURES])
    more = len(failures) - _NAMED_FAILURES
    rest = f"\n  ... and {more} more" if more > 0 else ""
    warnings.warn(
        BadImageWarning(
            f"{len(failures)} image(s) could not be read; their rows are NaN "
            f"(the warning's `failures` attribute lists all):\n{listed}{rest}",
            failures,
        ),
        stacklevel=4,
    )
