"""activation_maps: which parts of an image are evidence for a class."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from .._utils._choices import DEFAULT_MAX_PIXELS
from .._utils._parameter_errors import check_count, look_up
from .._utils._public_function import public_function
from ..feature_extraction import load_readable
from ..images import make_image_source
from ._cam import cam
from ._ends import NotLinearError, results_of
from ._grad_cam import grad_cam
from ._occlusion import occlusion, occlusion_map
from ._parts import take_apart
from ._targets import Targets

# ``method(parts, pixels, indices, targets, *, layer, grid) -> maps``. A new method is
# an entry here.
#
# parts : Parts
# pixels : ndarray of uint8, shape (n_images, height, width, 3)
# indices : ndarray of int
#     The images that could be read.
# targets : Targets
#     `choose` is called for each of them.
# layer : str, int or None
# grid : int
# maps : ndarray of float32, shape (len(indices), map_height, map_width)
METHODS: dict[str, Callable] = {"cam": cam, "gradcam": grad_cam, "occlusion": occlusion}


@dataclass
class Explanation:
    """Activation maps, with the images and the targets that they belong to.

    Attributes
    ----------
    maps : ndarray of float32, shape (n_images, height, width)
    images : sequence of ndarray of uint8, shape (height, width, 3) or (height, width)
        What the network saw.
    targets : list
        The class, or the index of the output, of each image. None for an image that
        could not be read.
    """

    maps: np.ndarray
    images: np.ndarray | list
    targets: list


@public_function
def activation_maps(
    estimator,
    X,
    target="predicted",
    method="gradcam",
    layer=None,
    relu=False,
    *,
    grid=7,
    flat_image_shape=None,
):
    """Return which parts of images are evidence for a class or an output.

    Parameters
    ----------
    estimator : estimator
        Fitted: a `FineTuneClassifier` or `FineTuneRegressor`, a Pipeline with a
        `PretrainedFeatureExtractor` and any steps after it, or a search over one of
        these. With ``method="occlusion"``, any classifier or regressor of images.

    X : array-like of images, shape (n_samples,) or as the estimator takes them
        The images.

    target : "predicted", class, int, or array-like of shape (n_samples,), \
default="predicted"
        What the maps are for.

        * ``"predicted"``: the class with the highest score, or the output of a
          regressor with one output.
        * A class: as in ``estimator.classes_``.
        * An integer, for a regressor: the index of an output.
        * Several: one for each image, such as the true labels.

    method : {"gradcam", "cam", "occlusion"}, default="gradcam"
        * ``"cam"``: class activation maps [1]_ of features that are the mean of a map
          over its positions, followed by a linear model, such as logistic regression.
          Scalers and PCA may be in between. The maps are exact and need no gradients:
          the mean of a map over its positions, plus the intercept, is the score.
        * ``"gradcam"``: the channels of any layer, weighted by the mean gradient of the
          score [2]_. For fine-tuned networks, and for linear models that follow an
          extractor. For the map that is averaged, the result is the map of ``"cam"``
          divided by its number of positions.
        * ``"occlusion"``: how much the result falls when a square of the image is
          covered with the mean color of the image [3]_. For any estimator. The result
          of a classifier is the probability of the class if it has `predict_proba`,
          otherwise its score, or else whether it is predicted. The result of a
          regressor is the output.

    layer : str, int or None, default=None
        The layer whose map is weighted, as in `skdeepfeat.list_layers`. None is the
        last one with positions that the score depends on. For ``"cam"``, no other layer
        is possible. Ignored by ``"occlusion"``.

    relu : bool, default=False
        Whether to set negative values to 0. They are evidence against the target.

    grid : int, default=7
        Number of rows and of columns of the maps of ``"occlusion"``. Each image is run
        ``grid ** 2 + 1`` times. A square has twice the side of a cell.

    flat_image_shape : tuple of (int, int) or (int, int, int), or None, default=None
        The shape of an image, if the estimator has no extractor and X is a table with
        one flattened image per row.

    Returns
    -------
    maps : ndarray of float32, shape (n_samples, height, width)
        At the resolution of the layer. Positive values are evidence for the target. A
        map covers the part of the image that the network sees. With ``on_error="nan"``,
        maps of images that cannot be read are NaN.

    Raises
    ------
    ValueError
        If the target is not a class or output, if the layer has no positions, or if the
        method does not support the estimator. The text says which method to use
        instead.
    BadImageError
        If an image cannot be read, with ``on_error="raise"`` of the extractor or the
        fine-tuned estimator, or without either.
    NonFiniteOutputError
        If the network returns NaN or infinite values for an image that can be read.

    See Also
    --------
    skdeepfeat.plotting.ActivationMapDisplay : Draws them over the images.

    Notes
    -----
    The network runs in float32 on the device of the estimator. The user's module is not
    changed. For tokens, the class token and register tokens are left out. With
    `test_time_augmentation`, only the center of the image is used.

    References
    ----------
    .. [1] Zhou et al., "Learning deep features for discriminative localization", CVPR
       2016.
    .. [2] Selvaraju et al., "Grad-CAM: Visual explanations from deep networks via
       gradient-based localization", ICCV 2017.
    .. [3] Zeiler and Fergus, "Visualizing and understanding convolutional networks",
       ECCV 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.inspection import activation_maps
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    >>> X[::2, :32, :32] = 255
    >>> y = np.tile(["square", "noise"], 4)
    >>> features = PretrainedFeatureExtractor(image_size=64, cache=None)
    >>> pipe = make_pipeline(features, LogisticRegression()).fit(X, y)
    >>> activation_maps(pipe, X, method="cam").shape
    (8, 2, 2)
    """
    return explain(
        estimator, X, target, method, layer, relu, grid, flat_image_shape
    ).maps


@public_function
def explain(estimator, X, target, method, layer, relu, grid, flat_image_shape):
    """Return the `Explanation` of images. Parameters are those of `activation_maps`."""
    look_up(METHODS, method, "method")
    check_count("grid", grid)
    parts = take_apart(estimator, X)
    if parts is None:
        if method != "occlusion":
            raise ValueError(
                "The 'estimator' parameter must be a FineTuneClassifier, a "
                "FineTuneRegressor or a Pipeline with a PretrainedFeatureExtractor as "
                f"one of its steps for method={method!r}; method='occlusion' takes "
                f"any estimator. Got {type(estimator).__name__} instead."
            )
        found = _occlude_any(estimator, X, target, grid, flat_image_shape)
    else:
        found = _explain_parts(parts, target, method, layer=layer, grid=grid)
    if relu:
        np.maximum(found.maps, 0, out=found.maps)
    return found


def _explain_parts(parts, target, method, **options):
    if parts.end is None:
        raise ValueError(
            "The 'estimator' parameter must end in a classifier or a regressor, such "
            "as make_pipeline(extractor, LogisticRegression()). Got an extractor alone "
            "instead."
        )
    pixels, indices = load_readable(parts.X, parts.neck.preprocessing, parts.settings)
    targets = Targets(target, parts.end.classes, len(pixels))
    found = np.empty((0, 1, 1))
    try:
        if len(indices):
            found = METHODS[method](parts, pixels, indices, targets, **options)
    except NotLinearError:
        raise ValueError(
            f"The 'estimator' parameter must end in a linear model for "
            f"method={method!r}, such as LogisticRegression or Ridge, with only linear "
            "steps such as StandardScaler or PCA before it; method='occlusion' takes "
            f"any estimator. Got {parts.end.name} instead."
        ) from None
    maps = np.full((len(pixels), *found.shape[1:]), np.nan, np.float32)
    maps[indices] = found
    return Explanation(maps, pixels, targets.labels())


def _occlude_any(estimator, X, target, grid, flat_image_shape):
    """Return the `Explanation` of an estimator that takes whole images."""
    check_is_fitted(estimator)
    source = make_image_source(X, flat_image_shape, max_pixels=DEFAULT_MAX_PIXELS)
    # Values of arrays and frames stay as given, such as floats.
    is_frame = isinstance(X, pd.DataFrame)
    as_given = np.asarray(X) if is_frame or isinstance(X, np.ndarray) else None
    is_array = as_given is not None and as_given.dtype.kind in "biuf"
    images = seen = [source.pixels(i) for i in range(len(source))]
    if is_array:
        shape = as_given.shape[1:] if as_given.ndim > 2 else tuple(flat_image_shape)
        images = as_given.reshape(len(as_given), *shape)

    def results(covered):
        if is_array:
            covered = np.stack(covered).reshape(len(covered), *as_given.shape[1:])
        if is_array and is_frame:
            covered = pd.DataFrame(covered, columns=X.columns)
        return results_of(estimator, covered)

    targets = Targets(target, getattr(estimator, "classes_", None), len(source))
    maps = np.stack(
        [
            occlusion_map(np.asarray(image), results, targets, index, grid)
            for index, image in enumerate(images)
        ]
    )
    return Explanation(maps.astype(np.float32), seen, targets.labels())
