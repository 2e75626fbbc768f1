"""The one way from X to rows of features: images, neck and cache wired together.

X becomes an `ImageSource`, its digests tell the cache which rows are known, and only
what is missing is decoded in threads, run through the neck in batches and stored
batch by batch. docs/architecture.md draws the whole way.
"""

import functools
import logging
from contextlib import closing

import numpy as np
from tqdm.auto import tqdm

from .._device import resolve_device
from .._filestat import is_settled, stat_file
from .._fingerprint import digest_file
from ..cache import Namespace
from ..images import make_image_source
from ._compute import compute_rows
from ._failures import warn_of, with_duplicates

__all__ = ["extract_features"]

logger = logging.getLogger(__name__)


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
        with (
            tqdm(
                total=len(indices),
                desc=neck.model_name,
                unit="image",
                disable=settings.verbose < 1,
            ) as bar,
            closing(compute_rows(source, indices, neck, device, settings)) as computed,
        ):
            for rows, outputs, bad in computed:
                failures.update(bad)
                if rows:
                    yield np.array(rows), outputs
                bar.update(len(rows) + len(bad))
                if bad and settings.on_error == "raise":
                    raise bad[min(bad)]

    namespaces = _namespaces(neck, settings.precision, memo)
    outputs = cache.fetch(namespaces, digests, compute, neck.n_features)
    if failures:
        warn_of(with_duplicates(failures, digests, source))
    return outputs


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
