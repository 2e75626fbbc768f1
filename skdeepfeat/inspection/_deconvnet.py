"""deconvnet: from one unit of a layer back to the pixels that excite it."""

import numpy as np

from .._utils._public_function import public_function
from ..feature_extraction import load_readable
from ._parts import network_parts
from ._units import Unit, project


@public_function
def deconvnet(estimator, X, layer, feature, *, guided=False):
    """Return the pattern in each image that excites one unit of a network.

    From the position where the unit is strongest, the signal goes back to the pixels
    [1]_: through max-pooling to the position of the maximum, through ReLU where the
    signal is positive, and through convolutions by their transpose. All other units of
    the layer are set to 0.

    Parameters
    ----------
    estimator : estimator
        A `PretrainedFeatureExtractor`, a fitted `FineTuneClassifier` or
        `FineTuneRegressor`, or a fitted Pipeline or search with one of these. Only its
        network matters. The activations up to the layer must be ReLU or ReLU6.

    X : array-like of images, shape (n_samples,) or as the estimator takes them
        The images.

    layer : str or int
        The layer of the unit: a name from `skdeepfeat.list_layers`, a stage's number,
        ``"neck"`` or ``"output"``. It need not be the `layer` of the extractor.

    feature : int
        The channel of the unit, from 0.

    guided : bool, default=False
        Whether the signal also stops at ReLUs whose input is negative in this image
        (guided backpropagation [2]_). The pictures are sharper.

    Returns
    -------
    signals : ndarray of float32, shape (n_samples, height, width, 3)
        The signal at each pixel that the network sees, for an activation of 1, in units
        of the normalized input. With ``on_error="nan"``, NaN for images that cannot be
        read.

    Raises
    ------
    ValueError
        If there is no such layer or unit, or if the network has other activations. The
        message says what to use instead.
    BadImageError
        If an image cannot be read, with ``on_error="raise"``.

    See Also
    --------
    top_patches : The images that excite a unit most.
    skdeepfeat.plotting.DeconvnetDisplay : Draws the signals.

    Notes
    -----
    The paper has no batch normalization. Here, it scales the signal as it scales a
    gradient. Squeeze and excitation also passes the signal like a gradient. A ReLU that
    is written as ``clamp(min=0)`` or ``maximum(x, 0)`` is not recognized: the signal
    passes it like a gradient, wherever the input is positive.

    References
    ----------
    .. [1] Zeiler and Fergus, "Visualizing and understanding convolutional networks",
       ECCV 2014.
    .. [2] Springenberg et al., "Striving for simplicity: The all convolutional net",
       ICLR Workshops 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.inspection import deconvnet
    >>> X = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    >>> extractor = PretrainedFeatureExtractor(image_size=64)
    >>> deconvnet(extractor, X, layer=2, feature=17).shape
    (2, 64, 64, 3)
    """
    return project_images(estimator, X, layer, feature, guided=guided)[1]


@public_function
def project_images(estimator, X, layer, feature, *, guided=False):
    """Return what the network sees of the images, and the signals of `deconvnet`.

    Returns
    -------
    images : ndarray of uint8, shape (n_samples, height, width, 3)
    signals : ndarray of float32, shape (n_samples, height, width, 3)
    """
    parts = network_parts(estimator, X)
    unit = Unit(parts.neck, layer, feature)
    pixels, indices = load_readable(parts.X, parts.neck.preprocessing, parts.settings)
    signals = np.full(pixels.shape, np.nan, np.float32)
    for part, found in project(unit, parts.settings, pixels, indices, guided):
        signals[part] = found
    return pixels, signals
