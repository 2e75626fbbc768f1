"""top_losses: the images with the worst predictions."""

import numpy as np
import pandas as pd

from .._utils._constraints import POSITIVE_INT
from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from ..images import make_image_source
from ._predictions import compare_predictions

_SMALLEST = np.finfo(np.float64).tiny


@public_function
@validate_params(k=[POSITIVE_INT, None])
def top_losses(y_true, y_pred, *, classes=None, X=None, k=None):
    """Return the images with the worst predictions, the worst first.

    Wrong labels are among them if the model has not seen the labels, so pass
    predictions of `sklearn.model_selection.cross_val_predict`. A model that was fitted
    to a wrong label may have memorized it.

    Parameters
    ----------
    y_true : array-like, shape (n_samples,)
        Class labels, or the numbers of a regression.
    y_pred : array-like, shape (n_samples, n_classes) or (n_samples,)
        Probabilities of the classes, predicted labels, or predicted numbers. Rows of
        NaN are left out.
    classes : array-like, shape (n_classes,), or None, default=None
        The labels of the columns of `y_pred`. None means the sorted labels of `y_true`,
        as `cross_val_predict` returns them.
    X : array-like of images or None, default=None
        If X holds paths, the result has a column for them.
    k : int or None, default=None
        The number of images to return. None means all.

    Returns
    -------
    pandas.DataFrame
        One row for each image, sorted by descending loss, with the columns

        - ``index``: the index of the image in X;
        - ``loss``: the negative log probability of the true label. For predicted
          labels, it is 1 or 0, and for numbers, the absolute error;
        - ``true``, ``predicted``: labels or numbers;
        - ``probability``: the probability of the predicted label, NaN if unknown;
        - ``path``: the path of the image, None without paths.

    Raises
    ------
    ValueError
        If the parameters are inconsistent.

    See Also
    --------
    skdeepfeat.plotting.TopLossesDisplay : Show these images.

    Examples
    --------
    >>> from skdeepfeat.inspection import top_losses
    >>> losses = top_losses(["cat", "dog", "dog"], [[0.9, 0.1], [0.8, 0.2], [0, 1]])
    >>> losses[["index", "loss", "true", "predicted"]].round(2)
       index  loss true predicted
    0      1  1.61  dog       cat
    1      0  0.11  cat       cat
    2      2  0.00  dog       dog
    """
    found = compare_predictions(y_true, y_pred, classes, "top_losses")
    if found.is_regression:
        losses = np.abs(found.true - found.predicted)
    elif found.probabilities is None:
        losses = (found.true != found.predicted).astype(np.float64)
    else:
        column = {label: i for i, label in enumerate(found.classes.tolist())}
        columns = [column[label] for label in found.true.tolist()]
        of_true = found.probabilities[np.arange(len(columns)), columns]
        losses = -np.log(np.maximum(of_true, _SMALLEST)) + 0.0
    order = np.argsort(-losses, kind="stable")[:k]
    index = found.index[order]
    paths = [None] * len(index)
    if X is not None:
        source = make_image_source(X)
        if len(source) != len(y_true):
            raise ValueError(
                "The 'X' parameter of top_losses must have one image for each of the "
                f"{len(y_true)} predictions. Got {len(source)} images."
            )
        paths = [source.path(i) for i in index.tolist()]
    return pd.DataFrame(
        {
            "index": index,
            "loss": losses[order],
            "true": found.true[order],
            "predicted": found.predicted[order],
            "probability": found.of_predicted()[order],
            "path": pd.Series(paths, dtype=object),
        }
    )
