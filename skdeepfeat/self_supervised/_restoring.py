"""What both autoencoders share: parameters, checks and passes."""

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array
from sklearn.utils._param_validation import StrOptions

from .._utils._constraints import INNER_FRACTION, NOT_NEGATIVE, POSITIVE, POSITIVE_INT
from .._utils._device import compute_context
from .._utils._forks import undisturbed_by_forks
from ._corruptions import CORRUPTIONS

_CPU = torch.device("cpu")


CONSTRAINTS = {
    "corruption": [StrOptions(set(CORRUPTIONS)), None],
    "corruption_level": [NOT_NEGATIVE],
    "max_epochs": [StrOptions({"auto"}), POSITIVE_INT],
    "learning_rate": [POSITIVE],
    "early_stopping": ["boolean"],
    "validation_fraction": [INNER_FRACTION],
    "n_iter_no_change": [POSITIVE_INT],
    "random_state": ["random_state"],
}


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
    """Return the rows to train on, and those for early stopping or None."""
    if not estimator.early_stopping:
        return rows, None
    fraction = estimator.validation_fraction
    try:
        return train_test_split(rows, test_size=fraction, random_state=seed)
    except ValueError as error:
        raise ValueError(
            "The 'validation_fraction' parameter must leave rows on both sides. Got "
            f"{fraction!r} and {len(rows)} rows ({error})."
        ) from error


@undisturbed_by_forks()
def compute_in_parts(function, inputs, n_at_once, device=_CPU):
    """Return a function of many inputs, on the CPU."""
    with compute_context(device, "float32"):
        parts = inputs.split(n_at_once)
        return torch.cat([function(part.to(device)).cpu() for part in parts])


def make_validate(loss, inputs, n_at_once, device):
    """Return ``validate(model) -> (loss, score)`` for held-out inputs."""

    def validate(model):
        model.eval()
        losses = compute_in_parts(
            lambda part: loss(model(part), part), inputs, n_at_once, device
        )
        loss_of_all = float(losses.mean())
        return loss_of_all, -loss_of_all

    return validate
