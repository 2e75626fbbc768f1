"""What the estimators share: checks of codes, held-out rows, epochs."""

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array

from ..training import epochs_of_steps


def check_codes(estimator, X):
    """Return codes as float32, shape (n_samples, n_units).

    Raises
    ------
    ValueError
        If they have another number of features than those of the fitted estimator.
    """
    codes = check_array(X, dtype=np.float32, estimator=estimator, input_name="X")
    n_units = estimator._n_features_out
    if codes.shape[1] != n_units:
        raise ValueError(
            f"X must hold codes of {n_units} features, as transform returns them. "
            f"Got {codes.shape[1]} features."
        )
    # Those of frames may be read-only, of which torch warns.
    return np.require(codes, requirements="W")


def hold_out(estimator, rows, seed):
    """Return the rows to train on and the others, by `validation_fraction`."""
    fraction = estimator.validation_fraction
    try:
        return train_test_split(rows, test_size=fraction, random_state=seed)
    except ValueError as error:
        raise ValueError(
            "The 'validation_fraction' parameter must leave rows on both sides. Got "
            f"{fraction!r} and {len(rows)} rows ({error})."
        ) from error


def resolve_epochs(estimator, n_samples, n_steps, bounds):
    """Return `max_epochs`; "auto" means about this many steps, within bounds."""
    if estimator.max_epochs != "auto":
        return estimator.max_epochs
    return epochs_of_steps(n_steps, n_samples, estimator.batch_size, bounds)
