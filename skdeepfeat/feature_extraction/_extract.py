"""The one way from X to rows of features: images, neck and cache wired together.

X becomes an `ImageSource`, its digests tell the cache which rows are known, and only
what is missing is decoded in threads, run through the neck in batches and stored
batch by batch. docs/architecture.md draws the whole way.
"""

import functools
import logging
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from tqdm.auto import tqdm

from .._utils._device import resolve_devices
from .._utils._digests import digest_description, digest_file
from .._utils._filestat import is_settled, stat_file
from .._utils._printable import printable
from .._utils._threads import all_cores
from ..cache import Namespace, NoCache, warn_of_unstable
from ..images import make_image_source
from ._arithmetic import describe_arithmetic, settle_arithmetic
from ._background import run_beside
from ._compute import compute_rows
from ._failures import warn_of, with_duplicates
from ._finite import FiniteRows, non_finite_error
from ._workers import compute_in_shards, count_workers

__all__ = ["Extraction", "extract_features"]

logger = logging.getLogger(__name__)


def extract_features(X, neck, cache, settings, on_read=None):
    """Return the features of every image of X, computing only what is not known.

    Parameters
    ----------
    X : images in any of the forms that `images.make_image_source` takes
    neck : networks.Neck
    cache : cache.FeatureCache, MappingCache or NoCache
    settings : ExtractionSettings
    on_read : callable, default=None
        Told the digests of the images, as `load_pixels` takes them.

    Returns
    -------
    outputs : list of ndarray of float32, shape (n_images, n_features of the output)
        One array for each of the neck's outputs. Row i belongs to image i; with
        ``on_error="nan"`` it is filled with NaN where image i could not be read.
    failed : ndarray of bool, shape (n_images,)
        Which images could not be read.

    Raises
    ------
    BadImageError
        With ``on_error="raise"``, at the first image that cannot be read.
    NonFiniteOutputError
        As `Extraction.fetch` does.
    """
    with cache.open() as store:
        extraction = Extraction(X, neck, store, settings)
        if on_read is not None:
            on_read(extraction.digests)
        rows = np.arange(len(extraction))
        outputs = extraction.fetch(rows)
    if failures := extraction.failures():
        warn_of(failures)
    return outputs, extraction.failed(rows)


class Extraction:
    """X on its way to rows: its images, their digests, and what could not be read.

    Parameters
    ----------
    X, neck, settings
        As in `extract_features`.
    store : cache.Store

    Attributes
    ----------
    source : images.ImageSource
    digests : list of bytes or None
        Of each image; None where it could not be read.
    namespaces : list of cache.Namespace
        Of each of the neck's outputs: what its rows depend on besides the image.

    Raises
    ------
    BadImageError
        With ``on_error="raise"``, if an image cannot be read at all.
    """

    def __init__(self, X, neck, store, settings):
        self.neck = neck
        # The digests of files are kept also if the features are not.
        self._store = self._file_index = store
        self._is_local = count_workers(settings.n_jobs) == 1
        # Workers may have devices that this machine lacks.
        self._devices = resolve_devices(settings.device) if self._is_local else []
        self._may_be_torch = settings.runtime == "auto"
        self.settings = settle_arithmetic(neck, self._devices, settings)
        self.source = make_image_source(
            X,
            flat_image_shape=settings.flat_image_shape,
            max_pixels=settings.max_pixels,
            storage_options=settings.storage_options,
        )
        self.digests, failures = self._read()
        if failures and settings.on_error == "raise":
            # Nothing has been computed yet, so nothing is lost by saying so at once.
            raise failures[min(failures)]
        self._failures = dict(failures)
        if neck.is_own and store.keeps_rows:
            self.identify()
        else:
            self.namespaces = self._namespaces(neck)

    def identify(self):
        """Find out what a user's own network is; compute with a private copy of it.

        Rows of a network that cannot be recognized are not cached.
        """
        self.neck = self._beside(self.neck.identified)
        if not self.neck.fingerprint.is_stable and self._store.keeps_rows:
            warn_of_unstable(self.neck.spec.name)
            self._store = NoCache().open()
        self.namespaces = self._namespaces(self.neck)

    def describe_network(self):
        """Return what the rows depend on besides the images, as JSON types.

        Of two jobs with the same network, `noted` makes these equal.
        """
        if self.neck.is_own and self.neck.fingerprint is None:
            self.identify()
        fingerprint = self.neck.fingerprint
        keys = [namespace.key for namespace in self._described(self.neck)]
        if fingerprint is None or not fingerprint.is_stable:
            return {"network": keys}
        return {"network": keys, "probe": fingerprint.summary()}

    def as_noted(self, job, noted):
        """Return a job with the words of an earlier one where both mean the same.

        Parameters
        ----------
        job : dict
            With what `describe_network` returns.
        noted : dict or None
        """
        fingerprint, probe = self.neck.fingerprint, (noted or {}).get("probe")
        if "probe" in job and fingerprint.agrees_with_summary(probe):
            return {**job, "probe": probe}
        return job

    def _beside(self, function):
        """Return ``function(device)``, with a device that this machine has."""
        device = self._devices[0] if self._devices else torch.device("cpu")

        def call():
            with all_cores(device):
                return function(device)

        return run_beside(call)

    def _read(self):
        """Return the digests of the source; show how far it is if that takes long."""
        with tqdm(
            total=len(self.source),
            desc="reading",
            unit="image",
            delay=1,  # seconds: most of the time it is over before
            leave=False,
            disable=self.settings.verbose < 1,
        ) as bar:
            return self.source.digests(self._file_index, on_done=bar.update)

    def __len__(self):
        return len(self.source)

    def failures(self):
        """Return what is wrong with the images found so far that cannot be read.

        Returns
        -------
        list of BadImageError
            One a row, in the order of the rows.
        """
        if not self._failures:
            return []
        return with_duplicates(self._failures, self.digests, self.source)

    def failed(self, rows):
        """Return which of `rows`, fetched before, could not be read.

        Parameters
        ----------
        rows : ndarray of int

        Returns
        -------
        ndarray of bool
        """
        if not self._failures:
            return np.zeros(len(rows), bool)
        bad = {self.digests[row] for row in self._failures}
        return np.array([self.digests[row] in bad for row in rows.tolist()], bool)

    def fetch(self, rows, on_computed=None):
        """Return the features of some of the images.

        Parameters
        ----------
        rows : ndarray of int, ascending
        on_computed : callable, default=None
            ``on_computed(rows, outputs, n_bad)`` is told of every batch that went
            through the neck, as it comes, instead of a progress bar: some of `rows`,
            an array for each of the neck's outputs, and how many images of the batch
            could not be read.

        Returns
        -------
        list of ndarray of float32, shape (len(rows), n_features of the output)
            The rows of images that could not be read are filled with NaN; `failed`
            tells which they are.

        Raises
        ------
        BadImageError
            With ``on_error="raise"``, at the first image that cannot be read.
        NonFiniteOutputError
            If the network returns NaN or infinite values for an image that can be read.
            The finite rows of other images are then in the cache.
        """
        try:
            return self._fetch(rows, on_computed)
        except _NotByOpenVINO:
            # Nothing has been computed yet, and torch's rows are other rows.
            self.settings = replace(self.settings, runtime="torch")
            self.namespaces = self._namespaces(self.neck)
            return self._fetch(rows, on_computed)

    def _fetch(self, rows, on_computed):
        neck, n_wanted = self.neck, len(self.namespaces)
        # What runs the network must not depend on how much of X is left to compute, or
        # a resumed job would not be the same to the last bit.
        n_images = self.settings.n_images
        if n_images is None and on_computed is not None:
            n_images = len(self.source)

        def join_others():
            nonlocal neck
            neck = self._beside(
                functools.partial(self.neck.joined, self.settings.cache_layers)
            )
            return self._namespaces(neck)[n_wanted:]

        def compute(positions):
            refused, finite = {}, FiniteRows(n_wanted)
            self._check_runtime(neck)
            logger.info(
                "%d of %d images go through the neck", len(positions), len(self.source)
            )
            with (
                tqdm(
                    total=len(positions),
                    desc=printable(self.neck.model_name),
                    unit="image",
                    disable=self.settings.verbose < 1 or on_computed is not None,
                ) as bar,
                closing(self._compute(rows[positions], neck, n_images)) as computed,
            ):
                for done, outputs, bad in computed:
                    self._failures.update(bad)
                    bar.update(len(done) + len(bad))
                    done, outputs = finite.keep(np.array(done, np.intp), outputs)
                    if on_computed is not None:
                        on_computed(done, outputs[:n_wanted], len(bad))
                    if len(done):
                        yield np.searchsorted(rows, done), outputs
                    refused.update(bad)
                    if finite.is_hopeless:
                        break
            # Not at once: what was on its way behind a broken image is worth keeping.
            if refused and self.settings.on_error == "raise":
                raise refused[min(refused)]
            if finite.refused:
                concerned = self._with_duplicates(finite.refused)
                raise non_finite_error(neck, self.settings.precision, concerned)

        digests = [self.digests[row] for row in rows.tolist()]
        return self._store.fetch(
            self.namespaces,
            digests,
            compute,
            self.neck.n_features,
            also=None if self.settings.cache_layers is None else join_others,
            place=",".join(map(str, self._devices)),
        )

    def _with_duplicates(self, rows):
        """Return all rows that hold the same images as some rows."""
        digests = {self.digests[row] for row in rows}
        return [row for row, digest in enumerate(self.digests) if digest in digests]

    def _check_runtime(self, neck):
        """Raise `_NotByOpenVINO` if that was chosen by rule and cannot run a neck."""
        settings = self.settings
        if not self._may_be_torch or settings.device_type is None:
            return
        if settings.runtime == "openvino" and not self._beside(
            lambda device: neck.can_compile("openvino", device, settings.precision)
        ):
            raise _NotByOpenVINO

    def _namespaces(self, neck):
        namespaces = self._described(neck)
        found = neck.fingerprint
        if found is None or not self._store.keeps_rows:
            return namespaces
        return self._store.recognize(namespaces, found.rows, found.agrees)

    def _described(self, neck):
        """Return the namespaces of a neck, of which a user's may have variants."""
        precision = self.settings.precision
        descriptions = neck.descriptions(
            precision, functools.partial(_digest_weights, file_index=self._file_index)
        )
        labels = [f"{label}, {precision}" for label in neck.labels()]
        arithmetic, in_words = describe_arithmetic(self.settings)
        descriptions = [{**one, **arithmetic} for one in descriptions]
        labels = [f"{label}{in_words}" for label in labels]
        if self.settings.jpeg_decoder != "pillow":
            # Other pixels. Rows of Pillow's are named as they were before.
            decoder = {"jpeg_decoder": self.settings.jpeg_decoder}
            descriptions = [{**one, **decoder} for one in descriptions]
            labels = [f"{label}, JPEGs by the device" for label in labels]
        return [
            Namespace(description, label, _work_of(description))
            for description, label in zip(descriptions, labels, strict=True)
        ]

    def _compute(self, rows, neck, n_images):
        if self._is_local:
            return compute_rows(
                self.source, rows, neck, self._devices, self.settings, n_images
            )
        return compute_in_shards(self.source, rows, neck, self.settings, n_images)


class _NotByOpenVINO(Exception):
    """OpenVINO was chosen by rule, and cannot run the network."""


def _work_of(description):
    """Return a name for the network that computes a layer: all but what is taken."""
    network = {
        name: value
        for name, value in description.items()
        if name not in ("layer", "pooling")
    }
    return digest_description(network)


def _digest_weights(path, file_index):
    """Return the digest of a weights file, which is read only when it has changed."""
    file = stat_file(path)
    [digest] = file_index.lookup([file])
    if digest is None:
        digest = digest_file(path)
        if is_settled(file):
            file_index.remember([file], [digest])
    return digest
