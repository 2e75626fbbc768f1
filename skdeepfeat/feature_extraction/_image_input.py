"""What every estimator of this package says and checks about X as a whole."""

import numpy as np
from sklearn.utils.validation import _num_samples, check_array, validate_data

__all__ = ["tag_image_input", "validate_images"]


def tag_image_input(tags, flat_image_shape):
    """Fill in scikit-learn's tags about X.

    Parameters
    ----------
    tags : sklearn.utils.Tags
    flat_image_shape : tuple of int or None
        None where X is not flat rows.

    Returns
    -------
    sklearn.utils.Tags
    """
    flat = flat_image_shape is not None
    tags.input_tags.two_d_array = flat
    tags.input_tags.three_d_array = not flat
    tags.input_tags.one_d_array = not flat
    tags.input_tags.string = not flat
    return tags


def validate_images(estimator, X, *, reset):
    """Check the form of X, and set or check the names and number of its columns.

    Flat rows are scikit-learn's own ground and get its own checks. Other images are
    one column, whatever holds them; what is in it is checked by row later.

    Parameters
    ----------
    estimator : BaseEstimator
        With the parameter `flat_image_shape`.
    X : images in any form
    reset : bool
        Whether this is `fit`.

    Returns
    -------
    X
        As an array, if it holds flat rows.
    """
    # An estimator without state need not have been fitted, and then there are no
    # columns to compare those of X with.
    compares = reset or hasattr(estimator, "n_features_in_")
    if estimator.flat_image_shape is not None:
        dtype = [np.float64, np.float32, np.uint8, np.uint16, np.bool_]
        if not compares:
            return check_array(X, dtype=dtype, estimator=estimator, input_name="X")
        return validate_data(estimator, X, reset=reset, dtype=dtype)
    if hasattr(X, "columns") and compares:
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    elif reset:
        estimator.n_features_in_ = 1
        vars(estimator).pop("feature_names_in_", None)
    if hasattr(X, "__len__") and _num_samples(X) == 0:
        raise ValueError(
            f"Found array with 0 sample(s) while a minimum of 1 is required by "
            f"{type(estimator).__name__}."
        )
    return X
