"""Small pictures of the images in X, for displays."""

import numpy as np
from PIL import Image
from sklearn.pipeline import Pipeline

from ..exceptions import BadImageError
from ..feature_extraction import ImageEstimatorMixin, errors_about
from ..images import make_image_source


def load_thumbnails(X, n_images, indices, size, estimator=None):
    """Return small pictures of some of the images, and their paths.

    Parameters
    ----------
    X : images in any of the forms that an extractor takes
    n_images : int
        The number of images that X must have.
    indices : iterable of int
    size : int
        The longer side, in pixels. Smaller images keep their size.
    estimator : estimator or None, default=None
        The one that takes X. Its extractor says how images are read.

    Returns
    -------
    pictures : list of ndarray of uint8, shape (height, width, 3), or None
        None for an image that cannot be read.
    paths : list of str or None
        None for an image that is not a file.
    """
    with errors_about("images"):
        source = make_image_source(X, **_options_of(estimator))
    if len(source) != n_images:
        raise ValueError(
            f"The 'images' parameter must have one image for each of the {n_images} "
            f"predictions or features. Got {len(source)} images."
        )
    indices = [int(i) for i in indices]
    pictures = [_thumbnail(source, i, size) for i in indices]
    return pictures, [source.path(i) for i in indices]


def _thumbnail(source, i, size):
    try:
        pixels = source.pixels(i)
    except BadImageError:
        return None
    image = Image.fromarray(pixels).convert("RGB")
    image.thumbnail((size, size))
    return np.asarray(image)


def _options_of(estimator):
    """Return how the first estimator with images in a pipeline reads them."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if isinstance(estimator, Pipeline) and estimator.steps:
        return _options_of(estimator.steps[0][1])
    if not isinstance(estimator, ImageEstimatorMixin):
        return {}
    names = ("flat_image_shape", "max_pixels", "storage_options")
    return {name: getattr(estimator, name) for name in names}
