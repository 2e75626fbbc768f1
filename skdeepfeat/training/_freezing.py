"""Which stages of a body learn in which epoch."""

import math

__all__ = ["first_trained_stage"]

# Gradual un-freezing reaches the first stage when so much of the run is done.
_GRADUAL_SHARE = 0.5


def first_trained_stage(unfreeze, n_stages, epoch, n_epochs):
    """Return the number of the first stage that learns in an epoch.

    Parameters
    ----------
    unfreeze : "all", "gradual", "none" or int
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
    if unfreeze == "all":
        return 0
    if unfreeze == "none":
        return n_stages
    if unfreeze == "gradual":
        n_until_all = max(1.0, _GRADUAL_SHARE * n_epochs)
        # Divided last, so that what comes out even is not rounded up.
        return max(0, n_stages - math.ceil((epoch + 1) * n_stages / n_until_all))
    return max(0, n_stages - unfreeze)
