"""Which stages of a body learn in which epoch."""

import math

from ._registry import look_up

__all__ = ["first_trained_stage"]

# Gradual unfreezing reaches the first stage when so much of the run is done.
_GRADUAL_SHARE = 0.5


def first_trained_stage(unfreeze, n_stages, epoch, n_epochs):
    """Return the number of the first stage that learns in an epoch.

    Parameters
    ----------
    unfreeze : {"all", "gradual"}, int or None
        An int is the number of the last stages that learn. ``"gradual"`` begins with
        the last stage and adds the one before it, until half of the epochs are done
        (Howard and Ruder, "Universal language model fine-tuning", 2018).
    n_stages, epoch, n_epochs : int
        Epochs are counted from 0.

    Returns
    -------
    int
        0 to `n_stages`; `n_stages` where the whole body is frozen.
    """
    if isinstance(unfreeze, str | None):
        return look_up(_BY_NAME, unfreeze, "unfreeze")(n_stages, epoch, n_epochs)
    return max(0, n_stages - unfreeze)


def _gradual(n_stages, epoch, n_epochs):
    n_until_all = max(1.0, _GRADUAL_SHARE * n_epochs)
    # Divided last, so that what comes out even is not rounded up.
    return max(0, n_stages - math.ceil((epoch + 1) * n_stages / n_until_all))


_BY_NAME = {
    "all": lambda n_stages, epoch, n_epochs: 0,
    None: lambda n_stages, epoch, n_epochs: n_stages,
    "gradual": _gradual,
}
