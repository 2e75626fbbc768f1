"""Summary of an extractor and its cost, also as a table in a notebook."""

from dataclasses import dataclass

import numpy as np

from .._utils._html import html_table
from .._utils._printable import printable, redacted
from .._utils._public_function import public_function
from .._utils._shown import rounded
from ._extraction import open_extraction
from ._speed import seconds_per_image

# Number of generated images for the timing without X.
_N_MADE = 64


@dataclass(frozen=True)
class ExtractorDescription:
    """What `describe` of an estimator returns. Print it for a summary.

    Attributes
    ----------
    estimator : str
        The class of the estimator.
    model : str
        The network.
    weights : str
    layers : tuple of str
        The layers whose output is returned.
    n_features : int
    image_size : tuple of (int, int) or None
        Height and width of the network's input, in pixels. None for items that are
        not images.
    n_parameters : int
        Of the whole network.
    n_operations : int
        Floating-point operations for one image, up to the last of `layers`.
    device, precision : str
        Device and precision of the network. `device` is ``"workers"`` if `n_jobs`
        starts worker processes.
    seconds_per_image : float or None
        Time for an image that is not in the cache, on this machine under its current
        load, without the time to load the network. None if it was not measured.
    cache : str or None
        Path of the cache.
    n_cached : int
        Number of images whose features of these layers are in the cache. With several
        layers, the number for the layer with the fewest.
    n_images, n_hits : int or None
        Number of images in `X`, and how many of them are in the cache. None without
        `X`.
    training : str or None
        The trained part of the network. None for an estimator that trains nothing.
    """

    estimator: str
    model: str
    weights: str
    layers: tuple[str, ...]
    n_features: int
    image_size: tuple[int, int] | None
    n_parameters: int
    n_operations: int
    device: str
    precision: str
    seconds_per_image: float | None
    cache: str | None
    n_cached: int
    n_images: int | None = None
    n_hits: int | None = None
    training: str | None = None

    @property
    def _kind(self):
        return "item" if self.image_size is None else "image"

    def _rows(self):
        """Return pairs of a name and a text."""
        rows = [
            ("network", f"{self.model}, weights {self.weights}"),
            ("layers", ", ".join(self.layers)),
            ("features", f"{self.n_features:,}"),
            ("size", _size_in_words(self.n_parameters)),
        ]
        if self.training is not None:
            rows.insert(1, ("trained", self.training))
        if self.image_size is not None:
            height, width = self.image_size
            operations = f"{rounded(self.n_operations / 1e9)} billion operations"
            rows.append(("image", f"{height} x {width} pixels, {operations}"))
        rows.append(("device", f"{self.device}, {self.precision}"))
        if self.seconds_per_image is not None:
            text = f"{rounded(1000 * self.seconds_per_image)} ms per {self._kind}"
            rows.append(("time", text))
        if self.cache is None:
            rows.append(("cache", "none"))
        else:
            text = f"features of {self.n_cached:,} {self._kind}s in {self.cache}"
            rows.append(("cache", text))
        if self.n_images is not None:
            rows.append(("X", self._hits()))
        return rows

    def _hits(self):
        n_missing = self.n_images - self.n_hits
        text = f"{self.n_hits:,} of {self.n_images:,} {self._kind}s are in the cache"
        if n_missing and self.seconds_per_image is not None:
            text += f"; the rest take {rounded(self.seconds_per_image * n_missing)} s"
        return text

    def __str__(self):
        rows = self._rows()
        return "\n".join(f"{name:<8} {redacted(printable(t))}" for name, t in rows)

    def _repr_html_(self):
        return html_table(self.estimator, self._rows())


class DescribedMixin:
    """Mixin class for estimators with a network, which adds `describe`."""

    @public_function
    def describe(self, X=None, *, measure=True):
        """Describe this estimator and its cost on this machine.

        In a notebook, the result is shown as a table.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,), default=None
            Images (or items) to look up in the cache, and to use for the timing. They
            are read, and at most 64 of them go through the network. None uses noise
            images that need no decoding, or the first items of the fit.
        measure : bool, default=True
            Whether to time the network, which loads it and takes about two seconds.

        Returns
        -------
        ExtractorDescription
            Network, weights, layers, trained part, sizes, milliseconds per image, and
            the numbers of images in the cache and of images of X in the cache.

        Raises
        ------
        BadImageError, BadItemError
            If an image or an item of X cannot be read, with ``on_error="raise"``.
        ValueError
            If a fine-tuning estimator was fitted to rows of numbers.
        WeightsNotFoundError
            If the weights are not on this machine and cannot be downloaded.

        Examples
        --------
        >>> from skdeepfeat import PretrainedFeatureExtractor
        >>> extractor = PretrainedFeatureExtractor(image_size=96, cache=None)
        >>> extractor.describe(measure=False).n_features
        1280
        """
        images, neck, settings = self._inspected(X)
        has_images = X is not None
        if not has_images:
            # Items cannot be generated, so those of the fit are used.
            X = images = images if neck.spec.takes_items else _noise(self, neck)
        with open_extraction(images, neck, self.cache, settings) as extraction:
            info, namespaces = extraction.store.info(), extraction.namespaces
            devices, n_images = extraction.devices, len(extraction)
            n_hits = n_images - extraction.n_missing()
        seconds = None
        if measure:
            n_expected = (n_images - n_hits or n_images) if has_images else None
            seconds = seconds_per_image(self, X, n_expected).now
        n_rows = {one.key: one.n_rows for one in info.namespaces}
        spec, outputs = neck.spec, neck.outputs
        return ExtractorDescription(
            estimator=type(self).__name__,
            model=spec.name,
            weights=_weights_in_words(self, neck),
            layers=tuple(one.layer for one in outputs),
            n_features=sum(neck.n_features()),
            image_size=None if spec.takes_items else tuple(neck.preprocessing.crop),
            n_parameters=neck.probe.output.n_parameters,
            n_operations=max(one.source.cumulative_cost for one in outputs),
            device=", ".join(map(str, devices)) or "workers",
            precision=settings.precision,
            seconds_per_image=seconds,
            cache=info.path,
            n_cached=min(n_rows.get(one.key, 0) for one in namespaces),
            n_images=n_images if has_images else None,
            n_hits=n_hits if has_images else None,
            training=self._training_in_words(),
        )

    def _training_in_words(self):
        """Return a description of the trained part of the network, or None."""
        return None


def _size_in_words(n_parameters):
    if n_parameters < 1e6:
        number, size = f"{n_parameters:,}", f"{rounded(n_parameters / 250)} kB"
    else:
        number = f"{rounded(n_parameters / 1e6)} million"
        size = f"{rounded(n_parameters / 250_000)} MB"
    return f"{number} parameters, {size} in float32"


def _weights_in_words(extractor, neck):
    if getattr(extractor, "body_", None) is not None:
        return "as trained"
    return "of the module" if neck.is_own else neck.spec.weights.label


def _noise(extractor, neck):
    """Return images at the input size of the network, flat if it takes flat rows."""
    shape = (*neck.preprocessing.crop, 3)
    if extractor.flat_image_shape is not None:
        shape = [int(np.prod(extractor.flat_image_shape))]
    return np.random.default_rng(0).integers(0, 256, (_N_MADE, *shape), dtype=np.uint8)
