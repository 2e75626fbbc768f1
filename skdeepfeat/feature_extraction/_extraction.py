"""From X to features: items, neck and cache, wired together for one call.

X becomes an `ItemSource`, in most cases of images. Its digests tell the cache which
features are known. Only what is missing is read in threads, run through the neck in
batches, and stored batch by batch. docs/architecture.md draws the whole way.
"""

import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from .._utils._device import resolve_devices
from .._utils._digests import digest_description, digest_file
from .._utils._filestat import is_settled, stat_file
from .._utils._printable import printable
from .._utils._threads import all_cores
from ..cache import Namespace, Store, open_cache
from ..networks import RememberedNeck
from ._compute import compute_features
from ._failures import (
    GIVE_UP_AFTER,
    first_failure,
    non_finite_error,
    warn_of,
    warn_of_unknown_items,
    warn_of_unstable,
)
from ._item_identity import identify_by_items
from ._settings import count_workers, settle_arithmetic
from ._workers import compute_in_shards

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_extraction(X, neck, cache, settings, in_parts=False):
    """Read X and open the cache for the body of a ``with``.

    Parameters
    ----------
    X : ItemSource, or images in any form that `images.make_image_source` takes
    neck : networks.Neck
        A snapshot, if it is an `ItemNeck`.
    cache : value of an estimator's `cache` parameter, or an open Store
    settings : ExtractionSettings
    in_parts : bool, default=False
        Whether only `Extraction.features` is wanted. Then images are computed while
        others are read for the first time.

    Yields
    ------
    Extraction

    Raises
    ------
    BadImageError
        With ``on_error="raise"``, if an image cannot be read at all.
    """
    store = cache if isinstance(cache, Store) else open_cache(cache).open()
    with store, contextlib.ExitStack() as stack:
        settings = replace(settings, converted=store.converted)
        yield Extraction(X, neck, store, settings, stack if in_parts else None)


class Extraction:
    """X on its way to features: its images, their digests, and what cannot be read.

    Parameters
    ----------
    X, neck, settings
        As in `open_extraction`.
    store : cache.Store
        Open.
    reading : contextlib.ExitStack or None
        If given, images may still be read until it is closed, and only `features` may
        be called.

    Attributes
    ----------
    store : cache.Store
        One that keeps nothing if the network is a user's own and cannot be recognized.
    devices : list of torch.device
        The devices that the network runs on. Empty if workers run it.
    source : ItemSource
    digests : list of bytes or None
        The digest of each image that was read; None where it could not be read.
    namespaces : list of cache.Namespace
        For each of the neck's outputs, what its features depend on in addition to the
        image.
    """

    def __init__(self, X, neck, store, settings, reading=None):
        self.store = store
        is_local = count_workers(settings.n_jobs) == 1
        # Workers may have devices that this machine lacks.
        self.devices = resolve_devices(settings.device) if is_local else []
        self._can_fall_back = settings.runtime == "auto"
        self.settings = settle_arithmetic(neck, self.devices, settings)
        self.source = settings.read(X)
        # Reading is usually over after a second.
        bar = settings.progress_bar(
            len(self.source), "reading", self.source.kind, delay=1, leave=False
        )
        self.digests, self._failures, self._bar = [], {}, None
        with bar:
            if reading is None:
                parts = iter([self.source.digests(store, bar.update, keeps=True)])
            else:
                parts = self.source.digests_in_parts(store, bar.update)
                reading.callback(parts.close)
            self._parts = parts
            # Nothing has been computed yet, so nothing is lost by raising now.
            self._read_part()
        self.neck, self._joined_neck = neck, None
        self._has_finite = False  # whether any row that was computed is finite
        self._not_finite: list[int] = []
        # Rows that were computed to find out what the network is, by digest.
        self._known: dict[bytes, list] = {}
        if neck.is_own and store.keeps_rows:
            self._identify()
        else:
            self.namespaces = self._make_namespaces(self.neck)

    def _read_part(self):
        """Read some more images; return their digests."""
        if self._bar is not None:  # cached images and duplicates
            self._bar.update(len(self.digests) - self._bar.n)
        digests, failures = next(self._parts)
        self.digests += digests
        self._failures.update(failures)
        self._raise_failure()
        return digests

    def _identify(self):
        """Find out what a user's own network is; compute with a private copy of it.

        The features of a network that cannot be recognized are not cached.
        """
        if self.neck.spec.takes_items:
            return self._identify_by_items()
        self.neck = self._run_in_thread(self.neck.identified)
        if not self.neck.fingerprint.is_stable and self.store.keeps_rows:
            warn_of_unstable(self.neck)
            self.store = Store()
        self.namespaces = self._make_namespaces(self.neck)

    def _identify_by_items(self):
        plain, found = self._describe_outputs(self.neck), None
        if self.source.unknown:
            warn_of_unknown_items(self.source)
        elif any(self.digests):  # none if `key` failed for all items
            found = identify_by_items(self, plain, self._run_in_thread)
            if found is None:
                warn_of_unstable(self.neck)
        if found is None:
            self.store, found = Store(), (plain, {})
        self.namespaces, self._known = found

    def describe_network(self):
        """Return what the features depend on in addition to the images, as JSON types.

        For two jobs with the same network, `as_noted` makes these equal.
        """
        if self.neck.is_own and self.neck.fingerprint is None:
            self._identify()
        fingerprint = self.neck.fingerprint
        keys = [namespace.key for namespace in self._describe_outputs(self.neck)]
        if fingerprint is None or not fingerprint.is_stable:
            return {"network": keys}
        return {"network": keys, "probe": fingerprint.summary()}

    def as_noted(self, job, noted):
        """Return a job in the words of an earlier one if both mean the same network.

        Parameters
        ----------
        job : dict
            Includes what `describe_network` returns.
        noted : dict or None
        """
        probe = (noted or {}).get("probe")
        if "probe" in job and self.neck.fingerprint.agrees_with_summary(probe):
            return {**job, "probe": probe}
        return job

    def __len__(self):
        return len(self.source)

    def n_missing(self):
        """Return the number of images whose features are not in the cache."""
        missing = self.store.missing(self.namespaces, self.digests)
        return sum(digest in missing for digest in self.digests)

    def features(self, *, warns=True, in_training=False):
        """Return the features of all images, and warn of images that cannot be read.

        Parameters
        ----------
        warns : bool, default=True
            Whether to give the warning.
        in_training : bool, default=False
            For the warning: whether a fit leaves out these images.

        Returns
        -------
        ndarray of float32, shape (n_images, n_features)
            The neck's outputs side by side. As in `fetch`, row i belongs to image i.

        Raises
        ------
        BadImageError, NonFiniteOutputError
            As in `fetch`.
        """
        indices = np.arange(len(self.source))
        if len(self.digests) == len(self.source):
            outputs = self.fetch(indices)
        else:
            title = printable(self.neck.spec.model_name)
            bar = self.settings.progress_bar(len(indices), title, self.source.kind)
            with bar:
                self._bar = bar
                outputs = self.fetch(indices, lambda done, *_: bar.update(len(done)))
                bar.update(len(indices) - bar.n)
        if self._failures and warns:
            warn_of(self.failures(), in_training=in_training)
        return side_by_side(outputs)

    def _with_copies(self, indices):
        """Return the indices of all images with the content of one of some images."""
        concerned = {self.digests[i] for i in indices}
        return [i for i, digest in enumerate(self.digests) if digest in concerned]

    def failures(self):
        """Return a `BadImageError` for each image found so far that cannot be read."""
        of = {self.digests[i]: error for i, error in self._failures.items()}
        return [
            self._failures.get(i) or of[self.digests[i]].at(i, self.source.describe(i))
            for i in self._with_copies(self._failures)
        ]

    def failed(self, indices=None):
        """Return which images, fetched before, could not be read.

        Parameters
        ----------
        indices : ndarray of int or None, default=None
            None means all images.

        Returns
        -------
        ndarray of bool
        """
        digests = self.digests
        if indices is not None:
            digests = [digests[i] for i in indices.tolist()]
        bad = {self.digests[i] for i in self._failures}
        return np.array([digest in bad for digest in digests], dtype=bool)

    def fetch(self, indices, on_computed=None):
        """Return the features of some of the images, computing those not known.

        Parameters
        ----------
        indices : ndarray of int, ascending
            All of them, if some are still to be read.
        on_computed : callable, default=None
            ``on_computed(indices, outputs, n_bad)`` is called for every batch that went
            through the neck, instead of showing a progress bar: with some of `indices`,
            an array for each of the neck's outputs, and the number of images in the
            batch that could not be read.

        Returns
        -------
        list of ndarray of float32, shape (len(indices), n_features of the output)
            The rows of images that could not be read are NaN; `failed` tells which.

        Raises
        ------
        BadImageError
            With ``on_error="raise"``, at the first image that cannot be read.
        NonFiniteOutputError
            If the network returns NaN or infinite values for an image that can be read.
            The finite features of other images are then in the cache.
        """
        joins = self.settings.cache_layers is not None and self.store.keeps_rows

        def compute(positions):
            neck = self._joined() if joins else self._resolved()
            return self._compute(neck, indices, positions, on_computed)

        n_read = len(self.digests)
        try:
            outputs = self.store.fetch(
                self.namespaces,
                [self.digests[i] for i in indices.tolist() if i < n_read],
                compute,
                self.neck.n_features,
                also=self._joined_namespaces if joins else None,
                place=",".join(map(str, self.devices)),
                n_rows=len(indices),
                read_more=self._read_part,
            )
        except _OtherFeatures:
            # Nothing has been computed yet. The cache stores these features separately.
            self.namespaces = self._make_namespaces(self.neck)
            return self.fetch(indices, on_computed)
        if self._not_finite:
            raise self._not_finite_error()
        return outputs

    def _resolved(self):
        """Return the neck that computes; a remembered one only names rows."""
        if isinstance(self.neck, RememberedNeck):
            self.neck = self.neck.resolved
            if self._make_namespaces(self.neck) != self.namespaces:
                name = printable(self.neck.spec.model_name)
                logger.warning("the cached note about %s was wrong", name)
                raise _OtherFeatures
        return self.neck

    def _joined(self):
        """Return the neck with the layers that are computed for the cache only."""
        neck, layers = self._resolved(), self.settings.cache_layers
        if self._joined_neck is None:
            self._joined_neck = self._run_in_thread(
                lambda device: neck.joined(layers, device)
            )
        return self._joined_neck

    def _joined_namespaces(self):
        return self._make_namespaces(self._joined())[len(self.namespaces) :]

    def _compute(self, neck, indices, positions, on_computed):
        """Yield the features at some positions of `indices`, as `cache.fetch` asks."""
        settings, n_wanted = self.settings, len(self.namespaces)
        if self._can_fall_back and settings.runtime == "openvino":
            if not self._run_in_thread(
                lambda device: neck.can_compile(
                    "openvino", device, settings.precision, settings.converted
                )
            ):
                self.settings = replace(self.settings, runtime="torch")
                raise _OtherFeatures
        logger.info(
            "computing the features of %d of %d %ss",
            len(positions),
            len(self.source),
            self.source.kind,
        )
        n_images, verbose = len(positions), settings.verbose
        if on_computed is not None:  # a part of a job that shows its own progress
            # The choice of the runtime must not depend on how much of X is left.
            n_images, verbose = len(self.source), 0
        n_images = settings.n_images or n_images
        settings = replace(settings, n_images=n_images, verbose=verbose)
        batches = self._batches(neck, indices[positions], settings)
        n_not_finite = n_finite = 0
        bar = settings.progress_bar(
            len(positions), printable(neck.spec.model_name), self.source.kind
        )
        with bar, contextlib.closing(batches):
            for done, outputs, failures in batches:
                self._failures.update(failures)
                bar.update(len(done) + len(failures))
                done = np.array(done, np.intp)
                finite = np.ones(len(done), bool)
                for output in outputs[:n_wanted] if len(done) else ():
                    finite &= np.isfinite(output).all(axis=1)
                if not finite.all():
                    self._not_finite += done[~finite].tolist()
                    n_not_finite += int((~finite).sum())
                    done = done[finite]
                    outputs = [output[finite] for output in outputs]
                n_finite += len(done)
                self._has_finite |= bool(n_finite)
                if on_computed is not None:
                    on_computed(done, outputs[:n_wanted], len(failures))
                if len(done):
                    yield np.searchsorted(indices, done), outputs
                if not n_finite and n_not_finite >= GIVE_UP_AFTER:
                    break
        # Not immediately: features computed after a broken image are worth storing.
        self._raise_failure()
        if self._not_finite and not self._has_finite:
            raise self._not_finite_error()

    def _not_finite_error(self):
        indices = self._with_copies(self._not_finite)
        return non_finite_error(self.neck, self.settings.precision, indices)

    def _batches(self, neck, indices, settings):
        """Yield features as `compute_features` does, first those that are known."""
        is_known = np.array([self.digests[i] in self._known for i in indices.tolist()])
        known, missing = indices[is_known].tolist(), indices[~is_known]
        if known:
            rows = [self._known[self.digests[i]] for i in known]
            yield known, [np.stack(values) for values in zip(*rows, strict=True)], {}
        if not len(missing):
            return
        if self.devices:
            batches = compute_features(
                self.source, missing, neck, self.devices, settings
            )
        else:
            _ = neck.outputs  # computed here once, not in each worker
            batches = compute_in_shards(self.source, missing, neck, settings)
        with contextlib.closing(batches):
            yield from batches

    def _raise_failure(self):
        if self._failures and self.settings.on_error == "raise":
            raise first_failure(self._failures)

    def _run_in_thread(self, function):
        """Return ``function(device)``, called in a new thread.

        The device is one that this machine has. torch starts threads for each thread
        that computes, and a process forked from that thread lacks them. Those of a
        thread that has ended do no harm in a forked process.
        """
        device = self.devices[0] if self.devices else torch.device("cpu")
        with ThreadPoolExecutor(1, "skdeepfeat-compute") as pool:
            return pool.submit(all_cores(device)(function), device).result()

    def _make_namespaces(self, neck):
        namespaces, fingerprint = self._describe_outputs(neck), neck.fingerprint
        if fingerprint is None or not self.store.keeps_rows:
            return namespaces
        return self.store.recognize(namespaces, fingerprint.rows, fingerprint.agrees)

    def _describe_outputs(self, neck):
        """Return the namespaces of a neck, before variants of a user's network."""
        settings, more, in_words = self.settings, {}, self.settings.precision
        if settings.device_type is not None:
            runtime, device = settings.runtime, settings.device_type
            more["computed by"] = {"runtime": runtime, "device": device}
            in_words += f" by {runtime} on {device}"
        namespaces = []
        for found in neck.descriptions(settings.precision, self._digest_weights):
            pooling = {found["pooling"]} - {"auto"}
            place = "_".join([neck.spec.model_name, found["layer"], *pooling])
            description = {**found, **more}
            # The network that computes a layer, without the choice of the layer.
            network = {**description, "layer": None, "pooling": None}
            work = digest_description(network)
            namespaces.append(Namespace(description, f"{place}, {in_words}", work))
        return namespaces

    def _digest_weights(self, path):
        """Return the digest of a weights file, which is read only if it has changed."""
        file = stat_file(path)
        [digest] = self.store.lookup([file])
        if digest is None:
            digest = digest_file(path)
            if is_settled(file):
                self.store.remember([file], [digest])
        return digest


def side_by_side(outputs):
    """Return the features of several outputs as one array, without needless copies."""
    return outputs[0] if len(outputs) == 1 else np.hstack(outputs)


class _OtherFeatures(Exception):
    """What will be computed is not what `namespaces` say, so these are made again."""
