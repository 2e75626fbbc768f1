"""dead_features: features that say nothing about any image."""

import numpy as np
import pandas as pd

from .._utils._parameter_errors import choice_error
from .._utils._public_function import public_function

# Rounding error relative to the largest absolute value of a feature.
_CONSTANT = 1e-6


@public_function
def dead_features(extractor, X):
    """Return which features are never active, and which are constant.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor
        An extractor, or any transformer of images with `get_feature_names_out`.
        Features that are in its cache are not computed again.

    X : array-like of images, shape (n_samples,) or as the extractor takes them
        With ``on_error="nan"`` of the extractor, images that cannot be read are left
        out.

    Returns
    -------
    features : DataFrame, one row per feature
        The index has the names of the features. The columns are

        * ``never_active``: whether no image has a value above 0. After a ReLU, such a
          unit is dead. After another activation, the average over positions may be
          negative although the unit is active somewhere: use ``pooling="max"``.
        * ``constant``: whether all images have the same value, up to 1e-6 of it.
        * ``share_active``: the fraction of images with a value above 0.
        * ``largest``, ``std``: the largest value, and the standard deviation.

    Raises
    ------
    TypeError
        If the extractor is not a transformer.
    ValueError
        If there are fewer than two images that can be read.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.inspection import dead_features
    >>> X = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    >>> extractor = PretrainedFeatureExtractor(image_size=32, layer=1, pooling="max")
    >>> features = dead_features(extractor, X)
    >>> features[["never_active", "constant"]].sum().to_dict()
    {'never_active': 0, 'constant': 0}
    """
    if not hasattr(extractor, "transform"):
        wanted = "a PretrainedFeatureExtractor or another transformer of images"
        raise choice_error("extractor", wanted, extractor, error=TypeError)
    rows = np.asarray(extractor.transform(X), np.float64)
    rows = rows[~np.isnan(rows).all(axis=1)]
    if len(rows) < 2:
        raise ValueError(
            "X must have at least 2 images that can be read, because one image does "
            f"not show whether a feature is constant. Got {len(rows)}."
        )
    largest, std = rows.max(axis=0), rows.std(axis=0)
    return pd.DataFrame(
        {
            "never_active": largest <= 0,
            "constant": std <= _CONSTANT * np.abs(rows).max(axis=0),
            "share_active": (rows > 0).mean(axis=0),
            "largest": largest,
            "std": std,
        },
        index=pd.Index(extractor.get_feature_names_out(), name="feature"),
    )
