"""relative_gradient_norms: which stages of a network a data set wants to change."""

import pandas as pd

from .._utils._constraints import POSITIVE_INT
from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from ..fine_tuning import stage_gradients


@public_function
@validate_params(n_samples=[POSITIVE_INT])
def relative_gradient_norms(estimator, X, y, *, n_samples=128):
    """Return how large the gradient of each stage is, relative to its weights.

    The relative gradient norm of a stage is ``||g|| / ||w||``, where w are all its
    weights and g is the gradient of the loss with respect to them. A large norm means
    that the images want to change the stage. Lee et al. [1]_ use it to select the
    layers to tune: images that look different point to the first stages, and labels
    with another meaning to the last.

    The gradient is that of one batch, without augmentation, dropout, and updates of
    batch normalizations. So the function takes as long as one training step, in
    addition to the features of the frozen body if the estimator is not fitted. A fitted
    estimator is examined with its tuned body and its head. An unfitted one gets a head
    from phase one of `fit`.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        It is not changed.
    X : array-like of images, as for the estimator's `fit`
        The images.
    y : array-like, as for the estimator's `fit`
        For a fitted classifier, labels that it knows.
    n_samples : int, default=128
        Number of images for the gradient. They are balanced over the classes, or spread
        over the range of the (first) target.

    Returns
    -------
    norms : DataFrame
        One row per stage of the body, first to last, and one for the head. The index
        is the number of the stage, or "head". The columns are `layer`, the layer that
        ends the stage; `n_parameters`; `weight_norm`; `gradient_norm`; and
        `relative_norm`, which is NaN for a stage without weights.

    Raises
    ------
    BadImageError
        With ``on_error="raise"``: an image cannot be read.
    TypeError
        If the estimator is not one of the fine-tuning estimators.

    See Also
    --------
    skdeepfeat.FineTuneClassifier : Its parameter `unfreeze` selects stages.

    References
    ----------
    .. [1] Lee et al., "Surgical fine-tuning improves adaptation to distribution
       shifts", ICLR 2023. https://arxiv.org/abs/2210.11466

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import FineTuneClassifier
    >>> from skdeepfeat.inspection import relative_gradient_norms
    >>> digits = load_digits()
    >>> clf = FineTuneClassifier(image_size=32, random_state=0)
    >>> norms = relative_gradient_norms(clf, digits.images / 16, digits.target)
    >>> norms.index.tolist()
    [0, 1, 2, 3, 4, 'head']
    """
    found = stage_gradients(estimator, X, y, n_samples)
    norms = pd.DataFrame(found, index=[*range(len(found) - 1), "head"])
    # NaN without weights
    norms["relative_norm"] = norms["gradient_norm"] / norms["weight_norm"]
    norms.index.name = "stage"
    return norms
