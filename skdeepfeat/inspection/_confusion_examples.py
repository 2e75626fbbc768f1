"""confusion_examples: an image for each cell of a confusion matrix."""

import numpy as np
import pandas as pd

from .._utils._public_function import public_function
from ._predictions import compare_predictions


@public_function
def confusion_examples(y_true, y_pred, *, classes=None):
    """Return the confusions of a classifier, each with an example.

    Parameters
    ----------
    y_true : array-like, shape (n_samples,)
        Class labels.
    y_pred : array-like, shape (n_samples, n_classes) or (n_samples,)
        Probabilities of the classes, or predicted labels. Rows of NaN are left out.
    classes : array-like, shape (n_classes,), or None, default=None
        The labels of the columns of `y_pred`. None means the sorted labels of `y_true`.

    Returns
    -------
    pandas.DataFrame
        One row for each pair of labels that occurs, with the columns

        - ``true``, ``predicted``: the labels;
        - ``count``: the number of such images;
        - ``index``: the index in X of the image whose predicted label has the highest
          probability, or of the first image if `y_pred` has labels;
        - ``probability``: that probability, NaN if unknown.

    Raises
    ------
    ValueError
        If the parameters are inconsistent, or for a regression.

    See Also
    --------
    skdeepfeat.plotting.ConfusionGalleryDisplay : Show the matrix with these images.

    Examples
    --------
    >>> from skdeepfeat.inspection import confusion_examples
    >>> confusion_examples(["cat", "cat", "dog"], [[0.6, 0.4], [0.9, 0.1], [0.7, 0.3]])
      true predicted  count  index  probability
    0  cat       cat      2      1          0.9
    1  dog       cat      1      2          0.7
    """
    found = compare_predictions(y_true, y_pred, classes, "confusion_examples")
    if found.is_regression:
        raise ValueError(
            "The 'y_true' parameter of confusion_examples must be class labels. Got "
            "the numbers of a regression."
        )
    table = pd.DataFrame(
        {
            "true": found.true,
            "predicted": found.predicted,
            "index": found.index,
            "probability": found.of_predicted(),
        }
    )
    # The most probable first; a stable sort keeps the others in their order.
    table = table.sort_values("probability", ascending=False, kind="stable")
    pairs = table.groupby(["true", "predicted"], as_index=False, sort=True)
    examples = pairs.first()
    counts = pairs.size()["size"]
    examples.insert(2, "count", counts)
    return examples.astype({"count": np.int64})
