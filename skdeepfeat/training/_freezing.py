"""Which parts of a body are trained in which epoch."""

import math

# Gradual unfreezing reaches the first stage after this fraction of the run.
_GRADUAL_FRACTION = 0.5


def unfrozen_parts(unfreeze, n_stages, epoch, n_epochs):
    """Return the parts that are trained in an epoch.

    Parameters
    ----------
    unfreeze : str, int, sequence of (str or int), or None
        An int is the number of the last stages that are trained. ``"gradual"`` begins
        with the last stage and adds the others one by one during the first half of the
        epochs (Howard and Ruder, "Universal language model fine-tuning", 2018). None
        trains no stage, ``"all"`` all. Any other name, and what is in a sequence, is
        a part.
    n_stages, epoch, n_epochs : int
        Epochs are counted from 0.

    Returns
    -------
    sequence of (str or int)
        Names, and numbers of stages.
    """
    if unfreeze is None:
        return ()
    if unfreeze == "all":
        return range(n_stages)
    if unfreeze == "gradual":
        n_until_all = max(1.0, _GRADUAL_FRACTION * n_epochs)
        # The division comes last, so that an exact quotient is not rounded up.
        n_last = math.ceil((epoch + 1) * n_stages / n_until_all)
    elif isinstance(unfreeze, str):
        return (unfreeze,)
    elif isinstance(unfreeze, (tuple, list)):
        return unfreeze
    else:
        n_last = unfreeze
    return range(max(0, n_stages - n_last), n_stages)
