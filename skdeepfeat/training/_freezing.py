"""Which stages of a body are trained in which epoch."""

import math

from .._utils._parameter_errors import look_up

# Gradual unfreezing reaches the first stage after this fraction of the run.
_GRADUAL_FRACTION = 0.5


def first_unfrozen_stage(unfreeze, n_stages, epoch, n_epochs):
    """Return the number of the first stage that is trained in an epoch.

    Parameters
    ----------
    unfreeze : {"all", "gradual"}, int or None
        An int is the number of the last stages that are trained. ``"gradual"`` begins
        with the last stage and adds the others one by one during the first half of the
        epochs (Howard and Ruder, "Universal language model fine-tuning", 2018).
    n_stages, epoch, n_epochs : int
        Epochs are counted from 0.

    Returns
    -------
    int
        0 to `n_stages`; `n_stages` if the whole body is frozen.
    """
    if isinstance(unfreeze, str | None):
        return look_up(_BY_NAME, unfreeze, "unfreeze")(n_stages, epoch, n_epochs)
    return max(0, n_stages - unfreeze)


def _gradual(n_stages, epoch, n_epochs):
    n_until_all = max(1.0, _GRADUAL_FRACTION * n_epochs)
    # The division comes last, so that an exact quotient is not rounded up.
    return max(0, n_stages - math.ceil((epoch + 1) * n_stages / n_until_all))


_BY_NAME = {
    "all": lambda n_stages, epoch, n_epochs: 0,
    None: lambda n_stages, epoch, n_epochs: n_stages,
    "gradual": _gradual,
}
