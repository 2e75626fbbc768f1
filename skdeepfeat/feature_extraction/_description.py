"""What an extractor is and what it costs, for people who look at it in a notebook."""

from dataclasses import dataclass

import numpy as np

from .._utils._html import html_table
from .._utils._printable import printable, redacted
from ._extraction import open_extraction
from ._inspected import inspected
from ._speed import seconds_per_image

# Images that are made to be timed if there is no X.
_N_MADE = 64


@dataclass(frozen=True)
class ExtractorDescription:
    """What `PretrainedFeatureExtractor.describe` returns. Print it for a summary.

    Attributes
    ----------
    model : str
        The network.
    weights : str
    layers : tuple of str
        The layers whose output is returned.
    n_features : int
    image_size : tuple of (int, int)
        Height and width that the network sees, in pixels.
    n_parameters : int
        Of the whole network.
    n_operations : int
        Floating-point operations for one image, up to the last of `layers`.
    device, precision : str
        Where the network runs and what it computes in. `device` is ``"workers"`` if
        `n_jobs` starts some.
    seconds_per_image : float or None
        For an image that is not in the cache, on this machine, as busy as it is, after
        loading. None if it was not measured.
    cache : str or None
        Path of the cache.
    n_cached : int
        Number of images whose features of these layers are in the cache. Of several
        layers, the one with the fewest counts.
    n_images, n_hits : int or None
        Number of images of `X`, and of those of them that are in the cache. None
        without `X`.
    """

    model: str
    weights: str
    layers: tuple[str, ...]
    n_features: int
    image_size: tuple[int, int]
    n_parameters: int
    n_operations: int
    device: str
    precision: str
    seconds_per_image: float | None
    cache: str | None
    n_cached: int
    n_images: int | None = None
    n_hits: int | None = None

    def _rows(self):
        """Return pairs of a name and a text."""
        height, width = self.image_size
        rows = [
            ("network", f"{self.model}, weights {self.weights}"),
            ("layers", ", ".join(self.layers)),
            ("features", f"{self.n_features:,}"),
            (
                "size",
                f"{self.n_parameters / 1e6:.3g} million parameters, "
                f"{4 * self.n_parameters / 1e6:.3g} MB in float32",
            ),
            (
                "image",
                f"{height} x {width} pixels, {self.n_operations / 1e9:.3g} billion "
                "operations",
            ),
            ("runs on", f"{self.device}, {self.precision}"),
        ]
        if self.seconds_per_image is not None:
            rows.append(("time", f"{1000 * self.seconds_per_image:.3g} ms per image"))
        if self.cache is None:
            rows.append(("cache", "none"))
        else:
            rows.append(("cache", f"{self.n_cached:,} images in {self.cache}"))
        if self.n_images is not None:
            rows.append(("X", self._hits()))
        return rows

    def _hits(self):
        n_missing = self.n_images - self.n_hits
        text = f"{self.n_hits:,} of {self.n_images:,} images are in the cache"
        if n_missing and self.seconds_per_image is not None:
            text += f", the others take {self.seconds_per_image * n_missing:.3g} s"
        return text

    def __str__(self):
        rows = self._rows()
        return "\n".join(f"{name:<8} {redacted(printable(t))}" for name, t in rows)

    def _repr_html_(self):
        return html_table("PretrainedFeatureExtractor", self._rows())


def describe_extractor(extractor, X, measure):
    """Return an `ExtractorDescription`.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor
    X : images, or None
    measure : bool
    """
    has_images = X is not None
    if not has_images:
        X = _make_images(extractor)
    images, neck, settings = inspected(extractor, X)
    with open_extraction(images, neck, extractor.cache, settings) as extraction:
        info, namespaces = extraction.cache_info(), extraction.namespaces
        devices, n_images = extraction.devices, len(extraction)
        n_hits = n_images - extraction.n_missing()
    seconds = None
    if measure:
        n_expected = (n_images - n_hits or n_images) if has_images else None
        seconds = seconds_per_image(extractor, X, n_expected).now
    n_rows = {one.key: one.n_rows for one in info.namespaces}
    spec, outputs = neck.spec, neck.outputs
    return ExtractorDescription(
        model=spec.name,
        weights="of the module" if neck.is_own else spec.weights.label,
        layers=tuple(one.layer for one in outputs),
        n_features=sum(neck.n_features()),
        image_size=tuple(neck.preprocessing.crop),
        n_parameters=neck.probe.output.n_parameters,
        n_operations=max(one.source.cumulative_cost for one in outputs),
        device=", ".join(map(str, devices)) or "workers",
        precision=extractor.precision,
        seconds_per_image=seconds,
        cache=info.path,
        n_cached=min(n_rows.get(one.key, 0) for one in namespaces),
        n_images=n_images if has_images else None,
        n_hits=n_hits if has_images else None,
    )


def _make_images(extractor):
    """Return images of noise at the size that the network sees, or such flat rows."""
    _, neck, _ = inspected(extractor, None)
    shape = (*neck.preprocessing.crop, 3)
    if extractor.flat_image_shape is not None:
        shape = [int(np.prod(extractor.flat_image_shape))]
    return np.random.default_rng(0).integers(0, 256, (_N_MADE, *shape), dtype=np.uint8)
