"""What `widen` and `deepen` have in common."""

import copy

import torch

from ..fine_tuning import FittedEstimator
from ._model import Model

# Relative to the largest output. Rounding errors add up over many layers, but stay far
# below the effect of a wrong mapping.
_TOLERANCE = 1e-4

_N_IMAGES = 4


def model_of(estimator, caller):
    """Return the neck and a `Model` of its own of a fine-tuned estimator.

    Raises
    ------
    TypeError
        If it is a different type of estimator.
    NotFittedError
    """
    neck = FittedEstimator(estimator, caller).neck
    return neck, Model(neck.trainable(), copy.deepcopy(estimator.head_))


def noise_for(neck):
    """Return random images for a network, uint8, shape (n_images, 3, height, width)."""
    generator = torch.Generator().manual_seed(0)
    size = (_N_IMAGES, 3, *neck.preprocessing.crop)
    return torch.randint(0, 256, size, generator=generator).to(torch.uint8)


def is_same(found, wanted):
    """Return whether outputs are equal up to rounding."""
    largest = float(wanted.abs().max()) or 1.0
    return float((found - wanted).abs().max()) <= _TOLERANCE * largest


def check_same(model, images, wanted, caller):
    """Raise if a network does not compute what it did.

    Raises
    ------
    ValueError
    """
    if not is_same(model(images), wanted):
        raise ValueError(
            f"The 'estimator' parameter of {caller} has a network, a "
            f"{type(model.network).__name__}, that computes something else after "
            f"{caller}. Its code may depend on the number of channels."
        )


def larger_estimator(estimator, model):
    """Return a fitted estimator like another one, with a larger network."""
    new = FittedEstimator(estimator).with_networks(model.network, model.head)
    # They describe another network.
    for name in ("compression_report_", "compression_summary_"):
        vars(new).pop(name, None)
    return new
