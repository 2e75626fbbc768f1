"""The features of several layers of an extractor's network, from one pass."""

from dataclasses import dataclass, replace

import numpy as np

from .._utils._public_function import public_function
from ._extraction import open_extraction
from ._failures import warn_of


@dataclass(frozen=True, eq=False)
class LayerFeatures:
    """What `extract_layers` returns.

    Attributes
    ----------
    network : str
        The short name of the network.
    names : list of str
        The layers, as in `list_layers`.
    depths : list of float
        For each layer the share of the network's floating-point operations, from 0 to
        1, that is needed to compute it.
    features : list of ndarray of float32, shape (n_images, n_features of the layer)
        The rows of images that could not be read are NaN.
    failed : ndarray of bool, shape (n_images,)
        Which images could not be read. All False with ``on_error="raise"``.
    failures : list of BadImageError
        One for each of these images.
    """

    network: str
    names: list[str]
    depths: list[float]
    features: list[np.ndarray]
    failed: np.ndarray
    failures: list


@public_function
def extract_layers(extractor, X, layers, *, n_images=None, warns=True):
    """Return the features of several layers, each image in one pass for all of them.

    The cache of the extractor is used for each layer. An image goes through the
    network if one of its layers is not known.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor
    X : images, as for its `transform`
    layers : list of str and int, "stages", or None
        ``"stages"`` means all stages and the neck. None means the extractor's `layer`.
    n_images : int or None, default=None
        The number of images in the whole job, if X is only a part of it.
    warns : bool, default=True
        Whether to give one `BadImageWarning` about images that could not be read.

    Returns
    -------
    LayerFeatures

    Raises
    ------
    TypeError, ValueError
        If a parameter is wrong. Those about `layers` begin with that name.
    BadImageError, NonFiniteOutputError
        As `PretrainedFeatureExtractor.transform` does.
    """
    X, neck, settings = extractor._inspected(X)
    if layers is not None:
        neck = neck.with_layers(layers)
    settings = replace(settings, n_images=n_images)
    with open_extraction(X, neck, extractor.cache, settings) as extraction:
        features = extraction.fetch(np.arange(len(extraction)))
        failures, failed = extraction.failures(), extraction.failed()
    if failures and warns:
        warn_of(failures)
    names = [one.layer for one in neck.outputs]
    return LayerFeatures(
        neck.spec.model_name, names, neck.depths(), features, failed, failures
    )
